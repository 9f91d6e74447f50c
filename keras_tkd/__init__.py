"""Knowledge distillation of image classifiers with Keras 3 on TensorFlow.

The names below are resolved when they are first used (PEP 562), so that importing the package, as `--help` does,
costs no import of TensorFlow.
"""

import importlib
import os
import sys

__version__ = "0.1.0"

_EXPORTS = {
    "Distiller": "keras_tkd.distiller",
    "METHODS": "keras_tkd.methods",
    "TeacherCache": "keras_tkd.teacher_cache",
    "TeacherEnsemble": "keras_tkd.ensemble",
    "TriKD": "keras_tkd.trikd",
}
_MODULES = (
    "callbacks",
    "combination",
    "data",
    "evaluation",
    "losses",
    "methods",
    "metrics",
    "miners",
    "models",
    "teachers",
    "training",
    "verification",
)

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def _require_tensorflow_backend():
    keras = sys.modules.get("keras")
    backend = keras.backend.backend() if keras else os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ImportError(
            f"keras_tkd runs on Keras's TensorFlow backend. Received: backend={backend!r}. "
            "Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )


_require_tensorflow_backend()


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"keras_tkd.{name}")
    raise AttributeError(f"module 'keras_tkd' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
