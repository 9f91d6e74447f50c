"""Heads and labels that a softmax over the classes cannot be taken of: each is refused, with what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TeacherCache, TeacherEnsemble, TriKD, evaluation
from keras_tkd.losses import (
    DIST,
    DecoupledTargets,
    HardTargets,
    Hint,
    LogitRegression,
    NormalizedTargets,
    PairDistillation,
    SoftTargets,
    TripletDistillation,
)
from keras_tkd.teachers import logits_model, with_classes

CLASSES = 3
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY_LOSS = keras.losses.BinaryCrossentropy(from_logits=True)
ON_CLASSES = [SoftTargets, HardTargets, LogitRegression, DIST, DecoupledTargets, NormalizedTargets]
ON_CLASSES += [TripletDistillation]
X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES


def model(name, outputs=CLASSES, activation=None):
    layers = [keras.Input((5,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(outputs, activation)]
    return keras.Sequential(layers, name=name)


def pair(outputs=CLASSES):
    return model("teacher", outputs), model("student", outputs)


def compiled(losses, loss=LABEL_LOSS, outputs=CLASSES, **options):
    distiller = Distiller(*pair(outputs), losses)
    distiller.compile("sgd", loss, **options)
    return distiller


class TestOneOutput:
    @pytest.mark.parametrize("loss", [*ON_CLASSES, PairDistillation])
    def test_is_refused_by_losses_on_classes(self, loss):
        with pytest.raises(ValueError, match=rf"'{loss.default_name}' compares classes.*\(None, 1\).*two outputs"):
            Distiller(*pair(1), loss())

    def test_by_trikd_by_ensembles_and_by_the_losses_of_keras(self):
        with pytest.raises(ValueError, match="'kd' compares classes"):
            TriKD(*pair(1))
        for average in ("losses", "probabilities"):
            ensemble = TeacherEnsemble([model("a", 1), model("b", 1)], average=average)
            with pytest.raises(ValueError, match="'kd' compares classes"):
                Distiller(ensemble, model("student", 1), SoftTargets())
        with pytest.raises(ValueError, match="'logits_distillation' compares classes"):
            Distiller(*pair(1), keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()))

    @pytest.mark.parametrize("loss", [SoftTargets, DIST])
    def test_by_the_loss_itself(self, loss):
        with pytest.raises(ValueError, match=r"compares classes.*\(2, 1\)"):
            loss()(np.ones((2, 1)), np.zeros((2, 1)))

    @pytest.mark.parametrize("loss", [DecoupledTargets, NormalizedTargets])
    def test_by_the_loss_itself_with_labels(self, loss):
        with pytest.raises(ValueError, match=r"compares classes.*\(2, 1\)"):
            loss()({"logits": np.ones((2, 1)), "labels": [0, 0]}, np.zeros((2, 1)))

    def test_layers_are_distilled_without_an_agreement(self):
        distiller = compiled(Hint("hidden", "hidden"), BINARY_LOSS, outputs=1)
        history = distiller.fit(X, Y > 0, verbose=0).history
        assert history["fitnet"][0] > 0 and "agreement" not in history


@pytest.mark.parametrize("role", ["teacher", "student", "anchor"])
@pytest.mark.parametrize("head", ["dense", "activation", "operation", "nested"])
def test_a_sigmoid_at_the_end_is_refused(role, head):
    inputs = keras.Input((5,))
    outputs = {
        "dense": lambda: keras.layers.Dense(CLASSES, "sigmoid")(inputs),
        "activation": lambda: keras.layers.Activation("sigmoid")(keras.layers.Dense(CLASSES)(inputs)),
        "operation": lambda: keras.ops.sigmoid(keras.layers.Dense(CLASSES)(inputs)),
        "nested": lambda: model("inner", CLASSES, "sigmoid")(inputs),
    }
    models = {"teacher": model("teacher"), "student": model("student"), "anchor": model("anchor")}
    models[role] = keras.Model(inputs, outputs[head](), name="yes_or_no")
    with pytest.raises(
        ValueError, match=f"The {role} must return logits.*'yes_or_no' ends in a sigmoid.*without an act"
    ):
        TriKD(models["teacher"], models["student"], models["anchor"])


class TestLabelsOfSeveralClasses:
    SEVERAL = np.array([[1, 1, 0]] + [[0, 0, 1]] * 11)

    @pytest.mark.parametrize("loss", ON_CLASSES)
    def test_are_refused_in_training_and_validation(self, loss):
        one, several = np.eye(CLASSES)[Y], self.SEVERAL
        for labels, validation in ((several, None), (one, (X, several))):
            # Op by op: quicker where a step runs once. The tests below trace it.
            distiller = compiled(loss(), BINARY_LOSS, run_eagerly=True)
            with pytest.raises(ValueError, match=rf"{loss.default_name}.* one class each.*with 2 classes.*class ids"):
                distiller.fit(X, labels, validation_data=validation, verbose=0)
        # The note is of that fit alone.
        distiller.fit(X, one, verbose=0)

    def test_are_refused_in_trikd_and_where_none_is_named(self):
        trikd = TriKD(*pair())
        trikd.compile("sgd", BINARY_LOSS)
        with pytest.raises(ValueError, match="kd are of images of one class each.*with 2 classes"):
            trikd.fit(X, self.SEVERAL, verbose=0)
        with pytest.raises(ValueError, match="with 0 classes"):
            compiled(SoftTargets(), BINARY_LOSS).fit(X, np.zeros((12, CLASSES)), verbose=0)

    def test_in_a_dataset_of_many_steps(self):
        data = tf.data.Dataset.from_tensor_slices((X, self.SEVERAL)).batch(3).repeat()
        with pytest.raises(ValueError, match="with 2 classes"):
            compiled(SoftTargets(), BINARY_LOSS).fit(data, steps_per_epoch=10**9, verbose=0)

    def test_distributions_and_losses_on_layers_are_taken(self):
        smooth = 0.9 * np.eye(CLASSES)[Y] + 0.1 / CLASSES
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        assert len(compiled(SoftTargets(), loss).fit(X, smooth.astype("float16"), verbose=0).history["kd"]) == 1
        history = compiled(Hint("hidden", "hidden"), BINARY_LOSS).fit(X, self.SEVERAL, verbose=0).history
        assert len(history["fitnet"]) == 1


class TestLabelsThatAreNoClass:
    LABELS = np.where(np.arange(12) == 7, -1, Y)
    LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)

    @pytest.mark.parametrize("loss", [DecoupledTargets, NormalizedTargets])
    @pytest.mark.parametrize("eager", [False, True])
    def test_the_label_is_named(self, loss, eager):
        distiller = compiled(loss(), self.LOSS)
        distiller.run_eagerly = eager
        with pytest.raises(ValueError, match=rf"{loss.default_name} read the class.*label -1.*0 to 2.*SoftTargets"):
            distiller.fit(X, self.LABELS, batch_size=4, verbose=0)
        # Another fit, another label.
        distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=7))
        with pytest.raises(ValueError, match="label 7,"):
            distiller.fit(X, np.where(np.arange(12) == 7, 7, Y), batch_size=4, verbose=0)

    def test_a_loss_without_labels_learns_from_such_images_too(self):
        history = compiled(SoftTargets(), self.LOSS).fit(X, self.LABELS, verbose=0).history
        assert history["kd"][0] > 0

    @pytest.mark.parametrize("loss", [TripletDistillation, PairDistillation])
    def test_it_is_no_class_that_negatives_are_of(self, loss):
        distiller = compiled(loss(), self.LOSS)
        said = (
            f"The losses {loss.default_name} take images of one label for one class.*label -1, .*ignore_class.*teacher"
        )
        with pytest.raises(ValueError, match=said):
            distiller.evaluate(X, self.LABELS, verbose=0)
        # Told apart by the teacher, all images are of some class.
        assert len(compiled(loss(negative_classes="teacher"), self.LOSS).fit(X, self.LABELS, verbose=0).epoch) == 1


class TestLabelsThatAreNoIds:
    """Refused where they come: by their shape, or as a step notes them."""

    HALVES = Y + 0.5

    @staticmethod
    def batches(labels):
        return tf.data.Dataset.from_tensor_slices((X, labels)).batch(4)

    @pytest.mark.parametrize("place", ["fit", "evaluate"])
    def test_a_third_axis(self, place):
        distiller, labels = compiled(SoftTargets(), run_eagerly=True), Y.reshape(-1, 1, 1)
        for arguments in ((X, labels), (self.batches(labels),)):
            with pytest.raises(ValueError, match=r"of shape \(batch,\), or rows of 3.*\d, 1, 1\).*reshape"):
                getattr(distiller, place)(*arguments, verbose=0)

    @pytest.mark.parametrize("place", ["fit", "evaluate"])
    @pytest.mark.parametrize("loss", [LABEL_LOSS, None])
    def test_halves_in_a_dataset(self, place, loss):
        distiller = compiled(SoftTargets(), loss, run_eagerly=True)
        with pytest.raises(ValueError, match=r"whole numbers\. Received: label 0\.5, .* 0 to 2"):
            getattr(distiller, place)(self.batches(self.HALVES), verbose=0)
        # NaN is no whole number either.
        with pytest.raises(ValueError, match=r"whole numbers\. Received: label nan"):
            getattr(distiller, place)(self.batches(np.where(Y == 1, np.nan, Y)), verbose=0)

    def test_losses_on_layers_take_any_numbers(self):
        distiller = compiled(Hint("hidden", "hidden"), None, run_eagerly=True)
        assert distiller.fit(self.batches(self.HALVES), verbose=0).history["fitnet"][0] > 0

    @pytest.mark.parametrize("eager", [False, True])
    @pytest.mark.parametrize("label", [3, -1])
    def test_a_label_that_the_loss_on_the_labels_cannot_read(self, label, eager):
        """TensorFlow ends the step on a CPU, and names no label; the note was made before."""
        distiller = compiled(SoftTargets(), run_eagerly=eager)
        labels = np.where(np.arange(12) == 7, label, Y)
        with pytest.raises(ValueError, match=rf"reads the class.*label {label}, .* 0 to 2.*ignore_class") as found:
            distiller.fit(X, labels, batch_size=4, verbose=0)
        assert found.value.__suppress_context__
        with pytest.raises(ValueError, match=f"label {label}, "):
            distiller.evaluate(self.batches(labels), verbose=0)
        # The note is of that fit alone.
        distiller.fit(X, Y, verbose=0)

    @pytest.mark.parametrize("place", ["train_on_batch", "test_on_batch"])
    def test_in_a_single_batch(self, place):
        """Named there, and forgotten after it: also where no loss on the labels makes TensorFlow stop at it."""
        for label_loss in (LABEL_LOSS, None):
            distiller = compiled(DecoupledTargets(), label_loss)
            with pytest.raises(ValueError, match="read the class that a label names.*label 3, "):
                getattr(distiller, place)(X, np.where(np.arange(12) == 7, 3, Y))
            distiller.evaluate(X, Y, verbose=0)
            distiller.fit(X, Y, verbose=0)
            assert np.isfinite(getattr(distiller, place)(X, Y)).all()

    def test_of_a_training_that_was_broken_off_nothing_is_left(self):
        distiller = compiled(TripletDistillation(), None)
        distiller.fit(X, Y, verbose=0)
        distiller._label_guard._note.assign([3, 7])  # as a step notes a label 7
        distiller.fit(X, Y, verbose=0)

    @pytest.mark.parametrize("broken_off", ["fit", "evaluate"])
    @pytest.mark.parametrize("then", ["evaluate", "train_on_batch", "test_on_batch"])
    def test_nor_is_it_said_of_other_data(self, broken_off, then):
        def stop(batch, logs):
            raise KeyboardInterrupt

        distiller = compiled(DecoupledTargets(), None)
        when = {"fit": "on_train_batch_end", "evaluate": "on_test_batch_end"}[broken_off]
        callback = keras.callbacks.LambdaCallback(**{when: stop})
        with pytest.raises(KeyboardInterrupt):
            getattr(distiller, broken_off)(X, np.full(12, CLASSES), verbose=0, callbacks=[callback])
        assert np.isfinite(getattr(distiller, then)(X, Y)).all()

    def test_another_error_of_tensorflow_stays_what_it_is(self):
        def broken(y, z):
            return tf.debugging.check_numerics(keras.ops.log(z - z), "own")[:, 0]

        with pytest.raises(tf.errors.InvalidArgumentError, match="own"):
            compiled(SoftTargets(), broken, run_eagerly=True).fit(X, Y, verbose=0)


def of_list(name, form):
    inputs = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(inputs)
    if form == "functional":
        return keras.Model(inputs, [keras.layers.Dense(CLASSES)(flat), keras.layers.Dense(CLASSES)(flat)], name=name)

    class Two(keras.Model):
        def __init__(self):
            super().__init__(name=name)
            self.heads = [keras.layers.Dense(CLASSES), keras.layers.Dense(CLASSES)]

        def call(self, x):
            return tuple(head(keras.ops.reshape(x, (-1, 16))) for head in self.heads)

    return Two()


def on_images(name):
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)], name=name)


def fit(distiller, images):
    distiller.compile("sgd", LABEL_LOSS)
    distiller.fit(images.astype("float32"), Y, verbose=0)


LISTS = {
    "student": lambda two, x, path: fit(Distiller(on_images("one"), two, SoftTargets()), x),
    "teacher": lambda two, x, path: fit(Distiller(two, on_images("one"), SoftTargets()), x),
    "TriKD's student": lambda two, x, path: fit(TriKD(on_images("one"), two), x),
    "TriKD's teacher": lambda two, x, path: fit(TriKD(two, on_images("one")), x),
    "anchor": lambda two, x, path: fit(TriKD(on_images("one"), on_images("other"), two), x),
    "cache": lambda two, x, path: TeacherCache.build(two, x, path, progress=False),
    "ensemble": lambda two, x, path: TeacherEnsemble([two, on_images("one")], average="logits")(x.astype("float32")),
    "evaluation": lambda two, x, path: evaluation.logits(two, x),
}


@pytest.mark.parametrize("form", ["functional", "subclassed"])
@pytest.mark.parametrize("entrance", LISTS)
def test_a_list_of_outputs_is_refused_everywhere(entrance, form, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1), "uint8")
    with pytest.raises(ValueError, match=r"a dict that has them under \"logits\".* of 2 from model 'two'"):
        LISTS[entrance](of_list("two", form), images, tmp_path / "cache")


@pytest.mark.parametrize("function", [logits_model, lambda two: with_classes(two, [0, 1])])
def test_a_list_of_outputs_has_no_logits_to_be_chosen(function):
    with pytest.raises(ValueError, match="a list of 2 from model 'two'"):
        function(of_list("two", "functional"))


def test_an_error_of_a_model_comes_as_it_was_raised():
    with pytest.raises(ValueError, match=r"^Model 'student' has no output of that name. Received: 'nope'"):
        Distiller(*pair(), Hint("hidden", "nope"))
