"""Several devices or machines that share each batch, by `tf.distribute`."""

from keras_tkd.distribution.strategies import STRATEGIES, make_strategy, scope

__all__ = ["STRATEGIES", "make_strategy", "scope"]
