"""The application: one run in one folder, from a configuration to `results.json`."""

from keras_tkd.runs.commands import distill, evaluate, export, train_teacher
from keras_tkd.runs.reporting import write_report
from keras_tkd.runs.sweep import compare
from keras_tkd.runs.tuning import tune

__all__ = ["compare", "distill", "evaluate", "export", "train_teacher", "tune", "write_report"]
