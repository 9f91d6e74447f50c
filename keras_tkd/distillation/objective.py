"""Objectives: the weighted terms that a model minimises."""

import tensorflow as tf

__all__ = ["Objective", "collect_values", "sum_regularization"]


class Objective:
    """A model that learns: its optimizer, its variables, and the weighted terms that it minimises.

        total = sum_k weight_k * value_k

    Args:
        name: name of the total as a metric.
        optimizer: `keras.optimizers.Optimizer` that moves the variables.
        variables: list of variables.
        terms: `(weight, value)` of each term by name, numbers or scalar tensors.

    Attributes:
        total: scalar tensor.
    """

    def __init__(self, name: str, optimizer, variables: list, terms: dict[str, tuple]):
        self.name = name
        self.optimizer = optimizer
        self.variables = variables
        self.terms = terms
        # Here, not when it is first asked for: the tape must see the sum, and the graph hold it once.
        self.total = tf.add_n([weight * value for weight, value in terms.values()])


def collect_values(objectives: list[Objective]) -> dict[str, tf.Tensor]:
    """Returns the values of all terms of several objectives by name, before their weights."""
    return {name: value for objective in objectives for name, (_, value) in objective.terms.items()}


def sum_regularization(losses):
    """Returns the sum of regularization losses, float32: those of models of mixed precision may differ in dtype."""
    return tf.add_n([tf.cast(loss, tf.float32) for loss in losses])
