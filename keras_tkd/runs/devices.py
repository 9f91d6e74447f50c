"""The devices of a run, and the precision that they are fast in."""

import dataclasses
import pathlib

import tensorflow as tf

__all__ = ["choose_precision", "resolve_precision", "start_devices"]

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
# Threads in each of TensorFlow's pools where a run is deterministic. Operations cut their sums by it, and so it is a
# constant, whatever the machine.
_POOL_SIZE = 4


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


def start_devices(deterministic=False):
    """Lets TensorFlow find its devices now; what it prints of that then comes at a time of the caller's choosing.

    Not in a worker, which joins the others before.

    Args:
        deterministic: whether TensorFlow computes the same bytes whatever the number of cores, from now on and until
            this process ends.

    Raises:
        ValueError: `deterministic`, and TensorFlow runs already, with thread pools of other sizes.
    """
    if deterministic:
        _fix_computation()
    tf.config.list_logical_devices()


def _fix_computation():
    threading = tf.config.threading
    try:
        threading.set_intra_op_parallelism_threads(_POOL_SIZE)
        threading.set_inter_op_parallelism_threads(_POOL_SIZE)
    except RuntimeError as error:
        # TensorFlow makes its pools when it first runs something, and never again.
        sizes = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
        raise ValueError(
            f"`deterministic` fixes TensorFlow's thread pools at {_POOL_SIZE} threads, before anything runs in a "
            f"process. Received: deterministic=True, and TensorFlow runs already, with pools of {sizes[0]} (intra-op) "
            f"and {sizes[1]} (inter-op) threads, where 0 is its own choice. Begin the run in a new process, "
            "before anything else is computed there, or by the script"
        ) from error
    tf.config.experimental.enable_op_determinism()
