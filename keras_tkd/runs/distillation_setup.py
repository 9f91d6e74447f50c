"""Sources that a student is distilled from: a teacher, or its outputs in the batches."""

import dataclasses
import typing

import keras

from keras_tkd import data, evaluation
from keras_tkd.batches import TEACHER
from keras_tkd.distillation.inspection import Inspection, inspect_model
from keras_tkd.runs import cached_teacher
from keras_tkd.teachers.ensemble import TeacherEnsemble, flatten_ensemble
from keras_tkd.utils import precision

__all__ = ["DistillationSetup", "make_pipeline", "make_training_batches", "set_up_distillation"]


@dataclasses.dataclass
class DistillationSetup:
    """A teacher, or batches that bring its outputs, for a student to be distilled from.

    Attributes:
        teacher: the teacher's model; None where the batches bring its outputs.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch) -> tf.data.Dataset`.
        shapes: shapes of a batch, as `Distiller.build` takes them.
        inspection: `Inspection` of the teacher, where the batches bring its outputs and it is to be checked.
    """

    teacher: keras.Model | None
    pipeline: typing.Callable
    shapes: dict[str, tuple | dict]
    inspection: Inspection | None = None


def set_up_distillation(run, inputs, teacher):
    """Makes the `DistillationSetup` of a run; builds or opens its teacher cache.

    Args:
        run: the `Run`, with a resolved `DistillConfig`.
        inputs: its `Inputs`.
        teacher: the teacher's model; None where its outputs alone are given. With a cache nothing here holds it
            afterwards.
    """
    config, splits = run.config, inputs.splits
    shapes = {"image": (None, *splits.image_shape)}
    if inputs.outputs is not None:
        pipeline = make_pipeline(config, splits, inputs.outputs.predict_classes)
        pipeline = cached_teacher.attach(pipeline, inputs.outputs.caches)
        return DistillationSetup(None, pipeline, shapes | {TEACHER: inputs.outputs.shapes})
    for model in flatten_ensemble(teacher):
        precision.set_precision(model, config.precision)
    pipeline = make_pipeline(config, splits, lambda: evaluation.predict_classes(teacher, splits.train_images))
    if config.teacher_cache == "off":
        return DistillationSetup(teacher, pipeline, shapes)
    losses, *_ = inputs.make_losses(config)
    caches = cached_teacher.build(config, cached_teacher.get_folder(config, run.path), splits, teacher, losses)
    # An ensemble's losses are averaged in the step, which needs no teacher but the ensemble's weights.
    averaging = isinstance(teacher, TeacherEnsemble) and teacher.average == "losses"
    shapes[TEACHER] = caches["train"].shapes
    inspection = None
    if config.check != "off":
        # Now, as nothing will hold it when the student is checked.
        inspection = inspect_model(teacher, next(data.iterate_batches(splits.train_images, config.batch_size)))
    return DistillationSetup(
        teacher if averaging else None, cached_teacher.attach(pipeline, caches), shapes, inspection
    )


def make_pipeline(config, splits, predict_classes):
    """Makes the function of a method's batches: images alone, or with the negatives or partners drawn for them.

    Args:
        config: resolved `DistillConfig`.
        splits: the run's `Splits`.
        predict_classes: function to the classes that the teacher names for the training images, `(samples,)`; called
            where these decide what is drawn.
    """
    extra_images = config.recipe.extra_images if config.negatives == "drawn" else set()
    predicted = None
    if extra_images and config.negative_classes == "teacher":
        predicted = predict_classes()

    def pipeline(images, labels, *, training, **arguments):
        arguments["views"] = config.teacher_views
        # The teacher's predictions are for the training images; held-out negatives are drawn by label.
        sampling_labels = predicted if training else None
        if "partners" in extra_images:
            return data.pair_dataset(images, labels, partner_labels=sampling_labels, training=training, **arguments)
        negatives = "other_class" if "negatives" in extra_images else None
        return data.triplet_dataset(
            images, labels, negatives=negatives, negative_labels=sampling_labels, training=training, **arguments
        )

    return pipeline


def make_training_batches(config, splits, pipeline, **start):
    """Makes the batches that a training shows.

    Args:
        config: what the training is configured by.
        splits: the run's `Splits`.
        pipeline: see `DistillationSetup`.
        **start: `initial_epoch` and `initial_step`, where the training does not begin with the first.
    """
    return pipeline(
        splits.train_images,
        splits.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=data.AUGMENTATIONS[config.augmentation],
        training=True,
        **start,
    )
