"""What holds the project together: one direction of imports, documentation that knows every method, a clean linter."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from keras_tkd.methods import METHODS
from keras_tkd.runs.workdir import OWN_FILES

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
MODULES = sorted((ROOT / "keras_tkd").rglob("*.py"))

# What each room may import of the package, beside itself and utils/, which is known by all and knows nobody.
ALLOWED = {
    "utils": "",
    "batches": "",
    "callbacks": "",
    "miners": "",
    "methods": "",
    "models": "",
    "data": "",
    "config": "methods",
    "evaluation": "data",
    "losses": "miners",
    "metrics": "losses",
    "teachers": "losses",
    "export": "evaluation",
    "reports": "evaluation.measures",
    "distillation": "batches callbacks losses methods teachers",
    "teacher_cache": "data losses teachers",
    "runs": "batches callbacks config data distillation evaluation losses methods miners models reports teacher_cache "
    "teachers",
}


def room(path):
    return path.relative_to(ROOT / "keras_tkd").parts[0].removesuffix(".py")


def imported_modules(path):
    """Paths inside the package of all that a file imports of it: `losses.base` for `keras_tkd.losses.base`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "keras_tkd":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("keras_tkd."):
            yield node.module.removeprefix("keras_tkd.")


def is_allowed(module, rooms):
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_imports_point_one_way(path):
    own = room(path)
    if own == "__init__":
        return
    allowed = ["utils", own, *ALLOWED[own].split()]
    assert not [module for module in imported_modules(path) if not is_allowed(module, allowed)]


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
