"""What TensorBoard shows of the demo, asked of TensorBoard itself; at the end, in a browser."""

import dataclasses
import json
import shutil
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf
from browsing import BROWSER, Browser
from demo_reading import FLAGS, read_constants, read_shared
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

from keras_tkd import data, evaluation
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import parse_lines, read_flags
from keras_tkd.runs import commands, compare
from keras_tkd.runs.board import _choose_images, _list_settings
from keras_tkd.runs.board_graphs import make_graph
from keras_tkd.runs.board_pictures import draw_confusion
from keras_tkd.runs.board_projector import write_projector

# Of the demo's methods those that show everything: two losses, triplets; a student alone.
METHODS = {name: read_constants()["METHODS"][name] for name in ("baseline", "tkd+kd")}
QUICK = {"epochs": 1, "teacher_epochs": 1, "batch_size": 256, "at_chance": "warn"}
ALONE, BOTH = "baseline/seed0", "tkd-kd/seed0"
PATHS = {"student": f"{BOTH}/student.keras", "teacher": "teacher/teacher.keras"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's folder, as `compare` leaves it, of fewer methods, one seed and one epoch."""
    flags, methods = tmp_path_factory.mktemp("flags"), []
    for name, file in METHODS.items():
        # A method's file says the same of what all share, or nothing.
        lines = (FLAGS / f"{file}.flags").read_text().splitlines()
        own = [line for line in lines if parse_lines([line]).keys().isdisjoint(QUICK)]
        (flags / f"{file}.flags").write_text("\n".join(own))
        methods.append(f"{name}={flags / file}.flags")
    folder = tmp_path_factory.mktemp("runs") / "demo"
    compare(dataclasses.replace(read_shared(), **QUICK), folder, methods, (0,))
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / BOTH / "results.json").read_text())


@pytest.fixture(scope="module")
def events(folder):
    return EventAccumulator(str(folder / BOTH / "logs" / "result"), {TENSORS: 0}).Reload()


def read_config(path):
    """The configuration of a run, as its folder has it."""
    return DistillConfig(**read_flags(DistillConfig, (path / "flags.flags").read_text()))


@pytest.fixture(scope="module")
def address(folder):
    """The address of a TensorBoard that has read all runs of the folder."""
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(folder), "--port", "0", "--load_fast", "false"])
    address = board.launch()
    # Teacher, student alone and student have curves of two kinds, and results.
    while len(ask(address, "runs")) < 9:
        time.sleep(0.2)
    return address


def ask(address, route, body=None, **arguments):
    """What TensorBoard's pages are given: JSON as Python has it, or bytes."""
    query = f"?{urllib.parse.urlencode(arguments)}" if arguments else ""
    body = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}data/{route}{query}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        content = response.read()
    return json.loads(content) if "json" in response.headers["Content-Type"] else content


def test_each_run_is_a_session_with_its_settings_and_results(address, results):
    columns = [{"hparam": name} for name in ("method", "learning_rate", "negatives")]
    columns += [{"metric": {"tag": "test/accuracy"}}]
    request = {"startIndex": 0, "sliceSize": 9, "allowedStatuses": ["STATUS_UNKNOWN"], "colParams": columns}
    groups = ask(address, "plugin/hparams/session_groups", request)["sessionGroups"]
    sessions = {group["sessions"][0]["name"].removesuffix("/logs/result"): group for group in groups}
    assert sessions.keys() == {BOTH, ALONE, "teacher"}
    settings = {name: group["hparams"] for name, group in sessions.items()}
    # As the flagfiles have them.
    assert settings[BOTH]["method"] == "tkd@margin=2.4:0.64 + kd@temperature=5.08:0.104"
    assert settings[ALONE]["method"] == "baseline"
    rates = {name: each["learning_rate"] for name, each in settings.items()}
    assert rates == {BOTH: 0.0816, ALONE: 0.139, "teacher": 0.02}
    assert all(values["epochs"] == 1 for values in settings.values())
    # Triplets have negatives, which are not drawn by default; the student alone has none.
    assert settings[BOTH]["negatives"] == "drawn" and "negatives" not in settings[ALONE]
    metrics = {m["name"]["tag"]: m["value"] for m in sessions[BOTH]["sessions"][0]["metricValues"]}
    assert metrics["test/accuracy"] == pytest.approx(results["student"]["test_accuracy"])
    assert metrics["test/teacher_accuracy"] == pytest.approx(results["teacher"]["test_accuracy"])
    gain = results["student"]["test_accuracy"] - results["baseline"]["test_accuracy"]
    assert metrics["test/gain"] == pytest.approx(gain, abs=1e-7)


def test_embeddings_have_labels_and_thumbnails(address, folder):
    run = {"run": f"{BOTH}/logs/result"}
    assert set(ask(address, "plugin/projector/runs")) == {f"{name}/logs/result" for name in (BOTH, ALONE, "teacher")}
    described = ask(address, "plugin/projector/info", **run)["embeddings"]
    splits = data.load("digits")
    images, labels = splits.test_images, splits.test_labels
    # All of the 359 test images, of which there are fewer than a thousand.
    assert {entry["tensorName"]: entry["tensorShape"][0] for entry in described} == {"student": 359, "teacher": 359}
    columns = {}
    for role in ("student", "teacher"):
        model = keras.saving.load_model(folder / PATHS[role])
        values = np.frombuffer(ask(address, "plugin/projector/tensor", name=role, **run), "float32")
        expected = evaluation.embeddings(model, images)
        np.testing.assert_allclose(values.reshape(359, -1), expected, rtol=1e-4, atol=1e-5)
        columns[f"{role} says"] = [str(label) for label in evaluation.predict_classes(model, images)]
    text = ask(address, "plugin/projector/metadata", name="student", **run).decode()
    header, *rows = [line.split("\t") for line in text.strip("\n").split("\n")]
    table = dict(zip(header, zip(*rows, strict=True), strict=True))
    assert list(map(int, table["label"])) == labels.tolist()
    assert {name: list(table[name]) for name in columns} == columns
    first = next(i for i, label in enumerate(columns["student says"]) if int(label) != labels[i])
    assert table["image"][first] == f"{labels[first]}, taken for {columns['student says'][first]}"
    sprite = tf.io.decode_png(ask(address, "plugin/projector/sprite_image", name="student", **run)).numpy()
    # 19 columns of thumbnails of 32 pixels, each pixel of 8x8 four times as wide: image 20 is in the second row.
    assert sprite.shape == (19 * 32, 19 * 32, 3)
    assert np.array_equal(sprite[32:64:4, 32:64:4, 0], images[20, ..., 0])


def test_wide_embeddings_keep_their_distances(tmp_path):
    # 200 numbers that lie in a plane: turned, they are two.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 2)) @ rng.normal(size=(2, 200))
    write_projector(tmp_path, np.zeros((5, 2, 2, 1), np.uint8), {"label": ["a\tb", *"cdef"]}, {"wide": values})
    written = np.loadtxt(tmp_path / "wide.tsv")
    assert written.shape[1] <= 128
    before, after = (np.linalg.norm(x[:, None] - x, axis=-1) for x in (values, written))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "labels.tsv").read_text().splitlines()[1] == "a b"


@pytest.mark.parametrize(("count", "size", "chosen"), [(3, 64, 3), (5000, 64, 1000), (5000, 2**20, 64), (2, 2**27, 1)])
def test_images_that_are_shown_are_spread_over_all_and_bounded(count, size, chosen):
    ids = _choose_images(count, size)
    assert len(ids) == len(set(ids)) == chosen and ids[0] == 0
    # Of 64 MiB, 64 images of a MiB each. The largest gap is that of an even spread.
    assert chosen == 1 or (ids[-1] == count - 1 and np.diff(ids).max() <= np.ceil((count - 1) / (chosen - 1)))


def test_images_of_a_stream_are_those_of_the_array(stored):
    array, stream = (
        data.load("shades", data_dir=str(stored), **how).train_images for how in ({}, {"shuffle_window": 40})
    )
    # 120 images in batches of 50: some of each, and the last.
    ids = np.array([0, 7, 49, 50, 51, 100, 119])
    assert np.array_equal(data.take_images(stream, ids, 50), array[ids])
    assert np.array_equal(data.take_images(array, ids, 50), array[ids])


def read_picture(event):
    return tf.io.decode_png(tf.make_ndarray(event.tensor_proto)[2]).numpy()


@pytest.mark.parametrize(
    ("tag", "role"), [("student", "student"), ("teacher", "teacher"), ("student_alone", "baseline")]
)
def test_confusion_matrices_are_those_of_the_results(events, results, tag, role):
    (event,) = events.Tensors(f"confusion/{tag}")
    expected = draw_confusion(results[role]["confusion_matrix"], [str(digit) for digit in range(10)])
    assert np.array_equal(read_picture(event), expected)


def test_triplets_are_shown_before_and_after_training(events, folder):
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("triplets/")]
    assert tags == [f"triplets/{number}" for number in range(1, 7)]
    splits = data.load("digits")
    logits = evaluation.logits(keras.saving.load_model(folder / PATHS["student"]), splits.test_images)
    # The first of the first class, and the next one of it.
    anchor, positive = np.flatnonzero(splits.test_labels == 0)[:2]
    near = np.linalg.norm(logits[anchor] - logits[positive])
    before, after = events.Tensors("triplets/1")
    assert (before.step, after.step) == (0, 1) and not np.array_equal(read_picture(before), read_picture(after))
    text = events.SummaryMetadata("triplets/1").summary_description
    assert f"| after training | {near:.3g} |" in text and "| the teacher |" in text


def test_graph_has_a_box_for_each_model(events):
    nodes = {node.name: node for node in tf.compat.v1.GraphDef.FromString(events._graph).node}
    assert {name.partition("/")[0] for name in nodes} == {"teacher", "student"}
    assert all(source in nodes for node in nodes.values() for source in node.input)
    assert {node.op for node in nodes.values()} >= {"InputLayer", "Conv2D", "Dense"}


def test_of_a_model_that_cannot_be_described_there_is_no_graph(capsys):
    class Own(keras.Model):
        def __init__(self, activation):
            super().__init__()
            self.activation = activation

        def call(self, x):
            return self.activation(x)

    assert make_graph(Own(np.tanh), "student") is None
    assert "TensorBoard shows no graph of the student" in capsys.readouterr().out


def test_a_run_that_is_measured_again_is_there_once(folder, tmp_path):
    shutil.copytree(folder / BOTH, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    commands.distill(read_config(folder / BOTH), tmp_path / "run")
    result = tmp_path / "run" / "logs" / "result"
    events = EventAccumulator(str(result)).Reload()
    assert len(list(result.glob("events*"))) == 1
    assert [len(events.Tensors(tag)) for tag in ("test/accuracy", "confusion/student", "triplets/1")] == [1, 1, 2]


@pytest.mark.parametrize("steps", [(3, 7), (7, 7)])
def test_steps_that_a_training_does_not_have_are_refused_before_anything_is_done(steps, folder, tmp_path):
    # 1,438 images in batches of 256 are six steps.
    config = dataclasses.replace(read_config(folder / ALONE), profile_steps=steps)
    with pytest.raises(ValueError, match=rf"which has 6. Received: profile_steps=\({steps[0]}, 7\)"):
        commands.distill(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("choice", "files"), [("off", []), ("scalars", ["events"])])
def test_less_can_be_written_and_the_student_is_the_same(choice, files, folder, tmp_path):
    # A profile is written on request, beside the curves of the run's own model.
    steps = (1, 2) if files else ()
    config = dataclasses.replace(read_config(folder / ALONE), tensorboard=choice, profile_steps=steps)
    commands.distill(config, tmp_path)
    students = [keras.saving.load_model(path / "student.keras") for path in (folder / ALONE, tmp_path)]
    assert all(np.array_equal(a, b) for a, b in zip(*(student.get_weights() for student in students), strict=True))
    profiles = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.xplane.pb")]
    assert [path.parts[:3] for path in profiles] == [("logs", "student", "train")] * len(files)
    written = {path.parent.name for path in (tmp_path / "logs").rglob("events*")}
    assert written == ({"train", "held_out", "result"} if files else set())
    result = tmp_path / "logs" / "result"
    assert [path.name.partition(".")[0] for path in result.rglob("*")] == files
    if files:
        tags = EventAccumulator(str(result)).Reload().Tags()["tensors"]
        assert "test/accuracy" in tags and not [tag for tag in tags if tag.startswith(("confusion", "triplets"))]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_all_of_it_by_name(address, results, tmp_path):
    charts = ["accuracy/accuracy", "loss/tkd", "loss/kd", "schedule/kd_weight", "test/accuracy"]
    runs = [
        f"{BOTH}/logs/student/train",
        f"{BOTH}/logs/student/held_out",
        f"{ALONE}/logs/result",
        "teacher/logs/result",
    ]
    with Browser(tmp_path) as browser:
        browser.open(f"{address}?tagFilter=^({urllib.parse.quote('|'.join(charts))})$#timeseries")
        # The name of a chart is in two elements: its group, and the rest.
        browser.wait_for(*runs, *(name for chart in charts for name in chart.replace("/", " /").split()))
        # The values of the last step stand below a chart.
        browser.wait_for(f"{results['student']['test_accuracy']:.4f}".rstrip("0"))
        for tab, names in {
            "images": ["confusion/student_alone", "triplets/1"],
            "hparams": ["tkd@margin=2.4:0.64 + kd@temperature=5.08:0.104", "learning_rate", "test/gain"],
            # The points of the first run, which is that of the losses.
            "projector": ["3 runs found", "359", "student says"],
            "graphs": [BOTH],
        }.items():
            browser.open(f"{address}#{tab}")
            browser.wait_for(*names)


def test_runs_that_differ_in_their_generations_look_different():
    """They decide no model that was there before, and so no training; but which student the run ends with."""
    shown = [_list_settings(DistillConfig(method="trikd", generations=n).resolved(), "trikd") for n in (1, 3)]
    assert [settings.pop("generations") for settings in shown] == [1, 3] and shown[1]["validation_fraction"] == 0.1
    assert "generations" not in _list_settings(TeacherTrainingConfig(), "teacher")
