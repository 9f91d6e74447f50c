"""Settings of the measurement of a saved model."""

import dataclasses

from keras_tkd.config.fields import check, option
from keras_tkd.config.teachers import PretrainedTeachersConfig

__all__ = ["EvaluateConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(PretrainedTeachersConfig):
    """One run of `evaluate`: a saved model, and its teacher if it is to be compared."""

    model_path: str | None = option(None, "Keras model file to measure.", decides="measurement", names_file=True)

    @property
    def has_teacher(self):
        """True if the model is measured beside its teacher."""
        return bool(self.teacher_path)

    def _check_rules(self):
        super()._check_rules()
        check(self.model_path, "`model_path` is needed, a .keras file", self, "model_path")
