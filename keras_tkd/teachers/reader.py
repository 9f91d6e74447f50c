"""Reads a teacher: the outputs that the losses ask for, out of one forward pass over images in the size it takes."""

from keras_tkd.losses.base import as_list, collect_layer_names
from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs, output_shapes


class TeacherReader:
    """What the `Distiller` knows of its teacher.

    Args:
        teacher: `keras.Model` that returns logits; None where batches bring its outputs, and nothing is read.
        losses: list of `DistillationLoss`, which say what is read.
        role: `"teacher"`, or another whose outputs are used like a teacher's (`"anchor"`): the entry of a batch that
            brings them, and the word in errors.

    Call: `reader(images, training=False)` gives `(output, {"logits": tensor, name: tensor, ...})`, as `LayerOutputs`
    does; images of another height or width than the teacher takes are resized.

    Attributes:
        role: as given.
        teachers: list of the models that run.
        losses: the losses as they are to be evaluated on what the reader gives.
    """

    def __init__(self, teacher, losses, role="teacher"):
        self.role = role
        self.teachers = [] if teacher is None else [teacher]
        self.losses = list(losses)
        self._outputs = LayerOutputs(teacher, collect_layer_names(losses, "teacher_layers"))

    def build(self, shape):
        """Builds the teacher on images of `shape`; returns the shapes of its outputs by name.

        Raises:
            ValueError: the teacher does not take such images; a layer that it does not have; no teacher.
        """
        teacher = self._only()
        size = resizing.other_size(teacher, shape)
        if size:
            shape = (shape[0], *size, shape[-1])
        check_input_shape(self.role, teacher, shape)
        return output_shapes(teacher, self._outputs.names, shape)

    def check_given(self, outputs):
        """Raises `ValueError` if the outputs that a batch brings are not those that the losses read."""
        check_given_outputs(self.role, outputs, self.losses)
        if self.role == "teacher" and key(0, "logits") in outputs:
            raise ValueError(
                'The batch\'s "teacher" holds the outputs of several teachers, whose losses are to be averaged: give '
                f"the Distiller their TeacherEnsemble as its teacher. Received: {sorted(outputs)}"
            )

    def __call__(self, images, training=False):
        return self._outputs(resizing.resized(self._only(), images), training=training)

    def _only(self):
        if not self.teachers:
            raise ValueError(
                'Without a teacher, batches must bring its outputs: ({"image", "teacher": {"logits", ...}}, label), '
                'for example `TeacherCache.attach(dataset)`. Received: teacher=None and a batch without "teacher"'
            )
        return self.teachers[0]


def key(k, name):
    """Where an output of the teacher at position `k` stands among those of several."""
    return f"teacher_{k + 1}/{name}"


def check_input_shape(role, model, shape):
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
            + (', or train on batches that hold a "teacher_image"' if role == "teacher" else "")
        )


def check_given_outputs(role, outputs, losses):
    """Raises `ValueError` if what a batch holds under a role (`"teacher"`) is not what the losses read."""
    names = {name for loss in losses for name in as_list(loss.teacher_layers or "logits")}
    if names - set(outputs):
        raise ValueError(
            f'A batch\'s "{role}" must hold the outputs that the losses read. '
            f"Received: {sorted(outputs)}, without {sorted(names - set(outputs))}"
        )
