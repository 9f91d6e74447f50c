"""The devices of a run, and the precision that they are fast in."""

import dataclasses
import pathlib

import tensorflow as tf

__all__ = ["choose_precision", "resolve_precision", "start_devices"]

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


def resolve_precision(config):
    """Returns the configuration with a precision in place of `"auto"`, which is printed with the reason."""
    if config.precision != "auto":
        return config
    cpuinfo = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    precision, reason = choose_precision(tf.config.list_physical_devices("GPU"), cpuinfo)
    print(f"Precision: {precision}, {reason}", flush=True)
    return dataclasses.replace(config, precision=precision)


def choose_precision(gpus, cpuinfo):
    """Chooses a precision that the machine is fast in, and says why: `(precision, reason)`.

    It goes by what the hardware says of itself, never by timing, so that a machine always chooses alike.

    Args:
        gpus: the GPUs that TensorFlow sees.
        cpuinfo: text of `/proc/cpuinfo`; empty where there is none.
    """
    # GPUs first: then the processor only feeds them.
    if gpus:
        return "mixed_float16", f"for the GPU ({len(gpus)} found)"
    # Without such units bfloat16 is emulated, slower than float32.
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = {flag for name, _, values in lines if name.strip() == "flags" for flag in values.split()}
    found = [flag for flag in _BFLOAT16_FLAGS if flag in flags]
    if found:
        return "mixed_bfloat16", f"which this processor has in hardware ({', '.join(found)})"
    return "float32", f"for there is no GPU, and no flag {' or '.join(_BFLOAT16_FLAGS)} of the processor"


def start_devices():
    """Lets TensorFlow find its devices now; what it prints of that then comes at a time of the caller's choosing."""
    tf.config.list_logical_devices()
