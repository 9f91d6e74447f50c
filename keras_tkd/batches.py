"""What a batch is: the form of its inputs, its size, its labels."""

import keras
import tensorflow as tf

# Further images of a batch that the student sees beside `"image"`.
EXTRA_IMAGES = ("positive", "negative", "partner")


def is_batch(x):
    """Whether `x` is a batch in this package's form; any other input goes to the models untouched."""
    return isinstance(x, dict) and "image" in x


def as_batch(x):
    return x if is_batch(x) else {"image": x}


def images_of(role, batch):
    """What the model in a role sees: the images, or for a privileged teacher those of its own."""
    return batch.get("teacher_image", batch["image"]) if role == "teacher" else batch["image"]


def batch_size(batch):
    return tf.shape(keras.tree.flatten(batch["image"])[0])[0]


def class_ids(y):
    """`(batch,)` class ids out of class ids or one-hot rows; None where `y` is neither."""
    if y is None or keras.tree.is_nested(y):
        return None
    if len(y.shape) >= 2 and y.shape[-1] != 1:
        return tf.argmax(y, axis=-1)
    return tf.reshape(y, [-1])
