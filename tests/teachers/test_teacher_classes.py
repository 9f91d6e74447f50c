"""A teacher that knows more classes than the student: its logits of some, and which these are in a run."""

import json

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, data, models, teachers
from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.config.fields import COMPARED, TRAINED, list_deciding
from keras_tkd.config.flagfile import format_flags, read_flags
from keras_tkd.losses import SimilarityPreserving, SoftTargets
from keras_tkd.reports import tables
from keras_tkd.runs import commands, teacher_files
from keras_tkd.utils import precision

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")


def network(classes=4, head="logits", output=lambda z: z):
    x = inputs = keras.Input((5,))
    x = keras.layers.Dense(3, "tanh", name="hidden")(x)
    return keras.Model(inputs, output(keras.layers.Dense(classes, name=head)(x)), name="teacher")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


MODELS = {
    "functional": network,
    "sequential": lambda: keras.Sequential(network().layers, name="teacher"),
    "nested": lambda: keras.Sequential([keras.Input((5,)), network()], name="teacher"),
    "without its softmax": lambda: teachers.logits_model(network(output=keras.layers.Softmax())),
}


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_the_classes_in_the_order_given(kind):
    model = MODELS[kind]()
    whole = numpy(model(X))
    some = teachers.with_classes(model, [3, np.int64(0)])
    assert some.output_shape == (None, 2) and some.name == "teacher"
    for copy in (some, keras.models.clone_model(some)):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(numpy(copy(X)), whole[:, [3, 0]])
    # The softmax is the distribution given that it is one of the two.
    p = np.exp(whole) / np.exp(whole).sum(-1, keepdims=True)
    given = p[:, [3, 0]] / p[:, [3, 0]].sum(-1, keepdims=True)
    np.testing.assert_allclose(numpy(keras.ops.softmax(some(X))), given, rtol=1e-5)
    # The model is as it was.
    np.testing.assert_array_equal(numpy(model(X)), whole)


def test_the_other_outputs_of_a_dict_stay():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    model = keras.Model(inputs, {"logits": keras.layers.Dense(4)(hidden), "embedding": hidden})
    some, whole = teachers.with_classes(model, [2, 1])(X), model(X)
    np.testing.assert_array_equal(numpy(some["logits"]), numpy(whole["logits"])[:, [2, 1]])
    np.testing.assert_array_equal(numpy(some["embedding"]), numpy(whole["embedding"]))


def test_a_model_from_a_file(tmp_path):
    network().save(tmp_path / "teacher.keras")
    some = teachers.with_classes(keras.saving.load_model(tmp_path / "teacher.keras"), [1, 2])
    some.save(tmp_path / "some.keras")
    np.testing.assert_array_equal(numpy(keras.saving.load_model(tmp_path / "some.keras")(X)), numpy(some(X)))


@pytest.mark.parametrize(
    "model, classes, message",
    [
        (network, [], r"from 0 to 3, none twice.*classes=\[\]"),
        (network, [0, 4], r"from 0 to 3.*classes=\[0, 4\]"),
        (network, [0, -1], r"from 0 to 3.*classes=\[0, -1\]"),
        (network, [1, 2, 1], r"none twice.*classes=\[1, 2, 1\]"),
        (network, ["cat", "dog"], r"must be indices.*\['cat', 'dog'\].*keras_tkd.data.class_indices"),
        (lambda: network(output=keras.layers.Softmax()), [0, 1], "ends in a softmax.*logits_model"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), [0, 1], "functional or sequential.*Sequential"),
    ],
)
def test_what_cannot_be_chosen(model, classes, message):
    with pytest.raises(ValueError, match=message):
        teachers.with_classes(model(), classes)


def test_in_a_distiller():
    """A teacher of four classes and a student of two: kd by hand, and a layer by the name it had."""
    keras.utils.set_random_seed(0)
    teacher, student = network(4), network(2)
    some = teachers.with_classes(teacher, [2, 0])
    losses = [SoftTargets(3.0), SimilarityPreserving(teacher_layers="hidden", student_layers="hidden")]
    distiller = Distiller(some, student, losses)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = distiller.evaluate(X, np.arange(6) % 2, verbose=0, return_dict=True)
    z_t, z_s = (numpy(model(X)).astype("float64") / 3.0 for model in (teacher, student))
    z_t = z_t[:, [2, 0]]
    log_t, log_s = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (z_t, z_s))
    # The rest of differences of log-probabilities near 1, whose rounding (1.2e-7, a few times) is scaled by 9.
    assert logs["kd"] == pytest.approx(9.0 * (np.exp(log_t) * (log_t - log_s)).sum(-1).mean(), rel=1e-5, abs=5e-6)
    assert logs["agreement"] == pytest.approx((z_t.argmax(-1) == z_s.argmax(-1)).mean())


def test_the_logits_stay_float32_in_mixed_precision():
    some = teachers.with_classes(network(), [2, 0])
    precision.set_precision(some, "mixed_bfloat16")
    policies = {layer.name: layer.dtype_policy.name for layer in some.layers}
    assert policies["hidden"] == "mixed_bfloat16" and policies["logits"] == "float32"
    assert keras.backend.standardize_dtype(some(X).dtype) == "float32"


# In a run.


def pets(names=("cat", "dog", "bird")):
    labels = np.arange(6, dtype=np.int32) % len(names)
    images = np.zeros((6, 8, 8, 1), np.uint8)
    return data.Splits("pets", images, labels, images, labels, tuple(names))


def chosen(outputs, splits, config):
    """The teacher's outputs, each of which gives its own number, as they reach the student."""
    teacher = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(outputs)])
    teacher.set_weights([np.zeros((64, outputs)), np.arange(outputs) + 10.0])
    some = teacher_files.choose_classes(teacher, "teacher.keras", config, splits)
    return (numpy(some(np.zeros((1, 8, 8, 1))))[0] - 10.0).tolist()


def distilled(**settings):
    return DistillConfig(dataset="pets", method="kd", teacher_path="teacher.keras", **settings)


@pytest.mark.parametrize(
    "outputs, classes, teacher_classes, expected",
    [
        (3, None, None, [0, 1, 2]),
        # A teacher of all three classes.
        (3, ["bird", "cat"], None, [2, 0]),
        (3, ["bird", "cat"], ("0", "bird"), [0, 2]),
        (3, None, ("dog", "bird", "cat"), [1, 2, 0]),
        # A teacher of as many classes as were chosen has these, in this order, if nothing else is said.
        (2, ["bird", "cat"], None, [0, 1]),
        (2, ["bird", "cat"], ("1", "0"), [1, 0]),
        # A teacher of other classes.
        (5, None, ("4", "0", "2"), [4, 0, 2]),
        (5, ["bird", "cat"], ("4", "1"), [4, 1]),
    ],
)
def test_which_of_the_teachers_classes_the_datas_are(outputs, classes, teacher_classes, expected):
    splits = pets().with_classes(classes) if classes else pets()
    assert chosen(outputs, splits, distilled(teacher_classes=teacher_classes)) == expected


@pytest.mark.parametrize(
    "outputs, classes, teacher_classes, message",
    [
        (5, None, None, "teacher.keras with 5 outputs, pets with 3 classes.*by index: --teacher_classes"),
        (5, ["bird", "cat"], None, "teacher.keras with 5 outputs, pets with 2 classes.*--teacher_classes"),
        (2, None, None, "teacher.keras with 2 outputs, pets with 3 classes.*--classes"),
        (5, None, ("0", "1"), r"each of the 3 classes of the data, cat, dog, bird.*\('0', '1'\)"),
        (5, None, ("cat", "dog", "bird"), "`teacher_classes`.*indices from 0 to 4.*'cat'"),
        (3, ["bird", "cat"], ("bird", "fish"), "`teacher_classes`.*from 0 to 2.*'fish'"),
        (3, None, ("cat", "dog", "0"), "none twice"),
    ],
)
def test_a_teacher_whose_classes_are_not_known(outputs, classes, teacher_classes, message):
    splits = pets().with_classes(classes) if classes else pets()
    with pytest.raises(ValueError, match=message):
        chosen(outputs, splits, distilled(teacher_classes=teacher_classes))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"classes": ("3",)}, "`classes` must be at least two.*"),
        ({"classes": ("3", "4", "3")}, r"`classes` must be at least two, none twice.*\('3', '4', '3'\)"),
        ({"teacher_classes": ("3", "4")}, "`teacher_classes` goes with `teacher_path`"),
        ({"method": "baseline", "teacher_path": "t", "teacher_classes": ("3",)}, "'baseline' does not read"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**settings)


def test_the_classes_are_part_of_what_is_trained_on():
    config = distilled(classes=("bird", "0"), teacher_classes=("4", "1"))
    assert DistillConfig(**read_flags(DistillConfig, "\n".join(format_flags(config)))) == config
    assert config.teacher.classes == ("bird", "0")
    assert "classes" in list_deciding(DistillConfig, COMPARED) and "classes" in list_deciding(DistillConfig, TRAINED)


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """A teacher of all ten digits."""
    workdir = tmp_path_factory.mktemp("teacher")
    commands.train_teacher(TeacherTrainingConfig(epochs=3, batch_size=64, learning_rate=0.02), workdir)
    return workdir


def test_a_student_of_four_digits(teacher_run, tmp_path, capsys):
    teacher = keras.saving.load_model(teacher_run / "teacher.keras")
    digits = data.load("digits")
    kept = np.flatnonzero(np.isin(digits.test_labels, [8, 3, 0, 1]))
    labels = np.array([{8: 0, 3: 1, 0: 2, 1: 3}[label] for label in digits.test_labels[kept]])
    z = teacher.predict(digits.test_images[kept], verbose=0)
    among_four = np.mean(z[:, [8, 3, 0, 1]].argmax(-1) == labels)
    among_ten = np.mean(z.argmax(-1) == digits.test_labels[kept])

    settings = {"epochs": 1, "batch_size": 64, "learning_rate": 0.05, "classes": ("8", "3", "0", "1")}
    config = DistillConfig(**settings, method="sp", teacher_path=str(teacher_run), baseline="none")
    run = commands.distill(config, tmp_path / "run")
    assert "Of the teacher's 10 classes, these are the data's: 8, 3, 0, 1" in capsys.readouterr().out
    # With fewer to choose from it cannot do worse.
    assert run["teacher"]["test_accuracy"] == pytest.approx(among_four)
    assert among_four >= among_ten > 0.8
    assert run["test_samples"] == len(kept)
    assert run["classes"] == ["8", "3", "0", "1"] and "sp on digits (8, 3, 0, 1)" in tables.format_table([run])
    student = keras.saving.load_model(tmp_path / "run" / "student.keras")
    assert student.output_shape == (None, 4)
    accuracy = np.mean(student.predict(digits.test_images[kept], verbose=0).argmax(-1) == labels)
    assert run["student"]["test_accuracy"] == accuracy
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == run

    paths = {"model_path": str(tmp_path / "run" / "student.keras"), "teacher_path": str(teacher_run)}
    measured = commands.evaluate(EvaluateConfig(**paths, classes=("8", "3", "0", "1")))
    assert measured["test_accuracy"] == accuracy
    assert measured["agreement"] == run["student"]["agreement"]
    assert measured["teacher"]["test_accuracy"] == run["teacher"]["test_accuracy"]


def test_refused_before_any_work(teacher_run, tmp_path):
    models.build("digits_teacher", (8, 8, 1), 7).save(tmp_path / "seven.keras")
    for settings, message in (
        ({"classes": ("3", "12")}, "`classes`.*from 0 to 9.*'12'"),
        ({"classes": ("3", "8"), "teacher_path": str(tmp_path / "seven.keras")}, "7 outputs.*--teacher_classes"),
        ({"classes": ("3", "8"), "teacher_path": str(teacher_run), "teacher_classes": ("3",)}, "each of the 2 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            commands.distill(DistillConfig(method="kd", **settings), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_classes_in_another_order_are_found_out(teacher_run, tmp_path):
    settings = {"classes": ("8", "3", "0"), "teacher_classes": ("3", "0", "8"), "method": "kd", "check": "strict"}
    with pytest.raises(ValueError, match="more than chance.*--teacher_classes"):
        commands.distill(DistillConfig(**settings, teacher_path=str(teacher_run)), tmp_path / "run")


def test_evaluation_needs_a_teacher_for_its_classes():
    with pytest.raises(ValueError, match="`teacher_classes` goes with `teacher_path`"):
        EvaluateConfig(model_path="student.keras", teacher_classes=("1", "2"))
