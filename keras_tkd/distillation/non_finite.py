"""Losses that are not finite: such a step updates nothing, and the first one is noted."""

import keras
import tensorflow as tf

from keras_tkd.callbacks import TerminateOnNonFinite
from keras_tkd.distillation.objective import Objective, collect_values

__all__ = ["NonFiniteGuard", "add_termination"]


class NonFiniteGuard:
    """Applies gradients where every loss is finite; otherwise notes the step and the loss, and applies nothing.

    The note stays on the device until `first` reads it, so that no step waits for another.
    """

    def __init__(self):
        # The step, and the position of the loss among all; -1 while there is none.
        self._note = tf.Variable([-1, -1], dtype="int64", trainable=False, name="first_non_finite")
        self._names = []

    def apply_if_finite(self, step, objectives: list[Objective], gradients: list[list]):
        """Applies the gradients of all objectives, or of none.

        Args:
            step: number of the step, int64.
            objectives: list of `Objective`.
            gradients: for each of them, a gradient for each of its variables.
        """
        for objective in objectives:
            # Keras's optimizers make their variables when they are first applied, and none may be made in a branch.
            if not objective.optimizer.built:
                with tf.init_scope():
                    objective.optimizer.build(objective.variables)
        values = collect_values(objectives)
        finite = tf.math.is_finite(tf.stack(list(values.values())))

        def update():
            for objective, of_variables in zip(objectives, gradients, strict=True):
                objective.optimizer.apply(of_variables, objective.variables)
            return 0  # the branches of `tf.cond` must return something of the same structure

        def note():
            found = tf.stack([step, tf.argmin(tf.cast(finite, tf.int32))])
            self._note.assign(tf.where(self._note[0] < 0, found, self._note))
            return 0

        # The names of this trace, in whose order the note counts.
        self._names = list(values)
        tf.cond(tf.reduce_all(finite), update, note)

    def first(self) -> tuple[int, str] | None:
        """Returns `(step, name of the loss)` of the first loss since the last `reset` that was not finite, or None."""
        step, term = self._note.numpy()
        return None if step < 0 else (int(step), self._names[term])

    def reset(self):
        """Forgets what was noted."""
        self._note.assign([-1, -1])


def add_termination(callbacks, model):
    """Returns the callbacks of a `fit`, as a list or a `CallbackList`, with a `TerminateOnNonFinite` among them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(TerminateOnNonFinite())
        callbacks.set_model(model)
        return callbacks
    callbacks = keras.tree.flatten(callbacks or [])
    if any(isinstance(callback, TerminateOnNonFinite) for callback in callbacks):
        return callbacks
    return [*callbacks, TerminateOnNonFinite()]
