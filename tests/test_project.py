"""What holds the project together: one direction of imports, documentation that knows every method, a clean linter."""

import ast
import inspect
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tokenize

import pytest

from keras_tkd.methods import METHODS
from keras_tkd.runs.layout import OWN_FILES
from keras_tkd.utils import model_files

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
MODULES = sorted((ROOT / "keras_tkd").rglob("*.py"))
# All but the list of public names, which knows where each is.
IN_ROOMS = [path for path in MODULES if path != ROOT / "keras_tkd" / "__init__.py"]
IN_ROOMS += sorted((ROOT / "scripts").glob("*.py"))

# What each room may import of the package, beside itself and utils/, which is known by all and knows nobody.
ALLOWED = {
    "utils": "",
    "batches": "",
    "callbacks": "",
    "distribution": "",
    "miners": "",
    "methods": "",
    "models": "",
    "data": "",
    "config": "methods",
    "evaluation": "data",
    "losses": "miners",
    "metrics": "losses",
    "teachers": "losses",
    "export": "data evaluation",
    "reports": "evaluation.calibration evaluation.measures evaluation.projections evaluation.significance",
    "distillation": "batches callbacks losses methods teachers",
    "teacher_cache": "data evaluation.measures losses teachers",
    "runs": "batches callbacks config data distillation distribution evaluation export losses methods metrics miners "
    "models reports teacher_cache teachers",
    "scripts": "config runs reports",
}


def room(path):
    """The room of a file: a folder or module of the package, or `scripts`."""
    parts = path.relative_to(ROOT).parts
    return (parts[1] if parts[0] == "keras_tkd" else parts[0]).removesuffix(".py")


def imported_names(source, path):
    """Yields whatever the source text of a file names of the package, without `keras_tkd.` before it.

    A bare `import keras_tkd`, through which every room is reached, is the empty name.
    """
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            # `from . import` is from the file's own folder, each dot more from the one above.
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"keras_tkd(\.\w+)*", str(node.value)):
            # A module's name as text, to be imported when it is needed. By itself, it is where Keras registers classes.
            names = [node.value] if "." in node.value else []
        else:
            continue
        yield from (name[len("keras_tkd") :].lstrip(".") for name in names if re.match(r"keras_tkd(\.|$)", name))


def is_allowed(name, rooms):
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def forbidden_imports(source, path):
    own = room(path)
    allowed = ["utils", own, *ALLOWED[own].split()]
    return [name for name in imported_names(source, path) if not is_allowed(name, allowed)]


@pytest.mark.parametrize("path", IN_ROOMS, ids=[str(path.relative_to(ROOT)) for path in IN_ROOMS])
def test_imports_point_one_way(path):
    assert not forbidden_imports(path.read_text(), path)


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("from keras_tkd.runs import commands", ["runs.commands"]),
        ("from keras_tkd.runs.commands import distill", ["runs.commands.distill"]),
        ("from keras_tkd import runs, losses, utils", ["runs"]),
        ("from keras_tkd import Distiller", ["Distiller"]),
        ("import keras_tkd.runs", ["runs"]),
        ("import keras_tkd.runs.commands as commands, keras_tkd.losses", ["runs.commands"]),
        ("import keras_tkd", [""]),
        ("import keras_tkd.losses; keras_tkd.runs", ["runs"]),
        ("from . import reader", []),
        ("from .reader import TeacherReader", []),
        ("from .. import runs, losses", ["runs"]),
        ("from ..runs import commands", ["runs.commands"]),
        ("from ..losses.base import DistillationLoss", []),
        ("def f():\n    from ..runs.commands import distill", ["runs.commands.distill"]),
        ("importlib.import_module('keras_tkd.runs')", ["runs"]),
        ("importlib.import_module('keras_tkd.losses')", []),
        ("register(package='keras_tkd'); import keras, keras_tkd_more", []),
        ("from keras_tkd.utilsmore import x", ["utilsmore.x"]),
    ],
)
def test_every_form_of_import_is_seen(source, forbidden):
    # Of the room `teachers`, which may import `losses` and `utils`.
    assert forbidden_imports(source, ROOT / "keras_tkd" / "teachers" / "crafted.py") == forbidden


def test_a_module_of_a_room_may_be_allowed_alone():
    path = ROOT / "keras_tkd" / "reports" / "crafted.py"
    source = "from keras_tkd.evaluation import {0}; from keras_tkd.evaluation.{0} import accuracy"
    assert not forbidden_imports(source.format("measures"), path)
    assert len(forbidden_imports(source.format("predictions"), path)) == 2


def test_scripts_are_held_to_their_row():
    path = ROOT / "scripts" / "crafted.py"
    assert not forbidden_imports("from keras_tkd.config import get_default; from keras_tkd.runs import commands", path)
    assert forbidden_imports("from keras_tkd.losses import base", path) == ["losses.base"]


def test_contributing_states_the_rule():
    rows = re.findall(r"^    (\w+) {2,}(.+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    stated = {room: set() if allowed == "nothing" else set(allowed.split()) for room, allowed in rows}
    assert stated.pop("runs") == {"everything", "above"}
    assert stated == {room: set(allowed.split()) for room, allowed in ALLOWED.items() if room != "runs"}
    above = [room for room, _ in rows[: [room for room, _ in rows].index("runs")]]
    assert set(ALLOWED["runs"].split()) == set(above) - {"utils"}


def test_there_is_one_progress_bar():
    assert [path.name for path in MODULES if "Progbar" in path.read_text()] == ["progress.py"]


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


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_python_that_is_asked_for_is_not_passed_over(tmp_path):
    """Where the environment is there already, with another; without a word make would take that."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, version in (("python", "3.11.7"), ("other", "3.13.1"), ("same", "3.11.7")):
        path = tmp_path / ".venv" / "bin" / name
        path.write_text(f"#!/bin/sh\necho Python {version}\n")
        path.chmod(0o755)

    def plan(*words):
        command = ["make", "-n", "-f", str(ROOT / "Makefile"), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    refused = plan("demo", "PYTHON=.venv/bin/other")
    assert refused.returncode and "with Python 3.11.7, which .venv/bin/other is not: run make clean" in refused.stderr
    refused = plan("demo", "PYTHON=.venv/bin/none")
    assert refused.returncode and "run make clean first" in refused.stderr
    (tmp_path / "setup.cfg").touch()
    for words in (["demo", "PYTHON=.venv/bin/same"], ["demo"], ["clean", "PYTHON=.venv/bin/other"]):
        done = plan(*words)
        assert done.returncode == 0 and done.stdout, done.stderr


def test_every_method_has_its_results():
    results = (ROOT / "RESULTS.md").read_text()
    # The baseline stands beside each of them, as the student alone.
    for method in set(METHODS) - {"baseline"}:
        assert f"| `{method}` | " in results, method


# Words: rules that hold for every module, read off its syntax.

# Keras documents these methods: in every subclass they do the same.
KERAS_METHODS = {
    *("build", "call", "compile", "compile_from_config", "compute_loss", "compute_output_shape", "fit", "from_config"),
    "make_train_function",
    *("get_compile_config", "get_config", "metrics", "result", "test_step", "train_step", "update_state"),
    *(
        "on_epoch_begin",
        "on_epoch_end",
        "on_test_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_train_begin",
        "on_train_end",
    ),
    *("on_test_batch_end", "on_test_end"),
}
# A docstring that begins with one of these has the reader guess what is done.
RIDDLES = ("How", "If", "That", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why")
each_module = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])

TREES = {path: ast.parse(path.read_text()) for path in MODULES}
CLASSES = {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def definitions(tree):
    """Functions, classes and constants of a module: dict from a name to its node."""
    found = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        found |= {part.id: node for target in targets if target for part in ast.walk(target) if hasattr(part, "id")}
    return found


def listed(tree):
    """The names in `__all__`; none of a package whose list is made of other lists."""
    node = definitions(tree).get("__all__")
    try:
        return ast.literal_eval(node.value) if node else []
    except ValueError:
        return []


def is_public(name):
    return not name.startswith("_")


def is_property(node):
    return any(ast.unparse(mark).endswith("property") for mark in node.decorator_list)


def methods(node):
    """Public methods and properties of a class; of a property with a setter the getter."""
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef) and is_public(part.name)]
    return [part for part in functions if not any(isinstance(mark, ast.Attribute) for mark in part.decorator_list)]


def is_documented(node, name):
    """Whether a class documents a method, or a class of this package that it derives from does."""
    if any(method.name == name and ast.get_docstring(method) for method in methods(node)):
        return True
    return any(is_documented(CLASSES[base.id], name) for base in node.bases if getattr(base, "id", None) in CLASSES)


@each_module
def test_all_lists_what_a_module_defines_for_others(path):
    tree = TREES[path]
    names, public = listed(tree), set(filter(is_public, definitions(tree)))
    assert names == sorted(set(names))
    if path.name == "__init__.py":
        # A package also lists what it imports from its modules.
        assert public <= set(names)
    else:
        assert public == set(names)


@each_module
def test_everything_public_is_documented(path):
    tree, lacking = TREES[path], []
    for name, node in definitions(tree).items():
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and is_public(name) and not ast.get_docstring(node):
            lacking.append(name)
        if isinstance(node, ast.ClassDef) and is_public(name):
            named = [method.name for method in methods(node) if method.name not in KERAS_METHODS]
            lacking += [f"{name}.{method}" for method in named if not is_documented(node, method)]
    assert not lacking and ast.get_docstring(tree)


def first_lines(nodes):
    texts = [ast.get_docstring(node) for node in nodes if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))]
    return [text.splitlines()[0] for text in texts if text]


@each_module
def test_docstrings_begin_with_a_sentence(path):
    lines = first_lines(ast.walk(TREES[path]))
    assert not [line for line in lines if line.split()[0] in RIDDLES or not line.endswith((".", ":"))]


@each_module
def test_functions_say_what_they_do(path):
    """A verb comes first, or the literature's name of the quantity; no article and no formula."""
    # Private ones too. Properties, which are decorated, are things.
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef) and not is_property(node)]
    assert not [line for line in first_lines(functions) if re.match("(An?|The) |[^A-Z]", line)]


def own_names(tree):
    """Functions, methods and attributes that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def names_read(tree):
    """Names of attributes, as they are written or given to `getattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("getattr", "hasattr", "setattr"):
            yield str(getattr(node.args[1], "value", ""))


def test_private_names_of_keras_are_in_one_file():
    own = {name for tree in TREES.values() for name in own_names(tree)}
    for path in MODULES:
        if path.name != "keras_graph.py":
            assert not {name for name in names_read(TREES[path]) if re.match("_[^_]", name)} - own, path
            assert "keras.src" not in path.read_text(), path


def calls(tree):
    """Every call of a module: the function as it is written, and its keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            yield ast.unparse(node.func), keywords


def test_files_are_read_without_running_what_is_in_them():
    loading = set()
    for path in MODULES:
        for function, keywords in calls(TREES[path]):
            if function.split(".")[-1] in ("load_model", "load_weights", "model_from_json") and "keras." in function:
                loading.add(path.name)
                # The one door may be told to trust a file, by an argument whose default trusts none.
                assert keywords.get("safe_mode", True) is True or path.name == "model_files.py"
                assert keywords.get("safe_mode") is not False
            assert function not in ("np.load", "numpy.load") or keywords.get("allow_pickle") is False, path
        modules = {alias.name for node in ast.walk(TREES[path]) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in ast.walk(TREES[path]) if isinstance(node, ast.ImportFrom)}
        assert not modules & {"pickle", "marshal", "dill", "cloudpickle", "joblib", "shelve", "tarfile"}, path
    # Every model goes through one door.
    assert loading == {"model_files.py"}
    assert inspect.signature(model_files.load_model).parameters["trust_code"].default is False


def test_one_line_in_thirty_is_a_comment():
    lines = comments = 0
    for path in MODULES:
        text = path.read_text()
        lines += len(text.splitlines())
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
    assert comments >= 0.03 * lines
