"""Readers of labels: Keras's own losses and metrics, of which those that logits are not fit for are refused."""

import functools
import inspect
import typing

import keras
import numpy as np

__all__ = [
    "IDS",
    "ROWS",
    "check_label_loss",
    "check_label_metrics",
    "is_binary",
    "list_one_class_metrics",
    "list_readers",
]

# Forms of labels: class ids, and a row of numbers for each image, as many as there are classes.
IDS, ROWS = "ids", "rows"

# By the names of Keras's functions and classes alike, in small letters without `_`. A new one of Keras is taken until
# it is entered here; whatever is the user's own is always taken.
_PREDICTIONS = {
    "accuracy": "class ids, which it compares with `==`",
    "categoricalgeneralizedcrossentropy": "probabilities",
    "circle": "embeddings of norm 1",
    "ctc": "sequences",
    "dice": "probabilities",
    "iou": "class ids",
    "kldivergence": "probabilities",
    "meaniou": "class ids",
    "meansquaredlogarithmicerror": "numbers >= 0",
    "poisson": "numbers > 0",
    "precisionatrecall": "probabilities",
    "recallatprecision": "probabilities",
    "sensitivityatspecificity": "probabilities",
    "specificityatsensitivity": "probabilities",
    "tversky": "probabilities",
}
# Losses of a yes or no for each class, and metrics that take the largest output of an image for its class.
_BINARY = ("binarycrossentropy", "binaryfocalcrossentropy")
_ONE_CLASS = ("categoricalaccuracy", "topkcategoricalaccuracy")
_FORMS = {
    name: form
    for form, names in {
        IDS: "sparsecategoricalaccuracy sparsecategoricalcrossentropy sparsetopkcategoricalaccuracy",
        ROWS: "auc binarycrossentropy binaryfocalcrossentropy categoricalaccuracy categoricalcrossentropy "
        "categoricalfocalcrossentropy categoricalhinge concordancecorrelation cosinesimilarity f1score fbetascore "
        "hinge huber logcosh logcosherror meanabsoluteerror meanabsolutepercentageerror meansquarederror onehotiou "
        "onehotmeaniou pearsoncorrelation precision r2score recall rootmeansquarederror squaredhinge "
        "topkcategoricalaccuracy",
    }.items()
    for name in names.split()
}


class _LabelReader(typing.NamedTuple):
    """A loss or a metric of Keras's own, of which it is known which labels it reads.

    Attributes:
        name: its name.
        form: `IDS` or `ROWS`.
        ignored: the label that it leaves out (`ignore_class`), or None.
        is_loss: whether it is the loss on the labels.
    """

    name: str
    form: str
    ignored: int | None
    is_loss: bool


def check_label_loss(loss):
    """Raises `ValueError` for a loss on the labels that takes the student's logits for something else.

    Args:
        loss: what `compile` takes: a loss, or a list or a dict of losses by output.
    """
    for one in _select(loss):
        # Keras chooses a crossentropy by the labels, and always one on probabilities.
        shorthand = isinstance(one, str) and one.lower() in ("crossentropy", "ce")
        taken = "probabilities (from_logits=False)" if shorthand else _find_predictions(keras.losses.get(one))
        if taken:
            raise ValueError(
                "The loss on the labels must take logits, which is what the student returns. Received: "
                f"loss={one!r}, which takes {taken}. Give one that says so, for class ids "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True), for rows "
                "keras.losses.CategoricalCrossentropy(from_logits=True), or a function of your own, (labels, logits)"
            )


def check_label_metrics(metrics):
    """Raises `ValueError` for a metric that takes the student's logits for something else.

    Args:
        metrics: what `compile` takes as `metrics` or `weighted_metrics`.
    """
    for one in _select(metrics):
        taken = None if _is_shorthand(one) else _find_predictions(keras.metrics.get(one))
        if taken:
            raise ValueError(
                "A metric must take logits, which is what the student returns. Received: "
                f"{one if isinstance(one, str) else _name(one)!r} among the metrics, which takes {taken}. Give one "
                "that does not depend on the scale of outputs, such as 'accuracy' or "
                "keras.metrics.SparseTopKCategoricalAccuracy(k=5), one with from_logits=True or with a threshold of 0, "
                "or a function of your own, (labels, logits)"
            )


def list_readers(loss, metrics=()) -> list[_LabelReader]:
    """Returns what is known of the losses and metrics that were given to `compile`: nothing of a user's own.

    Args:
        loss: see `check_label_loss`.
        metrics: a list of what `check_label_metrics` takes.
    """
    found = [(keras.losses.get(one), True) for one in _select(loss)]
    found += [(keras.metrics.get(one), False) for part in metrics for one in _select(part) if not _is_shorthand(one)]
    readers = []
    for one, is_loss in found:
        form = _FORMS.get(_key(one)) if _is_from_keras(one) else None
        if form:
            readers.append(_LabelReader(_name(one), form, _get_settings(one).get("ignore_class"), is_loss))
    return readers


def is_binary(loss) -> bool:
    """Returns whether the loss on the logits' labels is of a yes or no for each class, one of Keras's own."""
    found = [keras.losses.get(one) for one in _select(loss)]
    return any(_is_from_keras(one) and _key(one) in _BINARY for one in found)


def list_one_class_metrics(metrics) -> list[str]:
    """Returns the names of the metrics, as `list_readers` takes them, that are of images of one class each."""
    given = [one for part in metrics for one in _select(part)]
    shorthands = [one for one in given if _is_shorthand(one)]
    others = [keras.metrics.get(one) for one in given if not _is_shorthand(one)]
    return shorthands + [_name(one) for one in others if _is_from_keras(one) and _key(one) in _ONE_CLASS]


def _select(given):
    """Lists the losses or metrics of the logits in what `compile` takes."""
    if isinstance(given, dict):
        # Outputs beside the logits may well be probabilities.
        given = given.get("logits")
    return [one for one in (given if isinstance(given, (list, tuple)) else [given]) if one is not None]


def _is_shorthand(metric):
    """Returns whether Keras chooses the metric by the labels: an accuracy that fits them, for which logits will do."""
    return isinstance(metric, str) and metric.lower() in ("accuracy", "acc")


def _find_predictions(one):
    """Says what a loss or metric takes for outputs where that is something else than logits; None where it is not."""
    settings = _get_settings(one)
    if settings.get("from_logits") is False:
        return "probabilities (from_logits=False)"
    if not _is_from_keras(one):
        return None
    # Of the largest outputs, whatever their scale.
    if settings.get("top_k") is None:
        for name in ("threshold", "thresholds"):
            # What stands for one half of a probability is 0 for a logit. Keras means 0.5 by no thresholds.
            value = 0.5 if name == "thresholds" and settings.get(name, 0) is None else settings.get(name)
            if value is not None and np.any(value):
                return f"probabilities ({name}={value})"
            if value is not None:
                return None
    return _PREDICTIONS.get(_key(one))


def _get_settings(one):
    """Returns the settings of a loss or metric, of a function its keyword arguments, by name."""
    if isinstance(one, (keras.losses.Loss, keras.metrics.Metric)):
        # Those of a user's own need not have a configuration.
        return one.get_config() if _is_from_keras(one) else {"from_logits": getattr(one, "from_logits", None)}
    if not callable(one):
        return {}
    # A `functools.partial` is asked as well: what it binds are its defaults.
    parameters = inspect.signature(one).parameters.items()
    return {name: each.default for name, each in parameters if each.default is not inspect.Parameter.empty}


def _unwrap(one):
    return _unwrap(one.func) if isinstance(one, functools.partial) else one


def _is_from_keras(one):
    """Returns whether a loss or metric is a function or an instance out of Keras, not the user's own."""
    return getattr(_unwrap(one), "__module__", "").startswith("keras.")


def _name(one):
    one = _unwrap(one)
    return getattr(one, "__name__", type(one).__name__)


def _key(one):
    return _name(one).replace("_", "").lower()
