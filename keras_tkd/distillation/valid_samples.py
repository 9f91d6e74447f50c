"""Means over the samples that a loss has a value for, and errors for data that it cannot read."""

import keras
import tensorflow as tf

__all__ = ["CheckData", "TotalMean", "add_checks", "put_first"]


class TotalMean(keras.metrics.Metric):
    """Mean over an epoch of a total whose terms are means over different numbers of samples.

        sum_k ( sum_batches n_k w_k v_k ) / ( sum_batches n_k )

    A mean of the batches' totals would take a term's value in a batch where nothing has one, 0, for a value.

    Args:
        terms: names of the terms that there may be.
        name: name of the metric.
    """

    def __init__(self, terms: list[str], name: str):
        super().__init__(name=name, dtype="float32")
        self._terms = list(terms)
        self.totals = self.add_variable((len(terms),), initializer="zeros", name="totals")
        self.counts = self.add_variable((len(terms),), initializer="zeros", name="counts")

    def update_state(self, terms: dict[str, tuple], counts: dict[str, tf.Tensor], batch_size):
        """Adds a batch.

        Args:
            terms: `(weight, value)` of each term of the batch by name.
            counts: how many samples each value is the mean of; those without an entry, of the whole batch.
        """
        rows = {name: tf.cast(counts.get(name, batch_size), self.dtype) for name in terms}
        totals = {name: rows[name] * weight * value for name, (weight, value) in terms.items()}
        for own, added in ((self.totals, totals), (self.counts, rows)):
            own.assign_add(tf.stack([tf.cast(added.get(name, 0.0), self.dtype) for name in self._terms]))

    def result(self):
        return tf.reduce_sum(tf.math.divide_no_nan(self.totals.value, self.counts.value))

    def find_empty(self) -> list[str]:
        """Returns the names of terms that no sample of any batch so far had a value for; none before a batch."""
        counts = keras.ops.convert_to_numpy(self.counts.value)
        return [name for name, count in zip(self._terms, counts, strict=True) if count == 0] if counts.any() else []


class CheckData(keras.callbacks.Callback):
    """Raises `ValueError` for data that the losses cannot read: labels that name no class, nothing to compare.

    It looks for labels every 50 steps and at the end of an epoch, of training or of validation, and for losses that had
    no sample to compare at the end of one.
    """

    _EVERY = 50

    def __init__(self):
        super().__init__()
        self._training = False

    def on_train_begin(self, logs=None):
        # What steps have noted that were called by hand is none of this training's.
        self.model.forget_labels()

    def on_epoch_begin(self, epoch, logs=None):
        self._training = True
        self._looked = -1

    def on_train_batch_end(self, batch, logs=None):
        # A look waits for the step to finish.
        if batch - self._looked >= self._EVERY:
            self._looked = batch
            self.model.check_labels()

    def on_test_begin(self, logs=None):
        # The last moment at which the metrics are those of the training: validation begins with resetting them.
        if self._training:
            self._check("training")

    def on_test_end(self, logs=None):
        self._check("validation")

    def on_epoch_end(self, epoch, logs=None):
        self._check("training")
        self._training = False

    def _check(self, split):
        self.model.check_labels()
        for name in self.model.find_terms_without_samples():
            raise ValueError(
                f"Loss '{name}' compares an image with one of another class in its batch, and in a whole epoch of "
                f"{split} no batch had images of two classes. Give data of two classes or more, in "
                "mixed order (shuffle them once, do not sort them by class); or batches that bring their negatives, of "
                "keras_tkd.data.triplet_dataset or pair_dataset. Where rows of labels have one likeliest "
                'class, give class ids, or tell classes apart by the teacher, negative_classes="teacher"'
            )


def add_checks(callbacks, model):
    """Returns the callbacks of a `fit` or an `evaluate` with a `CheckData` before them."""
    # Before the one that looks for losses that are not finite: a label that is no class makes them so.
    return put_first(callbacks, CheckData(), model)


def put_first(callbacks, first, model):
    """Returns the callbacks of a `fit` or an `evaluate`, with `first` before them.

    Args:
        callbacks: as `fit` takes them; a `CallbackList` that has one of its class stays as it is.
        first: `keras.callbacks.Callback`.
        model: the model that they are of.
    """
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [first, *keras.tree.flatten(callbacks or [])]
    if not any(isinstance(callback, type(first)) for callback in callbacks.callbacks):
        first.set_model(model)
        callbacks.callbacks.insert(0, first)
    return callbacks
