"""The teacher cache that several runs of one folder share."""

import pathlib

from keras_tkd.losses.outputs import collect_outputs
from keras_tkd.runs.cached_teacher import resolve_teacher_cache
from keras_tkd.runs.devices import resolve_precision

__all__ = ["choose_shared_cache"]

_CACHES = "teacher_cache"


def choose_shared_cache(config, folder, inputs):
    """Returns the folder of the teacher cache that runs of a method share, or `"off"`.

    Args:
        config: resolved `DistillConfig` of one of the runs.
        folder: the folder that holds them all.
        inputs: the run's `Inputs`.

    Raises:
        ValueError, OSError: as `resolve_teacher_cache`.
    """
    # Each run chooses its precision where it runs, here as there; a cache holds outputs in that precision.
    decided = resolve_teacher_cache(resolve_precision(config), folder, inputs)
    if not decided.keeps_outputs:
        return decided.teacher_cache
    # What a cache holds is the outputs that losses read: methods which read the same share one.
    layers = collect_outputs(inputs.make_losses(config)[0], "teacher_layers")
    root = pathlib.Path(decided.named_cache or folder / _CACHES)
    return str(root / "+".join(layers).replace("/", "_"))
