"""The code of the README and of docs/ runs, and does what the text around it says; so do the examples of the losses.

Links lead somewhere, and the pages build as a site.
"""

import ast
import contextlib
import doctest
import html.parser
import importlib.util
import inspect
import math
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_tkd.data
import keras_tkd.export
from keras_tkd import losses, metrics, models, runs
from keras_tkd.config import DistillConfig
from keras_tkd.data.image_list import HELD_OUT
from keras_tkd.methods import METHODS
from keras_tkd.miners import MINERS
from keras_tkd.reports.tables import format_image_counts
from keras_tkd.runs import layout, stages, tuning, tuning_flags, tuning_jobs
from keras_tkd.runs.inputs import load_distillation_inputs
from keras_tkd.utils.augmentation_names import ARGUMENTS
from keras_tkd.utils.files import save_model

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "triplets.md").read_text()
EXAMPLE, MINER, PIPELINES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_learns_an_embedding(capsys):
    """Three epochs instead of twenty, against the same network with none."""
    assert len(EXAMPLE.splitlines()) <= 30
    accuracy = {}
    for epochs in (0, 3):
        names = {}
        exec(EXAMPLE.replace("EPOCHS = 20", f"EPOCHS = {epochs}"), names)
        accuracy[epochs] = names["accuracy"]
    assert accuracy[3] > accuracy[0] + 0.05
    logs = names["model"].history.history
    assert logs["triplet_violated"][-1] < logs["triplet_violated"][0]
    assert len(logs) == 4 and all(f"| `{name}` |" in PAGE for name in logs.keys() - {"loss"})
    assert f"of the same class for {accuracy[3]:.2%} of the test images" in capsys.readouterr().out


def test_the_miner_runs():
    names = {"labels": [0, 0, 1], "distances": np.ones((3, 3)), "positive_distances": np.zeros(3)}
    exec(MINER, names)
    assert names["valid"].numpy().all() and names["index"].numpy().tolist()[:2] == [2, 2]
    for name in MINERS:
        assert f'| `"{name}"` |' in PAGE


def test_the_pipelines_run():
    images = np.zeros((9, 2, 2, 1), "uint8")
    names = {"images": images, "sharp_images": images, "labels": np.arange(9) % 3}
    exec(PIPELINES, names)
    assert set(names["triplets"].element_spec[0]) == {"image", "negative", "positive", "teacher_image", "index"}
    assert set(names["pairs"].element_spec[0]) == {"image", "partner", "same", "index"}


@pytest.mark.parametrize("name", ["triplet_dataset", "pair_dataset", "class_batches"])
def test_every_pipeline_has_its_row(name):
    assert f"| `{name}` |" in PAGE and name in keras_tkd.data.__all__


def test_verification(tmp_path, monkeypatch, capsys):
    page = (DOCS / "verification.md").read_text()
    monkeypatch.chdir(tmp_path)
    models.build("digits_student", (8, 8, 1), 6).save("student.keras")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert f"prints `{capsys.readouterr().out.strip()}`" in page
    for name in names["verified"]:
        assert f"`{name}`" in page


def test_pictures(tmp_path):
    page = (DOCS / "pictures.md").read_text()
    (table,) = re.findall(r"^    file,label.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "labels.csv").write_text(table.replace("    ", "") + "\n")
    for value, line in enumerate(table.split()[1:]):
        path = tmp_path / line.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        # PGM, whatever its name says.
        path.write_bytes(b"P5 1 1 255 " + bytes([value]))
    splits = keras_tkd.data.load(tmp_path, labels=tmp_path / "labels.csv")
    assert splits.class_names == ("cat", "dog") and splits.train_images.ravel().tolist() == [0, 1]
    assert splits.test_images.ravel().tolist() == [2, 3] and splits.test_labels.tolist() == [0, 1]
    counts = {"train": {"cat": 480, "dog": 480}, "test": {"cat": 120, "dog": 120}}
    skipped = {".txt files": ["cat/a.txt", "cat/b.txt", "dog/c.txt"]}
    skipped["sub-folders of classes, which --nested reads"] = ["cat/monday"]
    assert f"```\n{format_image_counts('photos', counts, skipped)}\n```" in page
    assert all(f"`{name}/`" in page for name in HELD_OUT)


def test_the_comparison_runs(tmp_path, monkeypatch, capsys):
    """With trainings that end at once: nothing is learned, and nothing shown."""

    def end_at_once(run, stage, *_, files, **__):
        for path, model in files.items():
            save_model(model, path)
        stage.finish([{"val_accuracy": 0.1}], 1.0, files)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "fit_stage", end_at_once)
    page = (DOCS / "compare.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(example.replace("seeds=[0, 1, 2]", "seeds=[0]"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "NOT SHOWN None"
    left = {path.name for path in (tmp_path / "runs" / "digits_comparison").iterdir()}
    assert left == {"baseline", "kd", "tkd", "teacher", "output", "comparison.json", "results.csv", "table.md"}
    assert all(f"`{name}`" in page for name in ("comparison.json", "results.csv", "table.md", "output/"))
    assert all(f"`--{name}`" in page for name in ("methods", "seeds", "parallel", "workdir"))


def test_the_page_of_tuning(tmp_path):
    """Its call can be made, and it names every flag and file that there is."""
    page = (DOCS / "tuning.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    call = next(
        node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call) and "tune" in ast.unparse(node.func)
    )
    inspect.signature(runs.tune).bind(*call.args, **{word.arg: word.value for word in call.keywords})
    script = (ROOT / "scripts" / "tune.py").read_text()
    own = re.findall(r'flags.DEFINE_\w+\(\s*"(\w+)"', script)
    assert sorted(own) == ["methods", "parallel", "seeds", "space", "trials", "workdir"]
    assert all(f"| `--{name}` |" in page or f"`--{name}=" in page for name in own)
    files = (layout.TUNING, tuning.TRIALS, f"METHOD/{tuning_flags.BEST}", tuning_flags.SHARED)
    for name in (*files, f"METHOD/{tuning_jobs.JOURNAL}"):
        assert f"| `{name}` |" in page


def small_model(width, channels=1):
    images = keras.Input((8, 8, channels))
    features = keras.layers.Conv2D(width, 3, name="features")(images)
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(features)))


def test_the_cache_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype="uint8")
    names = {"images": images, "test_images": images[:3], "labels": np.arange(6) % 3, "test_labels": np.arange(3)}
    names |= {"teacher": small_model(4), "student": small_model(2)}
    names["loss"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "teacher_cache.md").read_text(), re.DOTALL)
    exec(example.replace("epochs=20", "epochs=1, verbose=0"), names)
    assert np.load("cache/train/features.npy").shape == (4, 6, 6, 6, 4)
    assert np.load("cache/test/logits.npy").shape == (1, 3, 3)


def test_augmentation_runs(tmp_path, monkeypatch):
    page = (DOCS / "augmentation.md").read_text()
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype="uint8")
    labels = np.arange(20) % 10
    names = {"images": images, "labels": labels, "dataset": tf.data.Dataset.from_tensor_slices((images, labels))}
    for role in ("teacher", "student"):
        names[role] = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(first.replace("epochs=20", "epochs=1, verbose=0"), names)
    assert np.load("cache/train/logits.npy").shape == (4, 20, 10)
    mixed, _ = next(iter(names["alone"]))
    again = keras_tkd.data.triplet_dataset(images, labels, 128, negatives=None, **names["seen"])
    batch, _ = next(iter(names["cache"].attach(again)))
    np.testing.assert_array_equal(mixed, batch["image"])
    exec(second.replace("epochs=20", "epochs=1, verbose=0"), names)
    assert names["distiller"].history.history.keys() >= {"accuracy", "kd", "student_loss"}


def test_the_page_of_augmentation_has_the_operations_with_their_arguments():
    page = (DOCS / "augmentation.md").read_text()
    for name, function in keras_tkd.data.AUGMENTATIONS.items():
        (arguments,) = re.findall(rf"^\| `{name}` \| (.*?) ?\| ", page, re.MULTILINE)
        defaults = inspect.signature(function).parameters if function else {}
        given = [f"`{key}={defaults[key].default}`" for key in ARGUMENTS.get(name, ())]
        assert arguments == ", ".join(given)


def test_the_page_of_augmentation_says_which_methods_learn_from_mixed_images():
    table = (DOCS / "augmentation.md").read_text().partition("| methods | with mixed images |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \| (\w+)", table, re.MULTILINE)
    said = {method: word for methods, word in rows for method in re.findall(r"`(\w+)`", methods)}
    assert said.keys() == METHODS.keys() - {"baseline"}
    for method, word in said.items():
        by_teacher = {"negatives": "in_batch", "negative_classes": "teacher"} if word == "only" else {}
        for settings, allowed in (({}, word == "yes"), (by_teacher, word != "no")):
            with contextlib.nullcontext() if allowed else pytest.raises(ValueError, match="images of one class each"):
                DistillConfig(method=method, mixup=0.2, **settings)


PAGE_OF_OUTPUTS = (DOCS / "teacher_outputs.md").read_text()
FOREST, IMAGES_FOR_TORCH, TORCH, VIEWS, FROM_ARRAYS = re.findall(r"```python\n(.*?)```", PAGE_OF_OUTPUTS, re.DOTALL)


def load_outputs(file, **settings):
    settings = {"dataset": "digits", "method": "kd", "teacher_outputs": file} | settings
    return load_distillation_inputs(DistillConfig(**settings).resolved()).outputs


def test_a_teacher_of_scikit_learn(tmp_path, monkeypatch):
    """As it stands on the page, on views too, and in Python."""
    monkeypatch.chdir(tmp_path)
    assert len(FOREST.splitlines()) <= 16 and len(TORCH.splitlines()) <= 16
    names = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    exec(FOREST, names)
    found = load_outputs("forest.npz")
    assert found.source["given_as"] == "probabilities"
    splits = names["splits"]
    right = found.test_logits.argmax(-1) == splits.test_labels
    assert right.mean() == names["forest"].score(splits.test_images.reshape(-1, 64), splits.test_labels) > 0.95
    exec(VIEWS, names)
    options = re.search(r"and `--augmentation=(\w+) --teacher_views=(\d) --seed=(\d)`", PAGE_OF_OUTPUTS).groups()
    augmentation, views, seed = options[0], *map(int, options[1:])
    of_views = load_outputs("views.npz", augmentation=augmentation, teacher_views=views, seed=seed)
    assert of_views.caches["train"].outputs["logits"].shape == (2, 1438, 10)
    names |= {"images": splits.train_images, "test_images": splits.test_images, "test_labels": splits.test_labels}
    names |= {"student": models.build("digits_student", (8, 8, 1), 10), "train": names["train"][0]}
    exec(FROM_ARRAYS.replace("epochs=20", "epochs=1, verbose=0"), names)
    assert {"kd", "agreement", "val_agreement"} <= names["distiller"].history.history.keys()


# Not imported here, as `pytest.importorskip` would: some builds of it end a process that has TensorFlow.
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_teacher_of_pytorch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(IMAGES_FOR_TORCH, names := {})
    subprocess.run([sys.executable, "-c", TORCH], check=True, timeout=300)
    found = load_outputs("torch.npz")
    assert found.source["given_as"] == "logits"
    assert (found.test_logits.argmax(-1) == names["splits"].test_labels).mean() > 0.9


def test_several_teachers():
    first, second = re.findall(r"```python\n(.*?)```", (DOCS / "teachers.md").read_text(), re.DOTALL)
    keras.utils.set_random_seed(0)
    names = {role: small_model(4) for role in ("teacher_a", "teacher_b", "teacher_c", "student")}
    exec(first, names)
    assert len(names["distiller"].teacher.teachers) == 3
    exec(second, names)
    distiller = names["distiller"]
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype("float32")
    logs = distiller.evaluate(images, np.arange(6) % 3, verbose=0, return_dict=True)
    z_a, z_b, z_s = (names[role].predict(images, verbose=0) for role in ("teacher_a", "teacher_b", "student"))
    log_a, log_s = (z / 4 - np.log(np.exp(z / 4).sum(-1, keepdims=True)) for z in (z_a, z_s))
    assert logs["kd"] == pytest.approx(16 * (np.exp(log_a) * (log_a - log_s)).sum(-1).mean(), rel=1e-4)
    assert logs["logits"] == pytest.approx(((z_b - z_s) ** 2).mean(), rel=1e-4)
    to_own = np.linalg.norm((z_a + z_b) / 2 - z_s, axis=1).mean()
    assert logs["tkd_positive_distance"] == pytest.approx(to_own, rel=1e-4)
    assert not names["teacher_a"].trainable_variables and not names["teacher_b"].trainable_variables


DOCUMENTED = {name: thing for name, thing in vars(losses).items() if isinstance(thing, type)}
DOCUMENTED.pop("DistillationLoss")
DOCUMENTED |= {name: getattr(metrics, name) for name in metrics.__all__}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_numbers_of_an_example_are_what_it_gives(name):
    names = DOCUMENTED | {"np": np, "math": math}
    compared = 0
    for example in doctest.DocTestParser().get_examples(DOCUMENTED[name].__doc__):
        if not example.want:
            exec(example.source, names)
            continue
        found, said = (keras.tree.flatten(x) for x in (eval(example.source, names), ast.literal_eval(example.want)))
        np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in found]), said, atol=1e-4)
        compared += 1
    assert compared


def test_streaming_runs(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "streaming.md").read_text(), re.DOTALL)
    for there, here in (("imagenet_resized/64x64", "shades"), ("DIR", str(stored)), ("50_000", "40")):
        assert there in example
        example = example.replace(there, here)
    names = {"teacher": small_model(4, 3), "student": small_model(2, 3)}
    names["loss"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    exec(example.replace("epochs=20", "epochs=1, verbose=0"), names)
    assert names["images"].window_count == 3
    assert np.load("cache/train/logits.npy").shape == (4, 120, 3)


def test_export_runs(tmp_path, monkeypatch, capsys):
    page = (DOCS / "export.md").read_text()
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype="uint8")
    names = {"student": small_model(4), "class_names": "abc", "train_images": images, "test_images": images[:5]}
    names |= {"test_labels": np.arange(5) % 3}
    written, on_device = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(written, names)
    assert capsys.readouterr().out.count("Latency(batch_size=32") == 2
    expected = names.pop("outputs")
    exec(on_device, names)
    # Of 255 steps each, an activation and an output are rounded.
    np.testing.assert_allclose(names["outputs"], expected[:1], atol=0.05 * np.ptp(expected))
    for name, each in keras_tkd.export.FORMATS.items():
        assert f"| `{name}` | `{each.filename}{'/' * (name == 'saved_model')}` |" in page


def test_several_classes_run():
    names = {"keras": keras, "teacher": small_model(4), "student": small_model(2), "Distiller": keras_tkd.Distiller}
    names |= {"images": np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), "uint8")}
    names |= {"multi_hot": np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1]] * 2)}
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "multi_label.md").read_text(), re.DOTALL)
    exec(example.replace("fit(images, multi_hot)", "fit(images, multi_hot, verbose=0)"), names)
    assert {"binary_kd", "exact_match", "mAP", "agreement"} <= names["distiller"].history.history.keys()


def test_losses_of_several_methods():
    names = {}
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "methods.md").read_text(), re.DOTALL)
    exec(example, names)
    assert [loss.name for loss in names["losses"]] == ["kd", "tkd", "sp"] and names["weights"] == [0.9, 2.0, 3000.0]


def test_the_rooms_of_the_page_are_the_rooms():
    page = (DOCS / "architecture.md").read_text()
    rooms = re.findall(r"^      (\w+(?:/|\.py)) ", page, re.MULTILINE)
    there = [path.name + "/" * path.is_dir() for path in (ROOT / "keras_tkd").iterdir() if path.name != "__pycache__"]
    assert sorted(rooms) == sorted(there)
    picture = (DOCS / "images" / "rooms.svg").read_text()
    # As drawn, and as told to those who do not see it: all but the list of public names.
    drawn, told = re.findall(r'class="room mid"[^>]*>(\w+)/?<', picture), re.search(r"<desc.*</desc>", picture, re.S)[0]
    names = {name.removesuffix("/").removesuffix(".py") for name in there} - {"__init__"}
    assert set(drawn) == names | {"scripts", "benchmarks"}
    assert names <= set(re.findall(r"\w+", told))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 7000


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "distiller.md"], ids=lambda path: path.name)
def test_own_keras_code(path, tmp_path, monkeypatch):
    """The first block trains and saves the student; the second, of the page, draws the negatives."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype="uint8")
    labels = np.arange(12) % 3
    names = {"teacher": small_model(4), "student": small_model(2), "images": images, "labels": labels}
    names |= {"test_images": images[:3], "test_labels": labels[:3]}
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    before = [weights.copy() for weights in names["student"].get_weights()]
    for block in blocks:
        exec(block.replace("epochs=20", "epochs=1, verbose=0").replace("batch_size=128", "batch_size=6"), names)
    logs = names["distiller"].history.history
    assert {"accuracy", "student_loss", "agreement", "tkd", "tkd_positive_distance", "tkd_violated"} <= logs.keys()
    saved = keras.saving.load_model("student.keras")
    assert all((old != new).any() for old, new in zip(before, saved.get_weights(), strict=True))


def test_the_code_of_the_readme_is_short():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10


def test_the_flags_of_the_readme_are_flags():
    """`--only_check_args` parses and validates, and does nothing else."""
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"^python (scripts/distill.py .*?)\n```", readme, re.MULTILINE | re.DOTALL)
    arguments = command.replace("\\\n", " ").split()
    subprocess.run([sys.executable, *arguments, "--only_check_args"], cwd=ROOT, check=True, timeout=120)


def test_links_lead_to_files():
    """As they stand in the repository; on the site, where docs/ is the root, the build checks them."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md"]
    found, missing = 0, []
    for page in pages:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        for markdown, tag in re.findall(r"\]\((.+?)\)|(?:src|href)=\"(.+?)\"", text):
            link = (markdown or tag).partition("#")[0]
            if link and not link.startswith("https:"):
                found += 1
                missing += [(page.name, link)] * (not (page.parent / link).exists())
    assert found > 50 and not missing


def test_every_page_is_in_the_navigation():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    assert pages == {name for name in listed if not (ROOT / name).exists()} and len(listed) == len(set(listed))


PICTURES = sorted((DOCS / "images").glob("*.svg"))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_speaks_and_needs_nothing_else(path):
    """A title and a description for those who do not see it; colours for both schemes; nothing from other files."""
    picture = xml.etree.ElementTree.parse(path)
    kinds = [element.tag.rpartition("}")[2] for element in picture.iter()]
    assert {"title", "desc", "style"} <= set(kinds) and not {"image", "script"} & set(kinds)
    assert "prefers-color-scheme: dark" in path.read_text()
    assert not re.search(r"url\((?!#)|href=|@import", path.read_text())


def test_every_picture_is_shown():
    shown = "".join(page.read_text() for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    assert len(PICTURES) >= 3 and all(f"images/{path.name}" in shown for path in PICTURES)


class Fetched(html.parser.HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag != "a":
            self.addresses += [attributes[name] for name in ("src", "href") if attributes.get(name)]


def public_names(module):
    """Those of `__all__`; of a module without one, its own classes and functions, less those with an underscore."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def test_the_site(tmp_path):
    """It builds without a warning, fetches nothing from elsewhere, and has an entry for every public name."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    for path in tmp_path.rglob("*.html"):
        fetched = Fetched(path.read_text()).addresses
        assert fetched and not [address for address in fetched if re.match(r"(https?:)?//", address)], path
        # Pictures, styles and scripts are there. mkdocs looks after those of Markdown alone, not after tags of HTML.
        files = [address.partition("?")[0] for address in fetched if not address.startswith("data:")]
        assert not [file for file in files if not (path.parent / file).exists() and path.name != "404.html"], path
    api = {path.stem: path.read_text() for path in (tmp_path / "api").glob("*.html")}
    assert api.keys() == {"keras_tkd", *keras_tkd._MODULES}
    for module in api.keys() - {"keras_tkd"}:
        package = importlib.import_module(f"keras_tkd.{module}")
        for name in public_names(package):
            # A constant has no docstring: the page names it.
            entry = rf'id="keras_tkd\.[\w.]+\.{name}"' if callable(getattr(package, name)) else f"<code>{name}</code>"
            assert re.search(entry, api[module]), (module, name)
    for name in keras_tkd._EXPORTS:
        assert re.search(rf'id="keras_tkd\.[\w.]+\.{name}"|<code>{name}</code>', api["keras_tkd"]), name
    # What the two models have of their base is on their page too, and what `check` returns.
    for kind in ("distiller.Distiller", "trikd.TriKD"):
        for name in ("check", "compile", "compute_loss", "distillation_loss_weights", "distillation_losses", "fit"):
            assert re.search(rf'id="keras_tkd\.distillation\.[\w.]*{kind}\.{name}"', api["keras_tkd"]), (kind, name)
    assert 'id="keras_tkd.distillation.self_check.SelfCheck"' in api["keras_tkd"]
    # A docstring is plain text: `> 0` and `>>>` in it are no quotations.
    assert not [name for name, page in api.items() if "<blockquote>" in page]
