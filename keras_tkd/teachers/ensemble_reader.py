"""Reads the teachers of an ensemble."""

from keras_tkd.teachers.ensemble import TeacherEnsemble, check_classes
from keras_tkd.teachers.reader import TeacherReader, output_key

__all__ = ["EnsembleReader", "make_teacher_reader"]


class EnsembleReader:
    """A `TeacherReader` of an ensemble, each of whose teachers runs once.

    It gives the ensemble's `"logits"`, and where losses are averaged also the outputs of each teacher, under
    `"teacher_1/logits"` and so on.

    Args:
        ensemble: `TeacherEnsemble`.
        names: names of the outputs that are asked for of each teacher.

    Raises:
        ValueError: names of layers, of an ensemble that has one output.
    """

    role = "teacher"

    def __init__(self, ensemble, names=()):
        layers = sorted(set(names) - {"logits"})
        self._separate = ensemble.average == "losses"
        if layers and not self._separate:
            raise ValueError(
                f"`average={ensemble.average!r}` makes one output of several teachers, which has no layers. Received: "
                f"losses that read the teacher's layers {layers}. Take `average='losses'`"
            )
        self.ensemble = ensemble
        self.teachers = list(ensemble.teachers)
        self.names = list(names)
        if self._separate:
            self.names = [output_key(k, name) for k in range(len(self.teachers)) for name in names]
        self._readers = [TeacherReader(teacher, names) for teacher in self.teachers]

    def build(self, shape) -> dict[str, tuple]:
        """Builds the teachers on images of `shape`; returns the shapes of all outputs by name.

        Raises:
            ValueError: as `TeacherReader.build`; teachers of different classes.
        """
        shapes = [reader.build(shape) for reader in self._readers]
        logits = [outputs["logits"] for outputs in shapes]
        check_classes(logits)
        self.ensemble.built = True
        return {"logits": logits[0]} | self._merge(shapes)

    def __call__(self, images, training=False):
        outputs = [reader(images, training=training)[1] for reader in self._readers]
        logits = self.ensemble.combine([of_teacher["logits"] for of_teacher in outputs])
        return logits, {"logits": logits} | self._merge(outputs)

    def _merge(self, outputs):
        """Merges the dicts of all teachers into one, if their outputs are kept apart."""
        if not self._separate:
            return {}
        return {output_key(k, name): value for k, each in enumerate(outputs) for name, value in each.items()}


def make_teacher_reader(teacher, names=()):
    """Makes the reader of a teacher, which is one model, a `TeacherEnsemble`, or None; see `TeacherReader`."""
    return (EnsembleReader if isinstance(teacher, TeacherEnsemble) else TeacherReader)(teacher, names)
