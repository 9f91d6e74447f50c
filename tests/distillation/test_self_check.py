"""The look at a first batch: what it measures, what it warns of, and that it leaves everything as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TeacherEnsemble, TriKD, data, losses
from keras_tkd.distillation.inspection import inspect_model
from keras_tkd.distillation.judgements import judge_accuracies, judge_labels, judge_outputs, judge_terms
from keras_tkd.distillation.self_check import ModelRow, SelfCheck, TermRow, read_labels
from keras_tkd.losses import DistillationLoss, LogitRegression, SoftTargets

CLASSES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Logits of a teacher that is right about every image.
RIGHT = 4 * np.eye(CLASSES, dtype="float32")[Y] - 1


def linear(name, seed=0, width=0):
    """Logits that are linear in the input; with `width`, through a layer before it that makes it a larger model."""
    kernel = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
    dense = keras.layers.Dense(CLASSES, kernel_initializer=kernel, use_bias=False)
    # A seed with which a teacher of seed 1 is right more often than a guess, or it would be warned of.
    first = keras.initializers.RandomNormal(stddev=1.0, seed=seed + 4)
    hidden = [keras.layers.Dense(width, kernel_initializer=first)] if width else []
    return keras.Sequential([keras.Input((5,)), *hidden, dense], name=name)


def distill(*terms, teacher="linear", weights=None, loss=LABEL_LOSS, **options):
    teacher = linear("teacher", 1, width=9) if teacher == "linear" else teacher
    distiller = Distiller(teacher, linear("student", 2), list(terms) or SoftTargets(), weights, **options)
    distiller.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    return distiller


def given(logits=RIGHT, x=X):
    """A batch that brings its teacher's outputs."""
    return {"image": x, "teacher": {"logits": np.asarray(logits, "float32")}}


ONE_STEP = r"`batch` must be what `fit` takes for one step, \(x, y\)"
BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
NAMES = np.array(list("abc") * 4)
BAD_BATCHES = {
    "a data set": (BATCHES, TypeError, f"{ONE_STEP}.*Received: a _BatchDataset.*next"),
    "an iterator": (iter(BATCHES), TypeError, f"{ONE_STEP}.*Received: a OwnedIterator"),
    "None": (None, TypeError, f"{ONE_STEP}.*Received: None"),
    "no images": ((None, Y), TypeError, f"{ONE_STEP}.*Received: None"),
    "four parts": ((X, Y, Y, Y), TypeError, f"{ONE_STEP}.*Received: 4 parts"),
    "no samples": ((X[:0], Y[:0]), ValueError, rf"{ONE_STEP}.*1 or more.*\(0, 5\), \(0,\)"),
    "two lengths": ((X, Y[:5]), ValueError, rf"{ONE_STEP}.*same number.*\(12, 5\), \(5,\)"),
    "text": ("abc", ValueError, ONE_STEP),
    "images kept as objects": ((X.astype(object), Y), TypeError, r"arrays or tensors of numbers.*object.*astype"),
    "names": ((X, NAMES), ValueError, r"`y` must be class ids.*Names become ids"),
    "names as objects": ((X, NAMES.astype(object)), ValueError, r"`y` must be class ids.*Names become ids"),
    "names as tensors": ((X, tf.constant(NAMES)), ValueError, r"`y` must be class ids.*Names become ids"),
    "halves": ((X, tf.constant(Y + 0.5)), ValueError, r"`y` must be class ids.*not whole, such as 0\.5"),
    "a third axis": ((X, Y.reshape(-1, 1, 1)), ValueError, r"Labels must be class ids.*\(12, 1, 1\)"),
}


def warnings(distiller, x=X, y=Y):
    return distiller.check((x, y)).warnings


class TestMeasures:
    def test_rows_are_values_weights_and_shares_of_the_gradient(self):
        """Of a linear student, by hand: slopes of the mean cross-entropy and of the mean square in its kernel."""
        distiller = distill(LogitRegression(), teacher=None, weights=[0.3], student_loss_weight=0.7)
        kernel = distiller.student.get_weights()[0].astype("float64")
        z = X @ kernel
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        values = -np.log(p[np.arange(12), Y]).mean(), ((z - RIGHT) ** 2).mean()
        slopes = X.T @ (p - np.eye(CLASSES)[Y]) / 12, X.T @ (2 * (z - RIGHT)) / (12 * CLASSES)
        norms = np.array([0.7 * np.linalg.norm(slopes[0]), 0.3 * np.linalg.norm(slopes[1])])
        found = distiller.check((given(), Y))
        assert [row.term for row in found.rows] == ["student_loss", "logits"]
        np.testing.assert_allclose([row.value for row in found.rows], values, rtol=1e-5)
        np.testing.assert_allclose([row.weight for row in found.rows], [0.7, 0.3], rtol=1e-6)
        np.testing.assert_allclose([row.share for row in found.rows], norms / norms.sum(), rtol=1e-5)
        # Logits of 3 and twice -1.
        confidence = np.exp(3) / (np.exp(3) + 2 * np.exp(-1))
        assert found.models[0] == ("teacher", None, 1.0, pytest.approx(confidence, rel=1e-5))
        assert found.models[1] == ("student", 15, (z.argmax(-1) == Y).mean(), pytest.approx(p.max(-1).mean(), rel=1e-5))
        assert found.samples == 12 and not found.warnings

    def test_sample_weights_count(self):
        distiller, half = distill(LogitRegression(), teacher=None), np.full(12, 0.5, "float32")
        whole = distiller.check((given(), Y)).rows
        for row, weighted in zip(whole, distiller.check((given(), Y, half)).rows, strict=True):
            assert weighted.value == pytest.approx(row.value / 2, rel=1e-5)

    def test_the_table(self):
        rows = [TermRow("student_loss", 2.5, 0.1, 0.25), TermRow("kd", 0.5, 0.9, 0.75)]
        found = SelfCheck(64, rows, [ModelRow("teacher", 1234, 0.5, None)], ["Mind the gap."])
        assert str(found).splitlines() == [
            "Self-check on a batch of 64 images",
            "  term               value    weight  share of the gradient",
            "  student_loss         2.5       0.1    25.0%",
            "  kd                   0.5       0.9    75.0%",
            "  teacher: 1,234 parameters, right on 50.0% of the batch",
            "Warning: Mind the gap.",
        ]

    def test_both_models_that_learn_have_rows(self):
        trikd = TriKD(linear("teacher", 1, 9), linear("student", 2), linear("anchor", 3), anchor_weight=0.5)
        trikd.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        found = trikd.check((X, Y))
        shares = {row.term: row.share for row in found.rows}
        assert sum(shares[name] for name in ("student_loss", "kd")) == pytest.approx(1)
        assert sum(shares[name] for name in ("teacher_loss", "teacher_anchor", "teacher_peer")) == pytest.approx(1)
        assert [row.role for row in found.models] == ["teacher", "student", "anchor"] and not found.warnings

    def test_before_compile_is_an_error(self):
        with pytest.raises(ValueError, match="not compiled"):
            Distiller(linear("teacher", 1), linear("student", 2), SoftTargets()).check((X, Y))

    @pytest.mark.parametrize("kind", BAD_BATCHES)
    def test_what_is_no_batch_is_told_in_one_sentence(self, kind):
        batch, error, rule = BAD_BATCHES[kind]
        with pytest.raises(error, match=rule) as found:
            distill().check(batch)
        assert "\n" not in str(found.value)

    def test_labels_kept_as_objects_are_read_as_by_fit(self):
        distiller = distill()
        assert distiller.check((X, Y.astype(object))).rows == distiller.check((X, Y)).rows

    def test_a_teacher_that_was_made_trainable_is_refused_as_by_fit(self):
        distiller = distill()
        distiller.teacher.trainable = True
        with pytest.raises(ValueError, match="must stay frozen"):
            distiller.check((X, Y))


class Fixed(DistillationLoss):
    """A number of the teacher's alone."""

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true), axis=-1)


class TestTerms:
    def test_a_term_that_is_0(self):
        distiller = distill(LogitRegression(), teacher=linear("teacher", 2))
        (warning,) = warnings(distiller)
        assert warning.startswith("Term 'logits' is 0, and so is its gradient")

    def test_a_term_that_is_constant_in_the_student(self):
        (warning,) = warnings(distill(SoftTargets(), Fixed(name="fixed")))
        assert warning.startswith("Term 'fixed' is constant in the student")

    def test_a_term_that_outweighs_the_others(self):
        (warning,) = warnings(distill(weights=[1e4], student_loss_weight=0.1))
        assert warning.startswith("Term 'kd' outweighs the others")

    def test_a_hundred_times_and_no_less(self):
        rows = [TermRow("a", 1.0, 1.0, 0.99), TermRow("b", 1.0, 1.0, 0.01)]
        assert not judge_terms(rows)  # 99 times
        rows = [TermRow("a", 1.0, 1.0, 0.992), TermRow("b", 1.0, 1.0, 0.008)]
        assert "its gradient is 124 times theirs together" in judge_terms(rows)[0]
        # A weight decay is to be small, and a weight of 0 is meant.
        for other in (TermRow("regularization", 1.0, 1.0, 0.001), TermRow("b", 1.0, 0.0, 0.0)):
            rows = [TermRow("a", 1.0, 1.0, 1 - other.share), other]
            assert not judge_terms(rows, regularization=("regularization",))

    def test_a_low_weight_of_the_labels_is_meant(self):
        """With a weight of 1 they would have a 25th of the other's gradient, or a 250th."""
        for share, warned in ((0.996, 0), (0.9996, 1)):
            rows = [TermRow("student_loss", 1.0, 0.1, 1 - share), TermRow("lskd", 1.0, 9.0, share)]
            assert len(judge_terms(rows, label_losses=("student_loss",))) == warned and len(judge_terms(rows)) == 1

    @pytest.mark.parametrize(
        ("broken", "first"),
        [("images", "the images"), ("teacher", "the teacher's outputs"), ("student", "the student's outputs")],
    )
    def test_what_is_not_finite_first_is_named(self, broken, first):
        distiller, x = distill(), X.copy()
        if broken == "images":
            x[3, 0] = np.nan
        else:
            model = getattr(distiller, broken)
            model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        (warning,) = [text for text in warnings(distiller, x) if "not finite on this batch" in text]
        assert "Of the terms, " in warning and warning.endswith(f"The first that is not: {first}.")

    def test_a_loss_that_is_not_finite_by_itself(self):
        class Broken(DistillationLoss):
            def call(self, y_true, y_pred):
                return keras.ops.mean(y_pred, axis=-1) * np.float32("nan")

        (warning,) = warnings(distill(Broken(name="broken")))
        assert warning == "Of the terms, broken are not finite on this batch, and a step with it updates nothing."

    def test_what_rounding_leaves_of_a_gradient_is_none(self):
        """As of a student that has its teacher's weights; a large weight beside it is no silence."""
        rows = [TermRow("student_loss", 2.3, 1.0, 1 - 4e-7), TermRow("kd", 1e-9, 1.0, 4e-7)]
        (warning,) = judge_terms(rows)
        assert warning.startswith("Term 'kd' is 0, and so is its gradient")
        rows = [TermRow("student_loss", 2.3, 1.0, 1e-8), TermRow("kd", 0.7, 1e8, 1 - 1e-8)]
        (warning,) = judge_terms(rows)
        assert warning.startswith("Term 'kd' outweighs the others")


class TestOutputsAndLabels:
    def test_probabilities(self):
        p = np.exp(RIGHT) / np.exp(RIGHT).sum(-1, keepdims=True)
        (warning,) = warnings(distill(teacher=None), given(p))
        assert warning.startswith("The teacher's outputs look like probabilities")

    def test_sigmoids(self):
        (warning,) = warnings(distill(teacher=None), given(1 / (1 + np.exp(-RIGHT))))
        assert warning.startswith("The teacher's outputs look like sigmoids")

    @pytest.mark.parametrize("end", [[], [keras.layers.Lambda(lambda z: 0.9 * z)]], ids=["shown", "hidden"])
    def test_what_a_graph_shows_to_be_logits_is_no_sigmoid(self, end):
        """A student that knows nothing yet may say 0..1 of a whole batch."""
        student = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES), *end])
        student.set_weights([0.01 * np.eye(5, CLASSES), np.full(CLASSES, 0.5)])
        assert 0 < np.asarray(student(X)).min() and np.asarray(student(X)).max() < 1
        distiller = Distiller(None, student, SoftTargets())
        distiller.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, run_eagerly=True)
        said = [warning for warning in warnings(distiller, given()) if "look like sigmoids" in warning]
        assert len(said) == len(end)

    def test_logits_look_like_neither(self):
        # Constant rows are those of a model that has learned nothing.
        for logits in (RIGHT, np.zeros_like(RIGHT), RIGHT * np.float32("nan")):
            assert not judge_outputs("teacher", tf.constant(logits))

    def test_a_teacher_that_knows_less_than_the_commonest_class(self):
        """Right on none of 12, of which a third is of one class; two standard errors of a sixth are 0.215."""
        warning = warnings(distill(teacher=None), given(np.roll(RIGHT, 1, axis=1)))[0]
        assert warning.startswith("The teacher is right on 0.0% of this batch, and its commonest class is 33.3%")

    def test_luck_is_passed_over(self):
        labels = np.repeat([0, 1], [63, 1])  # always the commonest class: 0.984
        student = ModelRow("student", 1, None, None)
        assert not judge_accuracies(ModelRow("teacher", 1, 62 / 64, 0.9), student, labels)
        assert judge_accuracies(ModelRow("teacher", 1, 50 / 64, 0.9), student, labels)

    def test_labels_that_do_not_belong_to_the_images(self):
        """Of 100 images of ten classes chance gives 0.1, two standard errors more 0.16, and the commonest is 0.1."""
        labels, student = np.arange(100) % 10, ModelRow("student", 1, 0.1, None)
        answers = {right: np.where(np.arange(100) < right, labels, (labels + 1) % 10) for right in (15, 17)}
        (warning,) = judge_accuracies(ModelRow("teacher", 1, 0.15, 0.9), student, labels, answers[15])
        assert warning.startswith("The teacher is right on 15.0% of this batch, and would be on 10.0% of labels in any")
        assert warning.endswith("or the labels do not belong to these images.")
        assert not judge_accuracies(ModelRow("teacher", 1, 0.17, 0.9), student, labels, answers[17])
        # One answer to all images: as many are right as are of that class.
        assert judge_accuracies(ModelRow("teacher", 1, 0.1, 0.9), student, labels, np.zeros(100, int))

    def test_a_few_images_tell_no_guess_from_knowing(self):
        """Of two classes an error is 0.5 / sqrt(n): eight of them reach from 0.5 to 1 in 64 images, and not in 66."""
        student, row = ModelRow("student", 1, 0.5, None), ModelRow("teacher", 1, 0.5, 0.9)
        for images, warned in ((64, False), (66, True)):
            labels = np.repeat([0, 1], images // 2)
            assert len(judge_accuracies(row, student, labels, 1 - np.arange(images) % 2)) == warned

    def test_a_check_looks_at_what_the_teacher_names(self):
        """Shuffled labels: three classes in 99 images, of which the teacher is right on a third, as chance is."""
        x, labels = np.tile(X, (9, 1))[:99], np.repeat([0, 1, 2], 33)
        logits = 4 * np.eye(CLASSES, dtype="float32")[np.arange(99) % 3] - 1
        assert (
            "would be on 33.3% of labels in any other order"
            in warnings(distill(teacher=None), given(logits, x), labels)[0]
        )

    def test_a_batch_of_one_class_is_no_guess(self):
        student = ModelRow("student", 1, 0.1, None)
        assert not judge_accuracies(ModelRow("teacher", 1, 0.5, 0.9), student, np.zeros(64, int))

    def test_a_teacher_that_knows_less_than_the_student(self):
        labels = np.arange(64) % 2
        teacher, student = ModelRow("teacher", 1, 0.6, 0.9), ModelRow("student", 1, 0.95, 0.9)
        (warning,) = judge_accuracies(teacher, student, labels)
        assert "right on 60.0% of this batch, and the untaught student on 95.0%" in warning
        assert not judge_accuracies(student, teacher, labels)

    def test_a_teacher_smaller_than_its_student(self):
        distiller = Distiller(linear("teacher", 1), linear("student", 2, width=9), SoftTargets())
        distiller.compile("sgd", LABEL_LOSS)
        # 5 * 3; 5 * 9 + 9 and 9 * 3.
        assert any("has 15 parameters, fewer than the student's 81" in text for text in warnings(distiller))

    @pytest.mark.parametrize("y", [Y + 1, (Y + 1).reshape(-1, 1), (Y + 1).astype("float32")])
    def test_labels_that_no_output_has(self, y):
        found = distill().check((X, y))
        assert "Labels 3 have no output: the student has the classes 0 to 2" in found.warnings[0] and not found.rows

    def test_a_label_that_the_loss_leaves_out_needs_none(self):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        assert not judge_labels(np.where(Y == 2, -1, Y), tf.constant(RIGHT), loss)
        assert judge_labels(np.where(Y == 2, -1, Y), tf.constant(RIGHT), LABEL_LOSS)

    def test_rows_of_labels_name_a_class_if_they_are_distributions(self):
        rows = np.eye(CLASSES, dtype="float32")[Y]
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        models = distill(teacher=None, loss=loss).check((given(), 0.9 * rows + 0.1 / 3)).models
        assert models[0].accuracy == 1.0
        # Several classes to an image: none of them is the image's.
        assert read_labels(tf.constant([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])) is None


PIXELS = RNG.integers(0, 256, (8, 6, 6, 1), dtype="uint8")


def convolutional(*first, name="teacher", norm=False, **more):
    x = images = keras.Input((6, 6, 1))
    for layer in first:
        x = layer(x)
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.BatchNormalization(**more)(x) if norm else x
    return keras.Model(images, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)), name=name)


def inspected(model, images):
    return inspect_model(model, images.astype("float32")).warnings


class TestPixels:
    def test_that_are_scaled_already(self):
        teacher = convolutional(keras.layers.Rescaling(1 / 255, name="unit"))
        assert not inspected(teacher, PIXELS)
        (warning,) = inspected(teacher, PIXELS / 255)
        assert warning.startswith("The teacher's layer 'unit' makes 0 to 0.0039") and "scaled already" in warning

    def test_of_channels_with_offsets_of_their_own(self):
        """As ImageNet's means are: channels differ, and each of them is constant."""
        scale, offset = [1 / 58.0] * 3, [-2.1, -2.0, -1.8]
        images = keras.Input((6, 6, 3))
        x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(scale, offset)(images))
        teacher = keras.Model(images, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))
        pixels = np.repeat(PIXELS, 3, axis=-1)
        assert not inspected(teacher, pixels)
        assert "scaled already" in inspected(teacher, pixels / 255)[0]

    def test_that_are_larger_than_the_teachers(self):
        normalization = keras.layers.Normalization(axis=None, mean=0.5, variance=0.08)
        teacher = convolutional(normalization)
        assert not inspected(teacher, PIXELS / 255)
        assert "far more than 1" in inspected(teacher, PIXELS)[0]

    def test_that_are_shifted_alone_may_be_large(self):
        """As Caffe's models want them."""
        assert not inspected(convolutional(keras.layers.Rescaling(1.0, -110.0)), PIXELS)

    def test_that_are_not_those_of_the_first_batch_norm(self):
        teacher = convolutional(norm=True, momentum=0.0)
        teacher(PIXELS.astype("float32"), training=True)  # its statistics become those of these pixels
        assert not inspected(teacher, PIXELS)
        (warning,) = inspected(teacher, PIXELS / 255)
        assert "BatchNorm 'batch_normalization" in warning and "varies 0.0039" in warning

    def test_in_a_check_and_of_each_teacher_of_an_ensemble(self):
        first = convolutional(keras.layers.Rescaling(1 / 255, name="first"), name="a")
        second = convolutional(keras.layers.Rescaling(1 / 255, name="second"), name="b")
        distiller = Distiller(
            TeacherEnsemble([first, second], average="logits"), convolutional(name="student"), SoftTargets()
        )
        distiller.compile("sgd", LABEL_LOSS)
        text = " ".join(distiller.check((PIXELS / 255, Y[:8])).warnings)
        assert "layer 'first' makes" in text and "layer 'second' makes" in text
        assert "scaled already" not in " ".join(distiller.check((PIXELS, Y[:8])).warnings)


class Counting(keras.layers.Layer):
    """Statistics that move whatever it is told, as a BatchNorm's of a user's own."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="mean")

    def call(self, x):
        self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, axis=0))
        return x - self.mean


class AlwaysDropping(keras.layers.Dropout):
    def call(self, x, training=None):
        return super().call(x, training=True)


class AlwaysTraining(keras.layers.BatchNormalization):
    """Which stays all the same where it is frozen: Keras says so of this layer."""

    def call(self, x, training=None):
        return super().call(x, training=True)


class TestFrozenModels:
    @pytest.mark.parametrize(
        ("layer", "moves"), [(Counting(), True), (AlwaysDropping(0.5, seed=1), True), (AlwaysTraining(), False)]
    )
    def test_that_move_are_named_and_put_back(self, layer, moves):
        x = images = keras.Input((5,))
        x = keras.layers.Dense(9)(layer(x))
        teacher = keras.Model(images, keras.layers.Dense(CLASSES)(x), name="teacher")
        distiller = distill(teacher=teacher)
        before = [keras.ops.convert_to_numpy(variable) for variable in teacher.variables]
        moved = [text for text in warnings(distiller) if "change when it is run" in text]
        assert len(moved) == moves and all("1 of the teacher's variables" in text for text in moved)
        for old, variable in zip(before, teacher.variables, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)

    def test_whose_weights_are_not_finite(self):
        distiller = distill()
        assert not warnings(distiller)
        weights = distiller.teacher.get_weights()
        weights[0][2, 1] = np.nan
        distiller.teacher.set_weights(weights)
        assert "1 of the teacher's variables hold values that are not finite" in warnings(distiller)[0]


IMAGES = RNG.integers(0, 256, (12, 2, 2, 1), dtype="uint8")


class Student(keras.Model):
    """Without a graph, and with all that a step moves: BatchNorm's statistics, seeds of its own and Keras's."""

    def __init__(self):
        super().__init__()
        self.flatten, self.norm = keras.layers.Flatten(), keras.layers.BatchNormalization()
        self.drop, self.dense = keras.layers.Dropout(0.3, seed=4, name="embedding"), keras.layers.Dense(CLASSES)

    def call(self, x, training=False):
        x = self.drop(self.norm(self.flatten(x / 255), training=training), training=training)
        noise = keras.random.normal(keras.ops.shape(x)) if training else 0.0
        return self.dense(x + 0.1 * noise)


def graph(seed):
    x = images = keras.Input((2, 2, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.3, seed=seed, name="embedding")(x))
    return keras.Model(images, keras.layers.Dense(CLASSES)(x))


def make_training(kind):
    keras.utils.set_random_seed(1)
    if kind == "trikd":
        model = TriKD(graph(1), graph(2), graph(3))
    else:
        layers = {"teacher_layers": "embedding", "student_layers": "embedding"}
        bank = losses.ContrastiveRepresentation(Y, feature_size=4, negatives=4, **layers)
        model = Distiller(graph(1), Student(), [losses.TripletDistillation(margin=2.0), bank])
    model.compile(keras.optimizers.Adam(0.01), LABEL_LOSS, metrics=["accuracy"], run_eagerly=True)
    return model


def train(kind, check):
    """Trains for two steps; returns all that a training changes, and its curve."""
    model = make_training(kind)
    batches = data.triplet_dataset(IMAGES, Y, 6, seed=5)
    if check:
        found = model.check(next(iter(batches)))
        assert found.rows and not model.optimizer.built
        # The first pass over a data set is its first epoch: that of the check was one.
        batches = data.triplet_dataset(IMAGES, Y, 6, seed=5)
    curve = model.fit(batches, epochs=1, shuffle=False, verbose=0).history
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables], curve


@pytest.mark.parametrize("kind", ["distiller", "trikd"])
def test_a_training_after_it_has_the_same_bits(kind):
    (without, curve), (after, others) = (train(kind, check) for check in (False, True))
    assert others == curve and len(after) == len(without)
    for found, expected in zip(after, without, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_metrics_of_labels_with_several_parts_are_as_before():
    """Keras makes them when it first computes the loss."""
    x = keras.Input((5,))
    outputs = {"logits": keras.layers.Dense(CLASSES)(x), "size": keras.layers.Dense(1)(x)}
    distiller = Distiller(linear("teacher", 1, 9), keras.Model(x, outputs, name="student"), SoftTargets())
    distiller.compile("sgd", {"logits": LABEL_LOSS, "size": "mse"})
    found = distiller.check((X, {"logits": Y, "size": X[:, 0]}))
    assert [row.term for row in found.rows] == ["student_loss", "kd"]
    assert not any(keras.ops.convert_to_numpy(variable).any() for variable in distiller.metrics_variables)
