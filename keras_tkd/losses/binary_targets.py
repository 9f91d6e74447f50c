"""Soft targets of images of several classes: each class is a yes or no of its own."""

import keras
from keras import ops

from keras_tkd.losses.base import LogitsLoss
from keras_tkd.losses.validation import check_same_shape
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter

__all__ = ["BinarySoftTargets", "binary_soft_targets"]


def binary_soft_targets(teacher_logits, student_logits, temperature=4.0):
    """Kullback-Leibler divergence of each class's softened yes or no, `T^2 mean_c KL(p_t[c] || p_s[c])`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`; one class is enough.
        temperature: T > 0 of the sigmoid of both.

    Returns:
        `(batch,)`, in nats.
    """
    teacher, student = teacher_logits / temperature, student_logits / temperature
    # From log-sigmoids of both signs, never from `1 - p`: of a probability near 1 that has no digits left.
    yes = ops.log_sigmoid(teacher) - ops.log_sigmoid(student)
    no = ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student)
    divergences = ops.sigmoid(teacher) * yes + ops.sigmoid(-teacher) * no
    return ops.mean(divergences, axis=-1) * temperature**2


@keras.saving.register_keras_serializable(package="keras_tkd")
class BinarySoftTargets(LogitsLoss):
    """Soft targets of several classes per image: the Kullback-Leibler divergence of each class's yes or no (`kd`).

    Where an image may have any number of classes, no softmax may be taken over them: that would make them share one
    whole. Each class is a Bernoulli variable of its own, and the student's is pulled towards the teacher's, both
    softened by the temperature; the factor `T^2` keeps the gradient's size when T changes. A single output,
    `Dense(1)`, is one such class.

        loss_i = T^2 * mean_c [ p_t log(p_t / p_s) + (1 - p_t) log((1 - p_t) / (1 - p_s)) ],    p = sigmoid(z[c] / T)

    With `keras.losses.BinaryCrossentropy(from_logits=True)` as the loss on multi-hot labels, which is a mean over the
    classes likewise, both parts are of one scale, however many classes there are.

    Args:
        temperature: T > 0, default 4. May be set while training: the next step uses it, without retracing.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)` logits, one class or more, never
    probabilities.

    Raises:
        ValueError: `temperature` <= 0; outputs of different shape.

    Example:

    >>> loss = BinarySoftTargets(temperature=1.0)
    >>> loss([[40.0, 0.0]], [[-40.0, 0.0]])     # (40 + 0) / 2: sure of the first class, even on the second
    20.0

    Reference: Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023 (the term MLD, at T = 1), after Hinton et
    al., 2015, for T. They sum over the classes, in this loss and in that on the labels; the mean of both differs by
    the constant number of classes, and leaves the learning rate where it is.
    """

    default_name = "binary_kd"
    compares_classes = False
    compares_binary = True
    temperature = Hyperparameter(minimum=0.0, exclusive=True)

    def __init__(self, temperature=4.0, **common):
        super().__init__(**common)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        return binary_soft_targets(y_true, y_pred, read_hyperparameter(self, "temperature"))

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
