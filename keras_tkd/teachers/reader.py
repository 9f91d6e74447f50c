"""Reads a teacher: the outputs that the losses ask for, out of one forward pass over images in the size it takes."""

from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs, compute_output_shapes

__all__ = ["TeacherReader", "output_key"]


class TeacherReader:
    """Runs a teacher for a `Distiller` or a `TeacherCache`, and returns the outputs that are asked for.

    Args:
        teacher: `keras.Model` that returns logits; None where batches bring its outputs, and nothing is read.
        names: names of the outputs that are asked for, of layers or `"logits"`; the logits are read in any case.
        role: `"teacher"`, or another whose outputs are used like a teacher's (`"anchor"`): the key of a batch that
            brings them, and the word in errors.

    Call: `reader(images, training=False)` gives `(output, {"logits": tensor, name: tensor, ...})`, as `LayerOutputs`
    does; images of another height or width than the teacher takes are resized.

    Attributes:
        role, names: as given.
        teachers: list of the models that run.
    """

    def __init__(self, teacher, names=(), role="teacher"):
        self.role = role
        self.names = list(names)
        self.teachers = [] if teacher is None else [teacher]
        self._outputs = LayerOutputs(teacher, names, role)

    def build(self, shape) -> dict[str, tuple]:
        """Builds the teacher on images of `shape`; returns the shapes of its outputs by name.

        Raises:
            ValueError: the teacher does not take such images; a layer that it does not have; no teacher.
        """
        teacher = self._get_teacher()
        size = resizing.find_model_size(teacher, shape)
        # Its images are resized for it, so it is built for its own size.
        if size:
            shape = (shape[0], *size, shape[-1])
        _check_input_shape(self.role, teacher, shape)
        return compute_output_shapes(teacher, self._outputs.names, shape, self.role)

    def __call__(self, images, training=False):
        return self._outputs(resizing.resize_for_model(self._get_teacher(), images), training=training)

    def _get_teacher(self):
        if not self.teachers:
            raise ValueError(
                'Without a teacher, batches must bring its outputs: ({"image", "teacher": {"logits", ...}}, label), '
                'for example `TeacherCache.attach(dataset)`. Received: teacher=None and a batch without "teacher"'
            )
        return self.teachers[0]


def output_key(k: int, name: str) -> str:
    """Returns the key of an output of the teacher at position `k` among the outputs of several."""
    return f"teacher_{k + 1}/{name}"


def _check_input_shape(role, model, shape):
    """Raises `ValueError` if the teacher (or anchor) does not take the images that the student takes."""
    expected = getattr(model, "input_shape", None) if model.built else None
    single = isinstance(expected, tuple) and isinstance(shape, (tuple, list))
    if single and (
        len(expected) != len(shape)
        or any(a != b for a, b in zip(expected[1:], shape[1:], strict=True) if a is not None and b is not None)
    ):
        raise ValueError(
            f"The {role} must take the inputs that the student takes. Received: {role} input shape {expected}, "
            f"student input shape {tuple(shape)}. Put the {role} behind layers that convert the image"
        )
