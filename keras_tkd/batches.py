"""The keys of a batch, and what is read from it: its images, its size, its labels.

A batch is what `fit` takes as `x`: images alone, or a dict with them under `"image"`.

    key                      written by                                read by
    image                    every pipeline of `data`                  every model
    negative, positive       `data.triplet_dataset`                    the student, for losses of triplets
    partner, same            `data.pair_dataset`                       the student, and losses of pairs
    index                    `data.triplet_dataset`, `pair_dataset`    losses that keep something of each sample;
                                                                       `TeacherCache`
    view                     `data`, where images are augmented        `TeacherCache`
    mixed_view               `data`, where images are mixed            `TeacherCache`
    teacher_image            `data`, for privileged teachers           the teacher, in place of `image`
    teacher                  `TeacherCache.attach`                     losses, in place of the teacher's outputs
    anchor                   `TeacherCache.attach`                     `TriKD`, in place of the anchor's outputs

`data`, `losses` and `teacher_cache` stand below, and write and read the keys as this table names them; tests hold them
together.
"""

import difflib

import keras
import tensorflow as tf

__all__ = [
    "ANCHOR",
    "EXTRA_IMAGES",
    "IMAGE",
    "INDEX",
    "KEYS",
    "MIXED_VIEW",
    "NEGATIVE",
    "PARTNER",
    "POSITIVE",
    "SAME",
    "TEACHER",
    "TEACHER_IMAGE",
    "VIEW",
    "get_batch_size",
    "get_class_ids",
    "make_batch",
    "select_images",
]

IMAGE = "image"
NEGATIVE = "negative"
POSITIVE = "positive"
PARTNER = "partner"
SAME = "same"
INDEX = "index"
VIEW = "view"
MIXED_VIEW = "mixed_view"
TEACHER_IMAGE = "teacher_image"
TEACHER = "teacher"
ANCHOR = "anchor"
KEYS = (IMAGE, NEGATIVE, POSITIVE, PARTNER, SAME, INDEX, VIEW, MIXED_VIEW, TEACHER_IMAGE, TEACHER, ANCHOR)

# Images that the student sees beside `"image"`, in the order in which they pass through it. The order is a part of
# every result: dropout draws for the images in the order in which they come.
EXTRA_IMAGES = (POSITIVE, NEGATIVE, PARTNER)


def make_batch(x, input_names: tuple[str, ...] = ()) -> dict:
    """Makes a batch of what `fit`, `evaluate` or `predict` gets, or of the shapes of it.

    A dict with `"image"` is a batch already, unless it is the model's own dict of inputs, one of which is called
    `"image"`. That dict, and whatever else is no batch, goes to the models as it is, under `"image"`. What lies between
    the two is refused: keys that a model does not take are dropped by Keras.

    Args:
        x: inputs, or their shapes.
        input_names: names of the student's inputs where it takes several; empty where it takes one, or where they are
            not known.

    Returns:
        A dict whose keys are among `KEYS`.

    Raises:
        ValueError: a dict with `"image"` and a key that no batch has, or `"same"` without `"partner"`; one without
            `"image"`, but with a key of a batch, or nearly one, or with inputs of the student and other keys.
    """
    # Compared as a whole: {"image", "negative"} are the inputs of a model only if it has inputs of both names.
    if not isinstance(x, dict) or set(x) == set(input_names):
        return {IMAGE: x}
    if IMAGE not in x:
        _check_inputs(x, input_names)
        return {IMAGE: x}
    for role in (IMAGE, *EXTRA_IMAGES):
        if isinstance(x.get(role), dict):
            _check_inputs(x[role], input_names, role)
    unknown = [key for key in x if key not in KEYS]
    if unknown:
        nearest = difflib.get_close_matches(str(unknown[0]), KEYS, n=1, cutoff=0.5)
        meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
        inputs = f", such as {sorted(input_names)} of this student," if input_names else ""
        raise ValueError(
            f'A dict with "image" is a batch, whose other keys are {", ".join(KEYS[1:])}. Received: {unknown}.{meant} '
            f'The inputs of a model that takes a dict{inputs} go together under "image": {{"image": inputs}}'
        )
    if SAME in x and PARTNER not in x:
        raise ValueError(
            'The entry "same" of a batch says which partners are of the image\'s class. Received: a batch with "same" '
            'and without "partner". Add the partners, or leave it out'
        )
    return x


def _check_inputs(x, input_names, role=None):
    """Raises `ValueError` for a dict that is to be the inputs of a student, and is neither these nor a batch.

    Args:
        x: the dict.
        input_names: see `make_batch`.
        role: the key of a batch under which `x` stands; None where it is all that `fit` was given.
    """
    others = [key for key in x if key not in input_names]
    if len(others) < len(x) and others:
        where = f' under "{role}"' if role else ""
        raise ValueError(
            f"A dict of inputs{where} must have those of the student alone: {sorted(input_names)}. Received: also "
            f'{others}. The entries of a batch stand beside "image": {{"image": inputs, "negative": inputs}}'
        )
    # A model without a graph does not say its inputs: whatever could not be meant as a batch is its own.
    if role is None and any(difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0.8) for key in others):
        nearest = difflib.get_close_matches(IMAGE, [str(key) for key in others if key not in KEYS], n=1, cutoff=0.5)
        meant = f" Did you mean {IMAGE!r} by {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f'A dict with keys of a batch must have "image". Received: {sorted(map(str, x))}.{meant} The inputs of a '
            'model that takes such a dict go together under "image": {"image": inputs}'
        )


def select_images(role: str, batch: dict):
    """Selects what the model in a role sees: the images, or for a privileged teacher those of its own."""
    return batch.get(TEACHER_IMAGE, batch[IMAGE]) if role == TEACHER else batch[IMAGE]


def get_batch_size(batch: dict[str, tf.Tensor]):
    """Returns the number of samples in a batch, a scalar tensor."""
    return tf.shape(keras.tree.flatten(batch[IMAGE])[0])[0]


def get_class_ids(y):
    """Returns the `(batch,)` class ids in class ids or one-hot rows; None where `y` is neither.

    Labels of a model that returns a dict may be a dict too: the class is that of its `"logits"`.
    """
    if isinstance(y, dict):
        y = y.get("logits")
    if y is None or keras.tree.is_nested(y):
        return None
    if y.dtype == tf.string:
        raise ValueError(
            "Labels must be class ids, whole numbers. Received: strings. Names become ids by "
            "`class_names, labels = numpy.unique(labels, return_inverse=True)`"
        )
    if y.dtype == tf.bool:
        y = tf.cast(y, tf.int32)
    # `(batch, 1)`, as Keras makes labels of `(batch,)`, are class ids and no rows of one class.
    if len(y.shape) >= 2 and y.shape[-1] != 1:
        return tf.argmax(y, axis=-1)
    return tf.reshape(y, [-1])
