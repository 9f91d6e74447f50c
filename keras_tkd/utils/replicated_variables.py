"""Values of variables of which every replica of a `tf.distribute.Strategy` has its own.

Such are the sums of metrics and the moving averages of BatchNorm, to which each replica adds what it sees of a batch.
What Keras reads of them outside of a step, to save or to show, is one replica's.
"""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["AverageStatistics", "read_variable"]


def read_variable(variable) -> np.ndarray:
    """Returns the value of a `keras.Variable`; of a metric's, the sum over all replicas.

    Where these are in several processes, all must read, and read the same variables in the same order.
    """
    return variable.value.read_value().numpy()


class AverageStatistics(keras.callbacks.Callback):
    """Gives all replicas the mean of their moving averages, before a model is measured.

    A moving average is linear in what goes into it: the mean is the same, however often it is taken.

    Args:
        layers: the models and other layers that are trained, made inside the scope of the strategy.
        strategy: the `tf.distribute.Strategy`.
    """

    def __init__(self, layers, strategy):
        super().__init__()
        self._layers, self._strategy = list(layers), strategy

    def average(self):
        """Takes the mean now; all replicas must, at the same step."""
        for layer in self._layers:
            # What says how it is put together, as a memory bank does, is not each replica's own.
            moving = [
                variable
                for variable in layer.non_trainable_variables
                if variable.dtype.startswith("float") and variable.aggregation == "none"
            ]
            for variable, each in zip(moving, self._strategy.run(_read_own, args=(moving,)), strict=True):
                variable.assign(self._strategy.reduce("MEAN", each, axis=None))

    def on_test_begin(self, logs=None):
        self.average()


def _read_own(variables):
    return [tf.identity(variable.value) for variable in variables]
