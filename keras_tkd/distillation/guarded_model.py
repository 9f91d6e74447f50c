"""Keras's loops, guarded: a fit refuses labels that its losses cannot read, and losses that are not finite."""

import contextlib

import keras
import tensorflow as tf

from keras_tkd.distillation.averages import BeginAverages
from keras_tkd.distillation.label_guard import LabelGuard
from keras_tkd.distillation.label_readers import check_label_loss, check_label_metrics
from keras_tkd.distillation.non_finite import NonFiniteGuard, add_termination
from keras_tkd.distillation.valid_samples import add_checks, put_first
from keras_tkd.utils import keras_graph

__all__ = ["GuardedModel"]

# What the class `Distiller` that readers of keras.io copy takes in `compile`.
_KERAS_IO = {
    "student_loss_fn": "`loss` of `compile`",
    "distillation_loss_fn": "`distillation_losses` of the constructor, SoftTargets(temperature)",
    "alpha": "`student_loss_weight=alpha, distillation_loss_weights=[1 - alpha]` of the constructor",
    "temperature": "that of SoftTargets",
}

_STRATEGIES = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy


class GuardedModel(keras.Model):
    """A model whose `compile`, `fit` and `evaluate` look at what its steps note in their guards.

    A subclass makes the guards with `_make_guards` in its constructor; its steps apply gradients through `_guard`, and
    note the labels in `_label_guard`.
    """

    def _make_guards(self, losses):
        """Makes the guards of a step with these `DistillationLoss`es."""
        if tf.distribute.has_strategy():
            keras_graph.mend_distributed_fit()
        self._guard = NonFiniteGuard()
        self._label_guard = LabelGuard(losses)

    def _frozen_readers(self):
        """Returns the readers of the models that stay as they are, whose outputs may come with the batch."""
        raise NotImplementedError

    def forget_labels(self):
        """Forgets what `check_labels` would raise, as every `fit` does at its beginning and its end."""
        self._label_guard.take()

    def _end_fit(self):
        """Takes back what callbacks have set for a fit; called after one that was interrupted, too."""

    def check_labels(self):
        """Raises `ValueError` if a step found a label that the losses cannot read."""
        self._label_guard.check()

    def compile(
        self, optimizer="rmsprop", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, *args, **kwargs
    ):
        """Compiles as `keras.Model.compile` does, with a loss on the labels and metrics that take logits.

        Raises:
            TypeError: an argument of the Distiller in the example of keras.io; the message says what it is here.
            ValueError: a loss or a metric of Keras's that takes something else, such as probabilities; what Keras
                cannot do on several devices.
        """
        foreign = [f"{name} is {meaning}" for name, meaning in _KERAS_IO.items() if name in kwargs]
        if foreign:
            raise TypeError(
                "The Distiller of the example of keras.io takes its losses in `compile`. Here, and in "
                f"keras.distillation, {'; '.join(foreign)}. See docs/from_keras_distillation.md"
            )
        check_label_loss(loss)
        for given in (metrics, weighted_metrics):
            check_label_metrics(given)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, *args, **kwargs)
        self._check_strategy(self.optimizer)
        self._label_guard.watch(loss, [metrics, weighted_metrics])

    def _check_strategy(self, optimizer):
        """Raises `ValueError` for what Keras promises of a training and cannot do under the model's strategy."""
        if not isinstance(self.distribute_strategy, _STRATEGIES):
            return
        own = getattr(optimizer, "inner_optimizer", optimizer)  # under loss scaling
        # Each is a branch or a loop, inside which no replica can meet the others, or does not reach their devices.
        given = {
            "steps_per_execution": self.steps_per_execution != 1 and self.steps_per_execution,
            "jit_compile": self.jit_compile,
            "gradient_accumulation_steps": own.gradient_accumulation_steps,
            "ema_overwrite_frequency": own.use_ema and own.ema_overwrite_frequency,
        }
        given = [f"{name}={value}" for name, value in given.items() if value]
        if given:
            raise ValueError(
                "On several devices or machines Keras takes one step at a time, without XLA, and applies each step's "
                f"gradients. Received: {', '.join(given)}, under a {type(self.distribute_strategy).__name__}. Leave "
                "that out"
            )

    def compile_from_config(self, config):
        # Keras leaves it to a model that has a `compile` of its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        # The optimizers must have their variables before the file's values are put into them.
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        # TensorFlow traces a step twice if variables are made in it, as Keras makes an optimizer's: these come first,
        # unless the step is to build a layer of a subclass's own.
        built = self.built and all(layer.built for layer in self.layers)
        if built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        *args,
        **kwargs,
    ):
        """Trains as `keras.Model.fit` does, and raises `FloatingPointError` if a loss is not finite."""
        callbacks = add_checks(put_first(add_termination(callbacks, self), BeginAverages(), self), self)
        y = self._label_guard.read(y)
        if isinstance(validation_data, (tuple, list)) and len(validation_data) > 1:
            held_out, labels, *weights = validation_data
            validation_data = held_out, self._label_guard.read(labels), *weights
        given = x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data
        try:
            with self._name_labels():
                return super().fit(*given, *args, **kwargs)
        finally:
            self._end_fit()

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        *args,
        **kwargs,
    ):
        """Evaluates as `keras.Model.evaluate` does, and raises `ValueError` if a loss had no sample to compare."""
        callbacks, y = add_checks(callbacks, self), self._label_guard.read(y)
        with self._name_labels():
            return super().evaluate(x, y, batch_size, verbose, sample_weight, steps, callbacks, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Trains as `keras.Model.train_on_batch` does, and raises `ValueError` for labels that no loss can read."""
        with self._name_labels():
            logs = super().train_on_batch(x, self._label_guard.read(y), sample_weight, class_weight, return_dict)
            self.check_labels()
        return logs

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Evaluates as `keras.Model.test_on_batch` does, and raises `ValueError` as `train_on_batch`."""
        with self._name_labels():
            logs = super().test_on_batch(x, self._label_guard.read(y), sample_weight, return_dict)
            self.check_labels()
        return logs

    @contextlib.contextmanager
    def _name_labels(self):
        """Says which label it is that TensorFlow, on a CPU, ends a step over; on a GPU the loss is NaN."""
        try:
            yield
        except tf.errors.InvalidArgumentError:
            found = self._label_guard.take()
            if found is None:
                raise
            # Not behind TensorFlow's own, which shows a graph and no label.
            raise ValueError(found) from None
        finally:
            # What one that was broken off has noted is nothing of the next, on other data.
            self.forget_labels()

    def first_non_finite(self) -> tuple[int, str] | None:
        """Returns `(step, name of the loss)` of the first loss that was not finite in this fit, or None.

        The name is `"gradient"` where all losses were finite, and the gradient of their total was not.
        """
        return self._guard.first()

    def advise_on_non_finite(self, advice: str) -> str:
        """Returns what to do about `first_non_finite`: `advice`, or better where models or images are at fault.

        Args:
            advice: what helps against a loss that is not finite.
        """
        return self._guard.advise([reader.role for reader in self._frozen_readers()], advice)

    def reset_first_non_finite(self):
        """Forgets what `first_non_finite` returns, as every `fit` does at its beginning."""
        self._guard.reset()
