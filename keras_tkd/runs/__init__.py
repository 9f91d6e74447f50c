"""The application: one run in one folder, from a configuration to `results.json`."""

from keras_tkd.runs.commands import distill, evaluate, export, train_teacher

__all__ = ["distill", "evaluate", "export", "train_teacher"]
