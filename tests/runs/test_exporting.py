"""Exports of runs and of files: on which data, beside which teacher, and what export.json says."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_tkd import data, models, runs
from keras_tkd.config import DistillConfig, ExportConfig, TeacherTrainingConfig
from keras_tkd.export import measurement
from keras_tkd.reports.exports import EXPORT_VERSION, explain_failure, format_export_table
from keras_tkd.reports.schema import Results, StudentResult
from keras_tkd.runs import exporting

QUICK = {"epochs": 5, "batch_size": 16, "learning_rate": 0.05, "classes": ("8", "3", "1"), "split_seed": 7}


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    """How long calls take is not asked here."""
    monkeypatch.setattr(measurement, "_CALLS", (2, 2))
    monkeypatch.setattr(measurement, "_WARM_UP", 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of three digits, in an order and a split of its own."""
    folder = tmp_path_factory.mktemp("runs") / "kd"
    runs.distill(DistillConfig(method="kd", teacher_epochs=3, teacher_learning_rate=0.01, **QUICK), folder)
    return folder


def load_test_images():
    splits = data.load("digits", split_seed=7).with_classes(("8", "3", "1"))
    return splits.test_images, splits.test_labels


def read(folder):
    return json.loads((folder / "export.json").read_text())


def add_flags(folder, *lines):
    """Makes the run in a folder one that had more flags."""
    flags, results = folder / "flags.flags", json.loads((folder / "results.json").read_text())
    flags.write_text("\n".join([flags.read_text().rstrip(), *lines]))
    (folder / "results.json").write_text(json.dumps(results | {"flags": [*results["flags"], *lines]}))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (None, "No such file"),
        (b"--dataset=digits\n--nested=Trux\n", "--nested must be of type bool"),
        (b"--dataset=digits\n--split_seed=7x\n", "--split_seed must be of type int"),
        (b"--dataset=\xff\n", "is no text"),
    ],
)
def test_the_flags_of_a_run_are_named_where_they_are_damaged(flags, said, tmp_path):
    student = StudentResult(parameters=1)
    results = Results(method="kd", dataset="digits", seed=0, epochs=1, test_samples=1, student=student)
    (tmp_path / "results.json").write_text(json.dumps(results.to_dict()))
    if flags is not None:
        (tmp_path / "flags.flags").write_bytes(flags)
    with pytest.raises(ValueError, match=f"whose flags.flags says its data. Received: source='{tmp_path}'.*{said}"):
        runs.export(ExportConfig(source=str(tmp_path), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_is_measured_on_its_own_data_beside_its_own_teacher(run, tmp_path, capsys):
    formats = ("saved_model", "litert_float32", "litert_int8", "onnx")
    config = ExportConfig(source=run, output=tmp_path / "out", formats=formats, calibration_images=20)
    results = runs.export(config)
    written, said = read(tmp_path / "out"), json.loads((run / "results.json").read_text())
    assert written == json.loads(json.dumps(results.to_dict()))
    assert written["version"] == EXPORT_VERSION == 1 and written["passed"]
    assert written["classes"] == ["8", "3", "1"]
    assert (tmp_path / "out" / "labels.txt").read_text() == "8\n3\n1\n"
    # Measured on the images of the run, or they would differ.
    for role in ("student", "teacher"):
        assert written[role]["test_accuracy"] == said[role]["test_accuracy"]
        assert written[role]["bytes"] == (run / f"{role}.keras").stat().st_size
    assert written["teacher"]["agreement"] == said["student"]["agreement"]
    assert [file["title"] for file in written["files"]] == list(formats)
    assert written["versions"]["onnxruntime"] == onnxruntime.__version__ and "ai_edge_litert" in written["versions"]
    # The accuracy is that of the file: here it is opened by its runtime alone.
    images, labels = load_test_images()
    for file in written["files"][1:]:
        run_file = open_by_hand(tmp_path / "out" / file["path"])
        outputs = np.concatenate([run_file(image[None].astype("float32")) for image in images])
        assert file["test_accuracy"] == np.mean(outputs.argmax(1) == labels)
        path = tmp_path / "out" / file["path"]
        assert file["bytes"] == path.stat().st_size
        assert [latency["batch_size"] for latency in file["latency"]] == [1, 32]
        assert file["drop"] == written["student"]["test_accuracy"] - file["test_accuracy"]
    saved = [path for path in (tmp_path / "out" / "saved_model").rglob("*") if path.is_file()]
    assert written["files"][0]["bytes"] == sum(path.stat().st_size for path in saved)
    table = format_export_table(results)
    for words in ("teacher (Keras)", "student (Keras)", *formats, "ms for 32", f"{len(labels)} test images of digits"):
        assert words in table


def open_by_hand(path):
    """A function from one image to outputs, by the runtime's own interface."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda image: session.run(["output"], {"image": image})[0]
    runner = Interpreter(str(path)).get_signature_runner()
    return lambda image: runner(image=image)["output"]


def test_a_file_needs_no_run(run, tmp_path):
    shutil.copy(run / "student.keras", tmp_path / "mine.keras")
    settings = {"classes": ("8", "3", "1"), "split_seed": 7, "formats": ("litert_float32",)}
    results = runs.export(ExportConfig(source=tmp_path / "mine.keras", output=tmp_path / "out", **settings))
    assert results.teacher is None and results.source == str(tmp_path / "mine.keras")
    said = json.loads((run / "results.json").read_text())
    assert results.student.test_accuracy == said["student"]["test_accuracy"]
    with_teacher = runs.export(
        ExportConfig(
            source=tmp_path / "mine.keras",
            output=tmp_path / "out",
            existing="overwrite",
            teacher_path=str(run),
            **settings,
        )
    )
    assert with_teacher.teacher.test_accuracy == said["teacher"]["test_accuracy"]
    assert "teacher (Keras)" not in format_export_table(results)


def test_the_teacher_of_a_run_may_lie_elsewhere_or_be_gone(run, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    (moved / "teacher.keras").rename(tmp_path / "big.keras")
    add_flags(moved, f"--teacher_path={tmp_path / 'big.keras'}")
    settings = {"source": moved, "formats": ("litert_float32",), "existing": "overwrite", "output": tmp_path / "out"}
    said = json.loads((run / "results.json").read_text())
    assert runs.export(ExportConfig(**settings)).teacher.test_accuracy == said["teacher"]["test_accuracy"]
    (tmp_path / "big.keras").unlink()
    assert runs.export(ExportConfig(**settings)).teacher is None
    assert "The run's teacher is not there any more, and is not measured: " in capsys.readouterr().out
    # One that is named now, in place of the run's.
    named = runs.export(ExportConfig(**settings, teacher_path=run / "teacher.keras"))
    assert named.teacher.test_accuracy == said["teacher"]["test_accuracy"]


def test_a_teacher_that_was_its_outputs_alone_is_not_measured(run, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    (moved / "teacher.keras").unlink()
    add_flags(moved, "--teacher_outputs=a.npz", "--teacher_classes=8,3,1")
    config = ExportConfig(source=moved, formats=("litert_float32",), output=tmp_path / "out")
    assert runs.export(config).teacher is None
    assert "Of the run's teacher there are outputs alone: it is not measured" in capsys.readouterr().out


def test_a_run_that_trained_a_teacher(tmp_path):
    config = {name: value for name, value in QUICK.items() if name != "epochs"}
    said = runs.train_teacher(TeacherTrainingConfig(epochs=1, **config), tmp_path / "run")
    output = tmp_path / "out"
    results = runs.export(ExportConfig(source=tmp_path / "run", output=output, formats="litert_float16"))
    assert results.source.endswith("teacher.keras") and results.teacher is None
    assert results.student.test_accuracy == said["teacher"]["test_accuracy"]
    # Of a network with dropout.
    assert results.training_layers == ["embedding_dropout"]


def test_calibration_images_are_training_images_by_seed(run, tmp_path, monkeypatch):
    given = []

    def export_model(*arguments, calibration_images, **more):
        given.append(calibration_images)
        raise FloatingPointError("seen")

    monkeypatch.setattr(exporting, "export_model", export_model)
    for seed in (0, 0, 1):
        config = ExportConfig(
            source=run, output=tmp_path / "out", formats="litert_int8", calibration_images=30, calibration_seed=seed
        )
        with pytest.raises(FloatingPointError, match="seen"):
            runs.export(config)
    splits = data.load("digits", split_seed=7).with_classes(("8", "3", "1"))
    known = {image.tobytes(): number for number, image in enumerate(splits.train_images)}
    numbers = [[known[image.tobytes()] for image in images] for images in given]
    assert numbers[0] == numbers[1] != numbers[2] and all(len(set(each)) == 30 for each in numbers)
    assert not {image.tobytes() for image in given[0]} & {image.tobytes() for image in splits.test_images}


def test_where_there_are_fewer_images_all_calibrate(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_CALIBRATION_IMAGES", 10_000)
    results = runs.export(ExportConfig(source=run, output=tmp_path / "out", formats="litert_int8"))
    known = len(data.load("digits", split_seed=7).with_classes(("8", "3", "1")).train_images)
    assert results.calibration == {"images": known, "seed": 0}


def test_too_many_calibration_images(run, tmp_path):
    config = ExportConfig(source=run, output=tmp_path / "out", formats="litert_int8", calibration_images=10_000)
    with pytest.raises(ValueError, match="Received: calibration_images=10000, and digits has 4"):
        runs.export(config)
    assert not (tmp_path / "out").exists()


def lift_logits(path, target):
    """Adds 10,000 to each logit: no class changes, and 255 steps of int8 no longer tell the classes apart."""
    model = models.build(path, (None, None, None), None)
    head = model.get_layer("logits")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + 10_000])
    model.save(target)


def test_a_loss_of_accuracy_is_told_with_its_figures(run, tmp_path):
    lift_logits(run / "student.keras", tmp_path / "lifted.keras")
    settings = {"classes": ("8", "3", "1"), "split_seed": 7, "calibration_images": 20, "max_drop": 0.01}
    config = ExportConfig(
        source=tmp_path / "lifted.keras",
        output=tmp_path / "out",
        formats=("litert_float32", "litert_int8"),
        **settings,
    )
    results = runs.export(config)
    written = read(tmp_path / "out")
    float32, int8 = written["files"]
    assert not results.passed and not written["passed"] and written["max_drop"] == 0.01
    assert float32["drop"] < 0.01 < int8["drop"]
    sentence = explain_failure(results)
    assert f"litert_int8 {int8['test_accuracy']:.4f} (a drop of {int8['drop']:.4f})" in sentence
    assert "0.01 of the test accuracy" in sentence and "litert_float32" not in sentence
    # What failed is there, to be looked at.
    assert (tmp_path / "out" / "model_int8.tflite").exists()


def test_half_precision_is_set_back(run, tmp_path):
    """What a file computes in is not what devices compute in."""
    model = models.build(run / "student.keras", (8, 8, 1), 3)
    for layer in model.layers:
        layer.dtype_policy = "mixed_bfloat16"
    model.save(tmp_path / "half.keras")
    assert models.build(tmp_path / "half.keras", (8, 8, 1), 3).get_layer("conv1").compute_dtype == "bfloat16"
    settings = {"classes": ("8", "3", "1"), "split_seed": 7, "formats": ("litert_float32",)}
    results = runs.export(ExportConfig(source=tmp_path / "half.keras", output=tmp_path / "out", **settings))
    # Of the outputs of bfloat16, with 8 bits, they would be a hundred times as far.
    assert results.files[0].largest_difference < 1e-4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_size": 9}, "data set of a run's folder is the run's own. Received: .*image_size=9. Leave it out"),
        ({"dataset": "pets"}, "is the run's own. Received: .*dataset='pets'"),
        ({"preprocessing": "outside", "source": "{run}/no.keras"}, "`source` must be .*no.keras.*, which is not there"),
    ],
)
def test_what_does_not_go_with_a_run_is_refused(given, words, run, tmp_path):
    given = {"source": run, **given}
    given["source"] = str(given["source"]).replace("{run}", str(run))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        runs.export(ExportConfig(output=tmp_path / "out", **given))
    assert not [*tmp_path.iterdir()]


def test_an_unfinished_run_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(ValueError, match="folder of a finished run. .*holds no results.json. Run the command of that"):
        runs.export(ExportConfig(source=tmp_path / "run", output=tmp_path / "out"))


def test_what_stands_in_the_way_is_found_before_the_images_are_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load_evaluation_inputs", lambda config: pytest.fail("images are loaded"))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that no export wrote: thesis.txt"):
        runs.export(ExportConfig(source=run, output=tmp_path))


def test_identities_that_no_model_knows_are_no_measure(tmp_path):
    models.build("digits_student", (8, 8, 1), 2).save(tmp_path / "m.keras")
    config = ExportConfig(source=tmp_path / "m.keras", output=tmp_path / "out", open_set_fraction=1.0)
    with pytest.raises(ValueError, match="accuracy on classes that it knows. Received: open_set_fraction=1.0"):
        runs.export(config)
