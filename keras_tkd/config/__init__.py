"""Configurations of runs: frozen dataclasses, validated where they are made. No Keras here."""

from keras_tkd.config.data import DataConfig
from keras_tkd.config.distillation import DistillConfig
from keras_tkd.config.evaluation import EvaluateConfig
from keras_tkd.config.export import ExportConfig
from keras_tkd.config.fields import get_default
from keras_tkd.config.teachers import PretrainedTeachersConfig
from keras_tkd.config.training import RunConfig, TeacherTrainingConfig

__all__ = [
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "PretrainedTeachersConfig",
    "RunConfig",
    "TeacherTrainingConfig",
    "get_default",
]
