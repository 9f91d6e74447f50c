"""Knowledge distillation of image classifiers with Keras 3 on TensorFlow.

The names below are resolved when they are first used (PEP 562), so that importing the package, as `--help` does,
costs no import of TensorFlow.
"""

import os
import sys

from keras_tkd.utils.lazy_exports import make_lazy_exports

__version__ = "0.1.0"

_EXPORTS = {
    "Distiller": "keras_tkd.distillation.distiller",
    "METHODS": "keras_tkd.methods",
    "TeacherCache": "keras_tkd.teacher_cache",
    "TeacherEnsemble": "keras_tkd.teachers.ensemble",
    "TriKD": "keras_tkd.distillation.trikd",
}
_MODULES = (
    "callbacks",
    "data",
    "distribution",
    "evaluation",
    "export",
    "losses",
    "methods",
    "metrics",
    "miners",
    "models",
    "teachers",
    "runs",
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


# While this package is imported: another backend would fail later, in the middle of a training.
_require_tensorflow_backend()

__getattr__, __dir__ = make_lazy_exports(__name__, {**_EXPORTS, **{name: f"{__name__}.{name}" for name in _MODULES}})
