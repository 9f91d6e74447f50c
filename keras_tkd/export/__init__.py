"""Trained models as files for devices: written, opened in the runtime that each is for, and measured there.

The names are imported when they are first used.
"""

from keras_tkd.utils.lazy_exports import make_lazy_exports

_MODULES = {
    "keras_tkd.export.formats": ("FORMATS", "Exported", "export_model", "open_model"),
    "keras_tkd.export.measurement": ("Latency", "Measurement", "measure"),
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = make_lazy_exports(__name__, _EXPORTS)
