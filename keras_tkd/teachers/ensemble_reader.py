"""Reads the teachers of an ensemble, and evaluates the losses on each of them where losses are what is averaged."""

from keras_tkd.losses.base import collect_layer_names
from keras_tkd.teachers.averaged_loss import AveragedLoss
from keras_tkd.teachers.ensemble import TeacherEnsemble, check_classes
from keras_tkd.teachers.reader import TeacherReader, check_given_outputs, key


class EnsembleReader:
    """A `TeacherReader` of an ensemble, each of whose teachers runs once.

    It gives the ensemble's `"logits"`, and where losses are averaged also the outputs of each teacher, under
    `"teacher_1/logits"` and so on.
    """

    role = "teacher"

    def __init__(self, ensemble, losses):
        layers = collect_layer_names(losses, "teacher_layers")
        if layers and ensemble.average != "losses":
            raise ValueError(
                f"`average={ensemble.average!r}` makes one output of several teachers, which has no layers. Received: "
                f"losses that read the teacher's layers {sorted(set(layers))}. Take `average='losses'`"
            )
        self.ensemble = ensemble
        self.teachers = list(ensemble.teachers)
        self._apart = ensemble.average == "losses"
        self.losses = [AveragedLoss(loss, ensemble) for loss in losses] if self._apart else list(losses)
        self._readers = [TeacherReader(teacher, losses) for teacher in self.teachers]

    def build(self, shape):
        shapes = [reader.build(shape) for reader in self._readers]
        logits = [outputs["logits"] for outputs in shapes]
        check_classes(logits)
        self.ensemble.built = True
        return {"logits": logits[0]} | self._of_each(shapes)

    def check_given(self, outputs):
        check_given_outputs("teacher", outputs, self.losses)

    def __call__(self, images, training=False):
        outputs = [reader(images, training=training)[1] for reader in self._readers]
        logits = self.ensemble.combine([of_teacher["logits"] for of_teacher in outputs])
        return logits, {"logits": logits} | self._of_each(outputs)

    def _of_each(self, outputs):
        """The dicts of all teachers in one, where they are kept apart."""
        if not self._apart:
            return {}
        return {key(k, name): value for k, each in enumerate(outputs) for name, value in each.items()}


def make_teacher_reader(teacher, losses):
    """The reader of a `Distiller`'s teacher, one model or a `TeacherEnsemble`, for its losses."""
    return (EnsembleReader if isinstance(teacher, TeacherEnsemble) else TeacherReader)(teacher, losses)
