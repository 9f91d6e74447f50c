"""The Distiller: a Keras model that trains a student with a frozen teacher."""

import keras

from keras_tkd import teachers
from keras_tkd.distillation import model_validation, validation
from keras_tkd.distillation.base import DistillationModel

__all__ = ["Distiller"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class Distiller(DistillationModel):
    """Trains a student on labels and on the outputs of a frozen teacher.

        total = student_loss_weight * student_loss + sum_k weight_k * distillation_loss_k + regularization

    `student_loss` is the loss given to `compile`, between labels and the student's output; `regularization` are the
    student's own regularization losses. The weights are independent, as papers write them.

    Data, for `fit` and `evaluate`: whatever the models take, with labels; or a dict with the key `"image"`, and as
    needed `"negative"` (an image of another class for each image), `"positive"` (another image of its class),
    `"partner"` and `"same"` (an image of any class, and whether it is of the image's), `"index"` and `"view"` or
    `"mixed_view"` (ids of the samples, and of their views), `"teacher"` (a dict of the teacher's outputs, so that the
    teacher is not run) and `"teacher_image"` (what it sees in place of `"image"`); other keys are refused. Models whose
    inputs are a dict have it under `"image"`. Images whose height or width is not what the teacher takes are resized
    for it. `sample_weight` and `class_weight` weight every loss.

    Args:
        teacher: trained `keras.Model` that returns logits, or a `TeacherEnsemble` of several. It is frozen:
            `trainable` is set False. None where every batch has a `"teacher"`, of a `TeacherCache` for example: then no
            teacher is in memory.
        student: `keras.Model` that returns logits, built or not.
        distillation_losses: a `DistillationLoss` or a list of them; losses of `keras.distillation` are taken too.
        distillation_loss_weights: a number >= 0 for each loss; None is 1 for each. May be replaced while training.
        student_loss_weight: >= 0, weight of the loss on the labels. May be set while training.
        name: name of the model.
        gather: where several devices or machines share a batch. `"global"`: what the losses read is gathered, and they
            are of the whole batch, as on one device. `"local"`: each replica computes them of its share, and counts by
            its number of images; nothing is sent but gradients. Losses of each image by itself come to the same; one
            that compares images of a batch (similarities, negatives that it picks there) sees those of the share alone.

    Metrics: one per loss by its name, `student_loss`, `regularization` (if the student has any), `agreement` (share of
    images for which student and teacher name the same class), and the statistics of each loss, such as `tkd_violated`.

    `compute_loss` may be overridden, as in any Keras model: it gives `student_loss`. Layers, weights and metrics of a
    subclass's own that its constructor makes, used there, are trained, tracked and saved. A layer that the first step
    builds is built again, by its own `build`, when the file is loaded; one that cannot be is refused then. (A
    `from_config` of the subclass's own leaves that to `super().from_config`.) `call` is for `predict`: a step runs the
    student itself, so that a loss is added (`add_loss`) in the student, not here.

    A step in which a loss is not finite updates nothing; `fit` reads that note every 50 steps and raises
    `FloatingPointError`, which names the first such step and loss.

    Raises:
        ValueError: models that cannot go together, that end in a softmax, or that share weights; a student without
            weights; weights that are negative or of the wrong number; `gather="local"` for a loss that keeps something
            of every sample (`ContrastiveRepresentation`); batches with a key that is not known; in
            `compile`: a loss on the labels that takes probabilities; in training: labels that the losses cannot read,
            an epoch in which a loss that picks partners in the batch found none.

    Example:

    ```python
    distiller = Distiller(teacher, student, SoftTargets(temperature=4.0), [0.9], student_loss_weight=0.1)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    distiller.fit(images, labels, epochs=20)
    distiller.student.save("student.keras")
    ```
    """

    _OBJECTS = ("teacher", "student", "distillation_losses")

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=1.0,
        name="distiller",
        *,
        gather="global",
    ):
        if distillation_losses is None:
            raise TypeError(
                "Distiller needs `distillation_losses`, a loss or a list of them. Received: none. For those who come "
                "from the example of keras.io, Distiller(teacher, student, SoftTargets(temperature)): see "
                "docs/from_keras_distillation.md"
            )
        model_validation.check_models(teacher=teacher, student=student)
        given, losses = validation.resolve_losses(distillation_losses, teacher, student)
        super().__init__(teacher, student, given, losses, distillation_loss_weights, student_loss_weight, gather, name)
        # Before it is built: trackers and checks go by what is trainable.
        if teacher is not None:
            teachers.freeze(teacher)
        self._build_from_graph()

    def _frozen_readers(self):
        return [self._read_teacher]
