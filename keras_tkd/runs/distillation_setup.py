"""Sources that a student is distilled from: a teacher, or its outputs in the batches."""

import dataclasses
import typing

import keras

from keras_tkd import data, evaluation
from keras_tkd.batches import IMAGE, TEACHER, TEACHER_IMAGE
from keras_tkd.distillation.inspection import Inspection, inspect_model
from keras_tkd.runs import cached_teacher, optimization
from keras_tkd.runs.cached_teacher import make_mixing
from keras_tkd.teachers.ensemble import TeacherEnsemble, flatten_ensemble
from keras_tkd.utils import precision

__all__ = [
    "DistillationSetup",
    "make_held_out_batches",
    "make_pipeline",
    "make_shapes",
    "make_training_batches",
    "set_up_distillation",
]

_HELD_OUT_BATCH = 256


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
    shapes = make_shapes(splits)
    if inputs.outputs is not None:
        pipeline = make_pipeline(config, inputs.outputs.predict_classes)
        pipeline = cached_teacher.attach(pipeline, inputs.outputs.caches)
        return DistillationSetup(None, pipeline, shapes | {TEACHER: inputs.outputs.shapes})
    for model in flatten_ensemble(teacher):
        precision.set_precision(model, config.precision)
    cached = config.teacher_cache != "off"

    def predict_classes():
        return evaluation.predict_classes(teacher, splits.for_teacher.train_images, workers=run.cluster)

    pipeline = make_pipeline(config, predict_classes, None if cached else splits.teacher)
    if not cached:
        return DistillationSetup(teacher, pipeline, shapes)
    # What the teacher says comes with the batches, and not what it saw.
    shapes = {IMAGE: shapes[IMAGE]}
    losses, *_ = inputs.make_losses(config)
    caches = cached_teacher.build(run, inputs, teacher, losses)
    # An ensemble's losses are averaged in the step, which needs no teacher but the ensemble's weights.
    averaging = isinstance(teacher, TeacherEnsemble) and teacher.average == "losses"
    shapes[TEACHER] = caches["train"].shapes
    inspection = None
    if config.check != "off":
        # Now, as nothing will hold it when the student is checked.
        inspection = inspect_model(
            teacher, next(data.iterate_batches(splits.for_teacher.train_images, config.batch_size))
        )
    return DistillationSetup(
        teacher if averaging else None, cached_teacher.attach(pipeline, caches), shapes, inspection
    )


def make_shapes(splits):
    """Makes the shapes of a batch that a teacher in memory is run on, as `Distiller.build` takes them."""
    shapes = {IMAGE: (None, *splits.image_shape)}
    return shapes | {TEACHER_IMAGE: (None, *splits.teacher.image_shape)} if splits.teacher else shapes


def make_pipeline(config, predict_classes, teacher_splits=None):
    """Makes the function of a method's batches: images alone, or with the negatives or partners drawn for them.

    Args:
        config: resolved `DistillConfig`.
        predict_classes: function to the classes that the teacher names for the training images, `(samples,)`; called
            where these decide what is drawn.
        teacher_splits: `Splits` of the images that the teacher sees, where these are of another size and the batches
            are to hold them.
    """
    extra_images = config.recipe.extra_images if config.negatives == "drawn" else set()
    predicted = None
    if extra_images and config.negative_classes == "teacher":
        predicted = predict_classes()

    def pipeline(images, labels, *, training, **arguments):
        arguments["views"] = config.teacher_views
        if teacher_splits is not None:
            arguments["teacher_images"] = teacher_splits.train_images if training else teacher_splits.held_out[0]
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
        **start: `initial_epoch` and `initial_step`, where the training does not begin with the first; `share`, where
            this process makes a part of each batch.
    """
    batches = pipeline(
        splits.train_images,
        splits.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=data.make_augmentation(config.augmentation, splits.view_size),
        training=True,
        **_choose_mixing(config, splits),
        **start,
    )
    weights = optimization.compute_class_weights(config, splits.train_labels, splits.class_names)
    return _map_labels(batches, config, splits, weights)


def make_held_out_batches(config, splits, pipeline, **share):
    """Makes the batches that a training is measured on after each epoch, without weights; arguments as above."""
    images, labels = splits.held_out
    arguments = _choose_mixing(config, splits) | share
    batches = pipeline(images, labels, batch_size=_HELD_OUT_BATCH, seed=config.seed, training=False, **arguments)
    return _map_labels(batches, config, splits)


def _choose_mixing(config, splits):
    """Returns the argument `mix` of a pipeline; nothing for a run that mixes no images, as pairs have none."""
    mix = make_mixing(config, splits)
    return {} if mix is None else {"mix": mix}


def _map_labels(batches, config, splits, class_weights=None):
    # A map that changes nothing would cost each step a little. Mixed labels are rows already.
    if config.mixes or (class_weights is None and not config.label_smoothing):
        return batches
    return batches.map(optimization.make_label_map(config, splits.num_classes, class_weights))
