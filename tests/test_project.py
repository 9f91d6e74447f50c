"""What holds the project together: one direction of imports, documentation that knows every method, a clean linter."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from keras_tkd.methods import METHODS
from keras_tkd.workdir import OWN_FILES

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
MODULES = sorted((ROOT / "keras_tkd").rglob("*.py"))

# What each room may import of the package; a room may always import itself.
ALLOWED = {
    "distances": set(),
    "live": set(),
    "miners": {"distances"},
    "methods": {"losses"},
    "layer_outputs": set(),
    "teachers": set(),
    "verification": set(),
    "evaluation": {"data", "layer_outputs", "teachers", "verification"},
    "workdir": set(),
    "models": set(),
    "data": set(),
    "losses": {"distances", "live", "miners"},
    "metrics": {"losses"},
    "fingerprints": set(),
    "cache_files": {"workdir"},
    "cache_building": {"data", "ensemble", "ensemble_reader", "fingerprints", "keras_compat"},
    "teacher_cache": {"cache_building", "cache_files", "data"},
    "combination": {"methods"},
    "flagfile": set(),
    "config": {"combination", "flagfile", "methods"},
    "precision": {"teachers"},
    "report": {"evaluation"},
    "callbacks": set(),
    "batches": set(),
    "step": set(),
    "keras_compat": {"losses"},
    "compatibility": {"keras_compat", "live", "losses", "teachers"},
    "teacher_reader": {"compatibility", "layer_outputs", "losses", "teachers"},
    "ensemble": {"compatibility", "live", "teacher_reader", "teachers"},
    "ensemble_reader": {"compatibility", "ensemble", "live", "losses", "teacher_reader"},
    "distiller": {
        "batches",
        "callbacks",
        "compatibility",
        "ensemble_reader",
        "layer_outputs",
        "live",
        "losses",
        "step",
        "teachers",
    },
    "trikd": {
        "batches",
        "compatibility",
        "distiller",
        "layer_outputs",
        "live",
        "losses",
        "step",
        "teacher_reader",
        "teachers",
    },
    "results": {"config", "ensemble", "evaluation", "flagfile", "workdir"},
    "run_cache": {"cache_building", "data", "teacher_cache"},
    "generations": {"callbacks", "data", "evaluation", "precision", "run_cache", "stages", "trikd", "workdir"},
    "stages": {
        "callbacks",
        "config",
        "data",
        "distiller",
        "ensemble",
        "evaluation",
        "methods",
        "precision",
        "run_cache",
        "workdir",
    },
}


def room(path):
    return path.relative_to(ROOT / "keras_tkd").parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "keras_tkd":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("keras_tkd."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_imports_point_one_way(path):
    own = room(path)
    if own in ("__init__", "training"):
        return
    assert set(imported_rooms(path)) - {own} <= ALLOWED[own]


def test_flags_are_known_to_scripts_only():
    assert not [path for path in MODULES if "absl" in path.read_text()]


def test_the_page_of_methods_and_methods_agree():
    page = (DOCS / "methods.md").read_text()
    for method in METHODS:
        assert f"| `{method}` |" in page


def test_the_paper_of_every_method_is_listed():
    page = (DOCS / "methods.md").read_text()
    papers = (DOCS / "papers.md").read_text().partition("## Papers")[2].splitlines()
    cited = re.findall(r"\| (?:after )?(\w+)[^|]*?, (\d{4}) \|$", page, re.MULTILINE)
    # All but the baseline, and a variant that its authors describe elsewhere.
    assert len(cited) == len(METHODS) - 2
    for author, year in cited:
        assert any(author in paper and year in paper for paper in papers), (author, year)


@pytest.mark.parametrize("name", OWN_FILES)
def test_what_a_run_leaves_is_listed(name):
    page = (DOCS / "workdir.md").read_text()
    assert re.search(rf"^\|.*`{re.escape(name)}/?`.*\|.*\|$", page, re.MULTILINE)


def test_the_package_is_imported_without_tensorflow():
    code = "import keras_tkd, sys; assert 'tensorflow' not in sys.modules; keras_tkd.METHODS; keras_tkd.Distiller"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_another_backend_is_one_clear_error():
    code = "import os; os.environ['KERAS_BACKEND'] = 'jax'; import keras_tkd"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "KERAS_BACKEND=tensorflow" in done.stderr


def test_linter():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_method_has_its_results():
    results = (ROOT / "RESULTS.md").read_text()
    # The baseline stands beside each of them, as the student alone.
    for method in set(METHODS) - {"baseline"}:
        assert f"| `{method}` | " in results, method
