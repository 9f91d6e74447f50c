"""Runs on images of several classes: from a table to results, evaluation and export."""

import json

import keras
import numpy as np
import pytest
import rounding
import sklearn.metrics

from keras_tkd import data, evaluation, runs
from keras_tkd.config import DistillConfig, EvaluateConfig, ExportConfig
from keras_tkd.export import measurement
from keras_tkd.reports import exports, tables, verdict
from keras_tkd.runs import commands
from keras_tkd.runs.inputs import load_distillation_inputs
from keras_tkd.runs.tuning_trials import evaluate_trial, load_tuning_splits
from keras_tkd.teachers import ends_in_softmax

NAMES = ["bottom", "left", "right", "top"]


def head(name, activation=None, width=4, outputs=4):
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    layers += [keras.layers.Dense(width, "relu", name="embedding"), keras.layers.Dense(outputs, activation)]
    return keras.Sequential(layers, name=name)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Pictures with bright bars at some of their edges, a table of which, and a teacher with a sigmoid at its end."""
    folder = tmp_path_factory.mktemp("bars")
    rng = np.random.default_rng(0)
    rows, lines = rng.integers(0, 2, (120, 4)), ["file,label"]
    for number, row in enumerate(rows):
        image = rng.integers(0, 60, (8, 8, 1))
        for has, place in zip(row, (np.s_[-2:], np.s_[:, :2], np.s_[:, -2:], np.s_[:2]), strict=True):
            image[place] += 120 * has
        keras.utils.save_img(folder / f"{number:03}.png", image.clip(0, 255), scale=False)
        lines.append(f"{number:03}.png,{'|'.join(name for name, has in zip(NAMES, row, strict=True) if has)}")
    (folder / "labels.csv").write_text("\n".join(lines))
    keras.utils.set_random_seed(0)
    splits = data.load(folder, labels=folder / "labels.csv", multi_label=True)
    teacher = head("several", "sigmoid", width=32)
    teacher.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    teacher.fit(splits.train_images, splits.train_labels, batch_size=16, epochs=30, verbose=0)
    teacher.save(folder / "sigmoid.keras")
    head("student").save(folder / "student.keras")
    return folder


def settings(here, **more):
    common = {"dataset": str(here), "labels": str(here / "labels.csv"), "task": "multi_label", "epochs": 12}
    common |= {"batch_size": 16, "learning_rate": 0.01, "optimizer": "adam"}
    return common | {"student_model": str(here / "student.keras"), "method": "kd"} | more


@pytest.fixture(scope="module")
def run(here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "kd"
    config = DistillConfig(**settings(here, teacher_path=str(here / "sigmoid.keras"), teacher_cache="workdir"))
    commands.distill(config, folder)
    return folder


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def load(here):
    return data.load(here, labels=here / "labels.csv", multi_label=True)


def test_results_are_measured_on_the_file(run, here):
    splits, results = load(here), read(run)
    assert results["task"] == "multi_label" and "--task=multi_label" in results["flags"]
    for name in ("student", "baseline"):
        model, said = keras.saving.load_model(run / f"{name}.keras"), results[name]
        outputs, labels = np.asarray(model(splits.test_images)), splits.test_labels
        assert said["test_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, outputs > 0))
        assert said["binary_accuracy"] == pytest.approx(np.mean((outputs > 0) == labels))
        precisions = sklearn.metrics.average_precision_score(labels, outputs, average=None)
        assert said["mean_average_precision"] == pytest.approx(np.mean(precisions))
        assert said["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, outputs > 0, average="macro"))
        assert list(said["per_class"]) == NAMES
        assert [one["average_precision"] for one in said["per_class"].values()] == pytest.approx(precisions)
        outputs = np.asarray(model(splits.train_images))
        assert said["train_accuracy"] == pytest.approx(evaluation.exact_match(outputs, splits.train_labels))
        assert not said["at_chance"] and "confusion_matrix" not in said
    student, alone = (
        keras.saving.load_model(run / f"{name}.keras")(splits.test_images) for name in ("student", "baseline")
    )
    right, alone_right = (((np.asarray(z) > 0) == splits.test_labels).all(-1) for z in (student, alone))
    assert results["student"]["gained"] == (right & ~alone_right).sum()
    assert results["student"]["lost"] == (alone_right & ~right).sum()


def test_the_teacher_is_read_before_its_sigmoid(run, here):
    results, splits = read(run), load(here)
    sigmoid = np.asarray(keras.saving.load_model(here / "sigmoid.keras")(splits.train_images), "float64")
    kept = np.load(run / "teacher_cache" / "train" / "logits.npy")[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-kept)), sigmoid, atol=1e-5)
    outputs = np.asarray(keras.saving.load_model(run / "student.keras")(splits.test_images))
    teacher = np.asarray(keras.saving.load_model(here / "sigmoid.keras")(splits.test_images))
    assert results["student"]["agreement"] == pytest.approx(np.mean((outputs > 0) == (teacher > 0.5)))
    assert results["teacher"]["mean_average_precision"] > 0.9


def test_the_loss_is_the_binary_form_in_every_epoch(run):
    history = read(run / "checkpoints" / "student", "record.json")["history"]
    assert history[-1]["binary_kd"] < history[0]["binary_kd"] and "kd" not in history[0]
    # Weights are those that the method publishes.
    for logs in history:
        assert logs["loss"] == pytest.approx(0.1 * logs["student_loss"] + 0.9 * logs["binary_kd"], rel=1e-4)
    assert history[-1]["val_accuracy"] == pytest.approx(read(run)["student"]["test_accuracy"], abs=1e-6)


def test_what_is_said_at_the_end(run):
    results = read(run)
    table = tables.format_table([results])
    assert "exact match" in table and "test accuracy" not in table
    assert f"{100 * results['student']['mean_average_precision']:.2f} %" in table
    assert "points of exact match (95 % interval" in verdict.format_verdict([results])


def test_the_run_with_a_sigmoid_s_outputs_alone_is_the_run_with_the_teacher(run, here, tmp_path, capsys):
    splits, sigmoid = load(here), keras.saving.load_model(here / "sigmoid.keras")
    answers = {part: sigmoid.predict(getattr(splits, f"{part}_images"), verbose=0) for part in ("train", "test")}
    np.savez(tmp_path / "a.npz", **answers)
    config = DistillConfig(**settings(here, teacher_outputs=str(tmp_path / "a.npz"), baseline="none"))
    found, said = commands.distill(config, tmp_path / "run"), read(run)
    both = [read(folder / "checkpoints" / "student", "record.json")["history"] for folder in (run, tmp_path / "run")]
    # A sigmoid in float32 does not give back the last digits of the teacher's logits z_t. The derivative of T^2 KL by
    # them is at most |z_t - z_s| / 4, and a student that imitates is no further from its teacher than that is from 0.
    p = np.concatenate(list(answers.values()))
    atol = rounding.of_logits(p) * np.log(p / (1 - p)).max() / 4
    for one, other in zip(*both, strict=True):
        assert other["binary_kd"] == pytest.approx(one["binary_kd"], rel=0, abs=atol)
    for name in ("test_accuracy", "mean_average_precision", "macro_f1"):
        assert found["teacher"][name] == pytest.approx(said["teacher"][name])
    assert found["teacher"]["outputs"]["given_as"] == "probabilities"
    printed = capsys.readouterr().out
    assert "a.npz, whose logit is taken (0 and 1 count as 1e-07 and 1 minus that). No teacher is run" in printed
    assert f"exact match {said['teacher']['test_accuracy']:.2%}" in printed and "test accuracy" not in printed


def test_outputs_in_another_order_are_refused(here, tmp_path):
    splits, order = load(here), np.random.default_rng(1).permutation(96)
    train, test = (8.0 * getattr(splits, f"{part}_labels") - 4 for part in ("train", "test"))
    np.savez(tmp_path / "a.npz", train=train[order], test=test)
    with pytest.raises(ValueError, match="train of .*a.npz` must agree .* rows seem to be in another order"):
        commands.distill(DistillConfig(**settings(here, teacher_outputs=str(tmp_path / "a.npz"))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trial_of_a_tuning_is_judged_by_exact_match(here, tmp_path):
    config = DistillConfig(**settings(here, method="baseline", validation_fraction=0.2))
    splits, told = load_tuning_splits(config), []
    outcome = evaluate_trial(config, tmp_path, [0], splits, lambda step, accuracy: told.append(accuracy))
    model = keras.saving.load_model(tmp_path / "seed0" / "student.keras")
    right = ((np.asarray(model(splits.validation_images)) > 0) == splits.validation_labels).all(-1).mean()
    assert outcome.accuracies == (pytest.approx(right),) and outcome.status == "finished"
    assert len(told) >= 12 and told[-1] == pytest.approx(right)


def test_a_comparison_is_of_exact_matches(here, tmp_path):
    config = DistillConfig(**settings(here, teacher_path=(str(here / "sigmoid.keras"),), epochs=1))
    found = runs.compare(config, tmp_path / "compared", ["kd"], [0])
    student = read(tmp_path / "compared" / "kd" / "seed0")["student"]
    assert found.task == "multi_label" and found.list_runs("kd")[0].test_accuracy == student["test_accuracy"]
    assert (tmp_path / "compared" / "table.md").read_text().startswith("| method | exact match | against alone |")


def test_evaluate_says_the_same(run, here, capsys):
    arguments = {name: settings(here)[name] for name in ("dataset", "labels", "task")}
    config = EvaluateConfig(
        **arguments, model_path=str(run / "student.keras"), teacher_path=str(here / "sigmoid.keras")
    )
    found, said = commands.evaluate(config), read(run)["student"]
    for name in ("test_accuracy", "mean_average_precision", "macro_f1", "binary_accuracy", "agreement"):
        assert found[name] == pytest.approx(said[name])
    assert "per_class" not in found


def test_an_export_is_measured_by_exact_match(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "_CALLS", (2, 2))
    results = runs.export(ExportConfig(source=str(run), output=tmp_path / "out", formats=("litert_float32",)))
    said = read(run)["student"]
    assert results.task == "multi_label" and "exact match" in exports.format_export_table(results)
    assert results.student.test_accuracy == said["test_accuracy"] == results.files[0].test_accuracy
    assert results.files[0].agreement == 1 and results.teacher.agreement == pytest.approx(said["agreement"])


def test_layers_are_distilled_from_a_stream_and_a_teacher_is_trained(here, tmp_path):
    more = {"method": "sp", "student_layers": ("embedding",), "teacher_layers": ("embedding",), "epochs": 2}
    more |= {"teacher_model": str(here / "student.keras"), "shuffle_window": 50, "baseline": "none", "mixup": 0.2}
    results = commands.distill(DistillConfig(**settings(here, **more)), tmp_path / "run")
    history = read(tmp_path / "run" / "checkpoints" / "student", "record.json")["history"]
    assert history[1]["sp"] > 0 and 0 <= history[1]["agreement"] <= 1
    assert 0 <= results["teacher"]["mean_average_precision"] <= 1


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_model_that_gives_probabilities_is_not_measured(here, tmp_path, command):
    """All of them are above 0, and would count as a yes."""
    given = {name: settings(here)[name] for name in ("dataset", "labels", "task")}
    configs = {
        "evaluate": lambda: EvaluateConfig(**given, model_path=str(here / "sigmoid.keras")),
        "export": lambda: ExportConfig(**given, source=str(here / "sigmoid.keras"), output=str(tmp_path / "out")),
    }
    with pytest.raises(ValueError, match=r"measured by its logits.*sigmoid.keras.*logits_model\(model, multi_label"):
        getattr(commands, command)(configs[command]())


def test_a_sigmoid_that_no_graph_shows(here, tmp_path, capsys):
    """Of a SavedModel the logit of the probabilities is taken: each of them is above 0, and would be a yes."""
    sigmoid = keras.saving.load_model(here / "sigmoid.keras")
    sigmoid.export(str(tmp_path / "saved"), verbose=False)
    config = DistillConfig(**settings(here, teacher_path=str(tmp_path / "saved")))
    teacher, images = load_distillation_inputs(config.resolved()).teacher, load(here).train_images
    found = teacher.predict(images, verbose=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), sigmoid.predict(images, verbose=0), atol=1e-5)
    assert "saved_model.pb gives probabilities: their logit is taken" in capsys.readouterr().out


@keras.saving.register_keras_serializable("tests_of_multi_label_runs")
class Squash(keras.layers.Layer):
    def call(self, logits):
        return keras.ops.sigmoid(logits)


def test_a_sigmoid_in_a_layer_of_ones_own_is_refused(here, tmp_path):
    """It can be left out where it was written."""
    model = keras.Sequential([keras.Input((8, 8, 1)), head("several"), Squash()])
    model.save(tmp_path / "squash.keras")
    config = DistillConfig(**settings(here, teacher_path=str(tmp_path / "squash.keras")))
    with pytest.raises(
        ValueError, match="must give logits. Received: .*squash.keras, whose outputs are from 0.*Let its call"
    ):
        load_distillation_inputs(config.resolved())


def test_a_new_head_takes_the_place_of_a_softmax(here, tmp_path):
    head("shared", "softmax", outputs=7).save(tmp_path / "softmax.keras")
    config = DistillConfig(**settings(here, teacher_path=str(tmp_path / "softmax.keras"), teacher_head="new"))
    teacher = load_distillation_inputs(config.resolved()).teacher
    assert teacher.output_shape == (None, 4) and not ends_in_softmax(teacher)


def test_a_teacher_with_a_softmax_is_refused(here, tmp_path):
    head("shared", "softmax").save(tmp_path / "softmax.keras")
    with pytest.raises(ValueError, match="yes or no of its own.*softmax.keras, whose softmax makes the classes share"):
        commands.distill(
            DistillConfig(**settings(here, teacher_path=str(tmp_path / "softmax.keras"))), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
