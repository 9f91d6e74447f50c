"""Forward passes: the outputs of student and teacher for one batch."""

import typing

import keras
import tensorflow as tf

from keras_tkd.batches import EXTRA_IMAGES, IMAGE, get_batch_size, select_images
from keras_tkd.distillation.validation import check_given_outputs

__all__ = ["ForwardPass", "add_outputs", "build_outputs", "compute_agreement", "run_student", "select_predictions"]


class ForwardPass(typing.NamedTuple):
    """One batch, and the outputs of the models for it.

    Under a strategy with several replicas, all but the images is of the whole batch, and alike on all replicas, where
    a model gathers globally; else all is of the replica's share, and of a row of zeros where that has no image.

    Attributes:
        x, y, sample_weight: as `fit` takes them.
        batch: `x` as a batch (`batches.make_batch`), and under `"teacher"` or `"anchor"` the outputs of a model that
            does not learn.
        y_pred: what the student returns for the batch's images.
        share: `(y, y_pred, sample_weight)` of the images that this replica has.
        count: number of images that the losses are of, a scalar tensor.
        teacher, student: outputs by name, as `DistillationLoss.inputs` takes them.
        pairs: `(y_true, y_pred)` of each distillation loss.
        training: whether the pass belongs to a training step.
    """

    x: typing.Any
    y: typing.Any
    sample_weight: typing.Any
    batch: dict
    y_pred: typing.Any
    share: tuple
    count: tf.Tensor
    teacher: dict[str, tf.Tensor]
    student: dict
    pairs: list[tuple]
    training: bool

    @property
    def image_weight(self):
        """The weights of the images: of a weight for each output, that of the logits."""
        weight = self.sample_weight
        return weight.get("logits") if isinstance(weight, dict) else weight


def build_outputs(reader, shapes: dict) -> dict[str, tuple]:
    """Returns the shapes of a model's outputs by name: those that batches bring, or its own, for which it is built.

    Args:
        reader: `TeacherReader` of the model.
        shapes: shapes of a batch.
    """
    if reader.role not in shapes:
        return reader.build(select_images(reader.role, shapes))
    given = shapes[reader.role]
    check_given_outputs(reader, given)
    return {name: tuple(shape) for name, shape in given.items()}


def add_outputs(batch: dict, readers: list) -> dict:
    """Returns a batch with the outputs of models that do not learn: where the data bring none, they are computed.

    Args:
        batch: see `batches.make_batch`.
        readers: list of the models' `TeacherReader`s.
    """
    # Called before the step's tape is open, which then holds nothing of these models.
    for reader in readers:
        if reader.role in batch:
            check_given_outputs(reader, batch[reader.role])
        else:
            _, outputs = reader(select_images(reader.role, batch), training=False)
            batch = batch | {reader.role: keras.tree.map_structure(tf.stop_gradient, outputs)}
    return batch


def run_student(read_student, batch: dict, training: bool):
    """Runs a student once over the images of a batch and its extra images, `"negative"` for example.

    All of them pass through the student together: BatchNorm's statistics are those of all, and its moving averages see
    all. That is what one forward pass costs.

    Args:
        read_student: `LayerOutputs` of the student.
        batch: dict with `"image"`, and extra images of the same number.
        training: whether layers are in training mode.

    Returns:
        `(y_pred, outputs)`: what the student returns for the images, and its outputs by name. `outputs` has a dict of
        the same names for each kind of extra images, under its key in the batch.
    """
    roles = [role for role in EXTRA_IMAGES if role in batch]
    sets = [batch[IMAGE], *(batch[role] for role in roles)]
    images = keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *sets) if roles else sets[0]
    y_pred, outputs = read_student(images, training=training)
    count = get_batch_size(batch)

    def part(nest, i):
        return keras.tree.map_structure(lambda x: x[i * count : (i + 1) * count], nest) if roles else nest

    return part(y_pred, 0), part(outputs, 0) | {role: part(outputs, i) for i, role in enumerate(roles, 1)}


def select_predictions(y, y_pred):
    """Selects what labels are compared with: the logits of a dict of outputs, unless the labels are a dict as well."""
    return y_pred["logits"] if isinstance(y_pred, dict) and not isinstance(y, dict) else y_pred


def compute_agreement(first, second):
    """Computes the share, 0..1, of the entries in which two tensors of class ids, or of yes and no, are equal."""
    return tf.reduce_mean(tf.cast(tf.equal(tf.cast(first, tf.int64), second), tf.float32))
