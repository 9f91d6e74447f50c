"""Training of a model on labels under a strategy, as on one device."""

import keras
import tensorflow as tf

from keras_tkd.utils import keras_graph
from keras_tkd.utils.replicas import gather, share_gradients

__all__ = ["LabelTraining"]


class LabelTraining(keras.Model):
    """A model around another, which it trains on labels by the loss of the whole batch.

    Keras takes the mean loss of each replica's share, and then the mean of these: another number where the shares
    differ in size, as in the last batch of an epoch. It also clips the gradients of each replica by themselves, and
    under loss scaling looks at those of the first alone. Here they are those of one device: see `utils/replicas.py`.

    Args:
        model: the `keras.Model`, made inside the strategy's scope.
    """

    def __init__(self, model):
        super().__init__(name=model.name, dtype="float32", autocast=False)
        # Keras scales the loss by the policy of the model that is compiled, whatever that of its layers.
        if any(layer.compute_dtype == "float16" for layer in keras_graph.flatten_layers(model)):
            self.dtype_policy = "mixed_float16"
        self.model = model
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, results = self._compute(data, training=True)
            scaled = self.optimizer.scale_loss(loss)
        gradients = share_gradients(self.optimizer, tape.gradient(scaled, self.trainable_variables))
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.compute_metrics(*results)

    def test_step(self, data):
        return self.compute_metrics(*self._compute(data, training=False)[1])

    def _compute(self, data, training):
        """Returns the loss of the whole batch, and what of this replica the metrics read."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=training)
        whole = gather((y, y_pred, sample_weight))
        loss = self.compute_loss(x, *whole, training=training)
        value = keras_graph.unscale_loss(loss)
        keras_graph.get_loss_tracker(self).update_state(value, sample_weight=tf.shape(x)[0])
        return loss, (x, y, y_pred, sample_weight)
