"""What a run is: frozen dataclasses, validated where they are made. No Keras here."""

from keras_tkd.config.data import DATA as DATA
from keras_tkd.config.data import DataConfig as DataConfig
from keras_tkd.config.distillation import DistillConfig as DistillConfig
from keras_tkd.config.evaluation import EvaluateConfig as EvaluateConfig
from keras_tkd.config.fields import default as default
from keras_tkd.config.teachers import PretrainedTeachersConfig as PretrainedTeachersConfig
from keras_tkd.config.training import RunConfig as RunConfig
from keras_tkd.config.training import TeacherTrainingConfig as TeacherTrainingConfig
