"""What teaches a student: a teacher, or its outputs in the batches."""

import dataclasses
import typing

import keras

from keras_tkd import data, evaluation
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.methods.registry import list_or_name
from keras_tkd.runs import cached_teacher
from keras_tkd.teachers.ensemble import TeacherEnsemble, flatten_ensemble
from keras_tkd.utils import precision


@dataclasses.dataclass
class DistillationSetup:
    """What teaches a student: a teacher, or its outputs, kept, in the batches.

    Attributes:
        teacher: the teacher's model; None where the batches bring its outputs.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch) -> tf.data.Dataset`.
        shapes: shapes of a batch, as `Distiller.build` takes them.
    """

    teacher: keras.Model | None
    pipeline: typing.Callable
    shapes: dict


def set_up_distillation(config, workdir, splits, teacher):
    """The `DistillationSetup` of a run; builds or opens its teacher cache.

    Args:
        config: resolved `DistillConfig`, `teacher_cache` settled.
        teacher: the teacher's model.
    """
    for model in flatten_ensemble(teacher):
        precision.set_precision(model, config.precision)
    pipeline = distillation_pipeline(config, splits, teacher)
    shapes = {"image": (None, *splits.image_shape)}
    if config.teacher_cache == "off":
        return DistillationSetup(teacher, pipeline, shapes)
    losses, *_ = losses_of(config, splits.train_labels)
    caches = cached_teacher.build(config, cached_teacher.folder(config, workdir), splits, teacher, losses)
    # An ensemble's losses are averaged in the step, which needs no teacher but the ensemble's weights.
    averaging = isinstance(teacher, TeacherEnsemble) and teacher.average == "losses"
    shapes["teacher"] = caches["train"].shapes
    return DistillationSetup(teacher if averaging else None, cached_teacher.attached(pipeline, caches), shapes)


def distillation_pipeline(config, splits, teacher):
    """The batches that the method reads: images alone, or with the negatives or partners that are drawn for them."""
    extra_images = config.recipe.extra_images if config.negatives == "drawn" else set()
    named = None
    if extra_images and config.negative_classes == "teacher":
        named = evaluation.predict_classes(teacher, splits.train_images)

    def pipeline(images, labels, *, training, **arguments):
        arguments["views"] = config.teacher_views
        sampling_labels = named if training else None
        if "partners" in extra_images:
            return data.pair_dataset(images, labels, partner_labels=sampling_labels, training=training, **arguments)
        negatives = "other_class" if "negatives" in extra_images else None
        return data.triplet_dataset(
            images, labels, negatives=negatives, negative_labels=sampling_labels, training=training, **arguments
        )

    return pipeline


def losses_of(config, labels):
    """What a resolved configuration gives the Distiller: losses, their weights, the weight of the labels' loss.

    Args:
        labels: class ids of the training samples.
    """
    in_batch = {"miner": config.miner, "negative_classes": config.negative_classes}
    losses, weights = make_losses(
        config.recipe,
        distillation_loss_weights=config.distillation_loss_weights,
        teacher_layers=list_or_name(config.teacher_layers),
        student_layers=list_or_name(config.student_layers),
        seed=config.seed,
        labels=labels,
        temperature=config.temperature,
        margin=config.margin,
        **(in_batch if config.negatives == "in_batch" else {}),
    )
    return losses, weights, config.student_loss_weight
