"""Rows that workers computed by themselves, outside of a training step, put together for all of them."""

import numpy as np
import tensorflow as tf

__all__ = ["RowGatherer"]

# Collective operations take no others.
_SENT = [np.dtype(name) for name in ("float16", "float32", "float64", "int32", "int64")]


class RowGatherer:
    """Gathers the rows of all workers of a `tf.distribute.MultiWorkerMirroredStrategy`, each of one device.

    Args:
        strategy: the strategy.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        # One for each kind of rows: `strategy.gather` makes a graph anew in each call, which takes a third of a second.
        self._functions = {}

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows of all workers, in the workers' order, on each of them; waits for all.

        Args:
            rows: `(rows of this worker, ...)`, of whole numbers or floats of up to 64 bits; a worker may have none, but
                not all.

        Raises:
            ValueError: rows of another kind.
        """
        sent = rows.astype(_choose_dtype(rows.dtype), copy=False)
        key = sent.dtype, sent.shape[1:]
        if key not in self._functions:
            self._functions[key] = self._make_function(*key)
        return self._functions[key](tf.constant(sent)).numpy().astype(rows.dtype, copy=False)

    def _make_function(self, dtype, row_shape):
        device = self._strategy.extended.worker_devices[0]

        def gather(rows):
            # Workers must know from where to send it.
            with tf.device(device):
                return tf.distribute.get_replica_context().all_gather(tf.identity(rows), axis=0)

        @tf.function(input_signature=[tf.TensorSpec((None, *row_shape), dtype)], autograph=False)
        def run(rows):
            return self._strategy.run(gather, args=(rows,))

        return run


def _choose_dtype(dtype):
    """Returns the dtype as which rows are sent, which gives every number back."""
    if dtype in _SENT:
        return dtype
    if dtype.kind not in "biu":
        raise ValueError(f"Rows must be whole numbers or floats of up to 64 bits. Received: dtype={dtype}. Cast them")
    # Beyond int64, uint64 becomes negative, and is itself again where it is cast back.
    return np.dtype(np.int32 if dtype.itemsize < 4 else np.int64)
