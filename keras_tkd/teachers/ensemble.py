"""Several teachers as one model: their losses, their probabilities or their logits averaged."""

import keras
import tensorflow as tf

from keras_tkd.teachers.logits import check_logits
from keras_tkd.teachers.reader import TeacherReader
from keras_tkd.teachers.weighting import check_teacher_weights, compute_shares
from keras_tkd.utils.choices import AVERAGES
from keras_tkd.utils.fixed_attributes import FixedAttributes
from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.layer_outputs import name_outputs
from keras_tkd.utils.resizing import resize_for_model

__all__ = ["TeacherEnsemble", "check_classes", "flatten_ensemble"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class TeacherEnsemble(FixedAttributes, keras.Model):
    """Several trained teachers as one model, to be given to a `Distiller` as its teacher.

    Three averages, with weights w_k that sum to 1; they are three different things:

        "losses"         sum_k w_k * loss(teacher k, student), for every distillation loss
        "probabilities"  one teacher of logits  log sum_k w_k softmax(z_k)
        "logits"         one teacher of logits  sum_k w_k z_k

    Weights: None (1 / K each); K numbers, made to sum to 1; or, for each sample by itself,

        "entropy"     w_k = (1 - H_k / sum_j H_j) / (K - 1),   H_k the entropy of softmax(z_k)
        "confidence"  w_k = (1 - softmax_k(CE_k)) / (K - 1),   CE_k = -log softmax(z_k)[label]

    Teachers that are sure of a sample, or right about it, count more there. `"confidence"` reads labels, which the
    `Distiller` has and a model's output has not: it goes with `average="losses"`.

    The output of the model, and what `agreement` is measured with, is the one teacher's logits of `"logits"` or
    `"probabilities"`; of `"losses"` it is that of `"probabilities"`, with equal weights for `"confidence"`. Logits of
    probabilities are log-probabilities: losses that read the level of the logits (`LogitRegression`,
    `TripletDistillation`) see another one than that of the teachers. An ensemble of one teacher is that teacher.

    In a `Distiller` each teacher runs once per step, however many losses read it. With `average="losses"` losses may
    read layers, and every teacher must have layers of those names; a loss with layers of its own (projectors, a memory
    bank) has them once for each teacher. A batch that brings the outputs has the ensemble's under `"logits"`; for
    `average="losses"` it also has those of each teacher, under `"teacher_1/logits"`, `"teacher_2/logits"` and so on,
    layers likewise (`"teacher_1/stage2"`).

    Args:
        teachers: list of different `keras.Model`s that return logits of the same classes. They may differ in the
            height and width of the image they take: each gets it resized. Pixels of other scales are
            `teachers.with_preprocessing`'s.
        average: `"losses"`, `"probabilities"` or `"logits"`.
        teacher_weights: None, a list or array of a number >= 0 for each teacher, `"entropy"` or `"confidence"`.
        name: name of the model.

    Call: images `(batch, height, width, channels)`, or whatever the teachers take, to float32 logits
    `(batch, classes)`.

    Raises:
        ValueError: no teachers, one of them twice, a softmax at the end of one, different classes, an ensemble of
            `"losses"` among them; an unknown average; weights of the wrong number, negative or all zero;
            `"confidence"` with another average than `"losses"`; in the Distiller: losses that read layers with another
            average than `"losses"`, data without labels for `"confidence"`.

    Example: two teachers give softmax (0.9, 0.1) and (0.5, 0.5). Of `"probabilities"`, the softmax is (0.7, 0.3); of
    `"logits"`, log(9) / 2 = log(3) apart, it is (0.75, 0.25).

    ```python
    ensemble = TeacherEnsemble([teacher_a, teacher_b, teacher_c], average="losses", teacher_weights="confidence")
    distiller = Distiller(ensemble, student, SoftTargets(temperature=4.0))
    ```

    References: entropy weights after Kwon et al., "Adaptive Knowledge Distillation Based on Entropy" (ICASSP 2020), as
    the public code of Zhang et al. has them; confidence weights of Zhang et al., "Confidence-Aware Multi-Teacher
    Knowledge Distillation" (ICASSP 2022, arXiv 2201.00007), per sample and at temperature 1. Our reading: entropy
    weights are divided by K - 1, so that they sum to 1 too; neither kind is divided by K once more, as that code does;
    where all entropies are 0, weights are equal.
    """

    _FIXED = ("teachers",)

    # `average` has no default: the three are different things, and none of them is what everyone expects.
    def __init__(self, teachers, *, average, teacher_weights=None, name="ensemble"):
        teachers = list(teachers) if isinstance(teachers, (list, tuple)) else [teachers]
        _check_teachers(teachers)
        if average not in AVERAGES:
            raise ValueError(f"`average` must be one of {', '.join(AVERAGES)}. Received: average={average!r}")
        teacher_weights = check_teacher_weights(teacher_weights, len(teachers))
        if teacher_weights == "confidence" and average != "losses":
            raise ValueError(
                "`teacher_weights='confidence'` reads labels, which the one output of an ensemble has not: it goes "
                f"with `average='losses'`. Received: average={average!r}"
            )
        super().__init__(name=name, dtype="float32", autocast=False)
        self.teachers = tuple(teachers)
        self._average = average
        self._teacher_weights = teacher_weights
        if all(teacher.built for teacher in teachers):
            self.built = True

    # Losses and steps that were made of them would not follow: neither has a setter.
    @property
    def average(self) -> str:
        """Name of what is averaged."""
        return self._average

    @property
    def teacher_weights(self) -> tuple[float, ...] | str | None:
        """The teachers' weights, as they were given: numbers, the name of a weighting, or None."""
        return self._teacher_weights

    def build(self, input_shape):
        # Keras may build while it traces a step, in whose graph no variable may be made.
        with tf.init_scope():
            for teacher in self.teachers:
                TeacherReader(teacher).build(input_shape)
            _check_teachers(list(self.teachers))

    def call(self, inputs, training=False):
        outputs = [teacher(resize_for_model(teacher, inputs), training=training) for teacher in self.teachers]
        return self.combine([name_outputs(*each)["logits"] for each in zip(self.teachers, outputs, strict=True)])

    def combine(self, logits):
        """Returns the ensemble's logits, float32 `(batch, classes)`, from those of each teacher."""
        logits = [tf.cast(z, tf.float32) for z in logits]
        check_classes([z.shape for z in logits])
        if len(logits) == 1:
            return logits[0]
        shares = tf.reshape(self.shares(logits), [len(logits), -1, 1])
        if self.average == "logits":
            return tf.reduce_sum(shares * tf.stack(logits), axis=0)
        # In logarithms, in which no probability is rounded to 0.
        return tf.reduce_logsumexp(tf.math.log(shares) + tf.nn.log_softmax(tf.stack(logits)), axis=0)

    def shares(self, logits, labels=None):
        """Computes the teachers' weights: `(teachers,)`, or `(teachers, batch)` where each sample has its own.

        Args:
            logits: list of each teacher's logits, `(batch, classes)`.
            labels: `(batch,)` class ids, which `"confidence"` reads; without them its weights are equal.
        """
        return compute_shares(self.teacher_weights, logits, labels)

    def get_config(self):
        weights = self.teacher_weights
        return {
            "teachers": [keras.saving.serialize_keras_object(teacher) for teacher in self.teachers],
            "average": self.average,
            # JSON has lists only.
            "teacher_weights": list(weights) if isinstance(weights, tuple) else weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        teachers = keras.saving.deserialize_keras_object(config["teachers"], custom_objects=custom_objects)
        return cls(**{**config, "teachers": teachers})


def flatten_ensemble(teacher):
    """Returns the models of a teacher: those of a `TeacherEnsemble`, or itself alone."""
    return list(teacher.teachers) if isinstance(teacher, TeacherEnsemble) else [teacher]


def _check_teachers(teachers):
    """Raises `ValueError` for teachers that cannot go together, as far as that is seen before they are built."""
    if not teachers or not all(isinstance(teacher, keras.Model) for teacher in teachers):
        raise ValueError(f"`teachers` must be a list of at least one keras.Model. Received: teachers={teachers!r}")
    if len({id(teacher) for teacher in teachers}) < len(teachers):
        names = [teacher.name for teacher in teachers]
        raise ValueError(f"`teachers` must be different models. Received one of them twice: {names}")
    for teacher in teachers:
        check_logits("teacher", teacher)
        _check_average(teacher)
    check_classes([shape for shape in map(_get_output_shape, teachers) if shape])


def _check_average(teacher):
    """Raises `ValueError` for a teacher that is, or holds, an ensemble that averages losses: of these it has none."""
    for layer in flatten_layers(teacher):
        if isinstance(layer, TeacherEnsemble) and layer.average == "losses" and len(layer.teachers) > 1:
            raise ValueError(
                "An ensemble inside another is one teacher with one output, which averages probabilities or logits. "
                f"Received: the ensemble '{layer.name}' of average='losses' among the teachers. Give its teachers to "
                "the outer one, with `teacher_weights`, or take average='probabilities' for it"
            )


def _get_output_shape(model):
    """Shape of the logits that a model with a graph returns; None without one."""
    shape = getattr(model, "output_shape", None) if model.built else None
    if isinstance(shape, (list, tuple)) and shape and not isinstance(shape[-1], (int, type(None))):
        name_outputs(model, shape)  # which refuses them
    return shape.get("logits") if isinstance(shape, dict) else shape


def check_classes(shapes: list[tuple]):
    """Raises `ValueError` for teachers whose logits, of these shapes, are not of the same classes."""
    if len({tuple(shape)[1:] for shape in shapes}) > 1:
        raise ValueError(
            f"The teachers must have the same classes. Received: outputs of shapes {[tuple(s) for s in shapes]}"
        )
