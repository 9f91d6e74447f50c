"""The loss on the labels: the one given to `compile`, or what a subclass computes in its place."""

import keras

from keras_tkd.distillation import validation
from keras_tkd.distillation.forward_pass import ForwardPass, select_predictions
from keras_tkd.utils import keras_graph

__all__ = ["LabelledModel"]


class LabelledModel(keras.Model):
    """A model that learns from labels too, by `compute_loss`, Keras's own extension point."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Computes the loss on the labels alone: the student's part of the total, tracked as `student_loss`.

        A subclass may override this, and then has its own value for it. The other parts of the total are added to it:
        the distillation losses, and the student's regularization losses, which `keras.Model.compute_loss` adds here.
        `keras.distillation.Distiller.compute_loss` is another thing: the whole total, distillation losses included.

        Args:
            x: inputs, as `fit` takes them.
            y: labels.
            y_pred: what the student returns for the images, in its own dtype: float16 under `mixed_float16`. None to
                run it.
            sample_weight: weights of the samples.
            training: whether the step trains.

        Returns:
            A scalar; None for no such loss, as where the data have no labels or none was given to `compile`.
        """
        if y_pred is None:
            y_pred = self(x, training=training)
        return self._compute_label_loss(y, y_pred, sample_weight)

    def _compute_label_loss(self, y, y_pred, sample_weight):
        """Computes the loss given to `compile`; None without one, or without labels."""
        if y is None:
            return None
        return keras_graph.compute_compiled_loss(self, y, select_predictions(y, y_pred), sample_weight)

    def _compute_student_loss(self, forward_pass: ForwardPass):
        """Computes what `compute_loss` gives for a `ForwardPass`, of the whole batch; None for no such loss."""
        x, y, sample_weight, _, y_pred, share, *_, training = forward_pass
        if type(self).compute_loss is LabelledModel.compute_loss:
            with keras_graph.losses_of_one_device():
                value = keras_graph.compute_loss(self, x, y, y_pred, sample_weight, training)
            return None if value is None else validation.check_scalar(value)
        # An override may read the images, and each replica has those of its share; it divides by the number of
        # replicas, as Keras's losses do and other models' overrides have to.
        value = keras_graph.compute_loss(self, x, *share, training)
        return None if value is None else keras_graph.unscale_loss(validation.check_scalar(value))
