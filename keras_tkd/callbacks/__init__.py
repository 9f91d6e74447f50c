"""Callbacks for any `fit`: they back a training up, end one that cannot succeed, and warm up a distillation."""

from keras_tkd.callbacks.backup import BackupState
from keras_tkd.callbacks.termination import TerminateOnNonFinite
from keras_tkd.callbacks.warm_up import WarmUp

__all__ = ["BackupState", "TerminateOnNonFinite", "WarmUp"]
