"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib

__all__ = ["make_lazy_exports"]


def make_lazy_exports(package, modules):
    """Makes `__getattr__` and `__dir__` of a package whose names live in modules that are costly to import.

    Args:
        package: the package's `__name__`.
        modules: dict from each name to the module that defines it, or, for the name of a module of the package, to that
            module.

    Returns:
        `(__getattr__, __dir__)`, to be assigned in the package's `__init__`.

    Example:

    ```python
    __getattr__, __dir__ = make_lazy_exports(__name__, {"Distiller": "keras_tkd.distillation.distiller"})
    ```
    """

    def get(name):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        return module if modules[name] == f"{package}.{name}" else getattr(module, name)

    return get, lambda: sorted(modules)
