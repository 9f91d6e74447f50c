"""Measurements of what runs a model, in whatever runtime: its accuracy, how near it is to the model, how long it takes.

The functions know of no format: what runs a model is a function from a batch of images to its outputs.
"""

import dataclasses
import time

import numpy as np

from keras_tkd import data, evaluation
from keras_tkd.utils.multi_hot import is_multi_hot

__all__ = ["Latency", "Measurement", "measure", "measure_latency"]

_BATCH_SIZE = 256  # in which all images are run
_WARM_UP = 5  # calls that are not counted: the first ones allocate, and compile
_CALLS = (20, 200)  # that are: at least and at most
_SECONDS = 2.0  # after which they end, within these bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Duration of a call.

    Attributes:
        batch_size: images in a call.
        median_ms, p95_ms: milliseconds that half of the calls, and 95 % of them, stayed below.
        calls: number of calls that were measured.
    """

    batch_size: int
    median_ms: float
    p95_ms: float
    calls: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measurements of what runs a model.

    Attributes:
        test_accuracy: share of the images whose class it names, 0..1.
        agreement: share of the images for which it names the class of the reference, 0..1.
        largest_difference: of an output to that of the reference, over all images and classes.
        latency: tuple of a `Latency` for each size of a batch.
    """

    test_accuracy: float
    agreement: float
    largest_difference: float
    latency: tuple[Latency, ...]


def measure(run, images, labels, reference, *, prepare=None, batch_sizes=(1, 32)):
    """Measures what runs a model.

    Args:
        run: function from a NumPy array of images, float32 `(batch, height, width, channels)`, to outputs
            `(batch, classes)`, such as `open_model` gives.
        images: uint8 `(samples, height, width, channels)`, 0..255, an array or a stream of `keras_tkd.data`.
        labels: `(samples,)` class ids; or multi-hot rows `(samples, classes)`.
        reference: `(samples, classes)`, outputs of the model itself for these images.
        prepare: function from pixels to what `run` takes; None where it takes pixels. It is not timed.
        batch_sizes: sizes of the batches whose duration is measured. Fewer images are repeated.

    Returns:
        `Measurement`.

    Raises:
        ValueError: outputs that are not finite, or of another shape than the reference.
    """

    def get_inputs(batch):
        batch = np.asarray(batch, "float32")
        return batch if prepare is None else np.asarray(prepare(batch), "float32")

    batches = map(get_inputs, data.iterate_batches(images, _BATCH_SIZE))
    outputs = np.concatenate([np.asarray(run(batch)) for batch in batches])
    if outputs.shape != np.shape(reference) or not np.isfinite(outputs).all():
        raise ValueError(
            f"What runs a model must give finite outputs of shape {np.shape(reference)}, as the model itself does. "
            f"Received: shape {outputs.shape}, {np.count_nonzero(~np.isfinite(outputs))} numbers that are not finite"
        )
    # Of images of several classes each class is a yes or no.
    several = evaluation.exact_match, evaluation.binary_agreement
    accuracy, agreement = several if is_multi_hot(labels) else (evaluation.accuracy, evaluation.agreement)
    first = get_inputs(next(iter(data.iterate_batches(images, max(batch_sizes)))))
    return Measurement(
        test_accuracy=accuracy(outputs, labels),
        agreement=agreement(outputs, reference),
        largest_difference=float(np.abs(outputs - reference).max()),
        latency=tuple(measure_latency(run, np.resize(first, (size, *first.shape[1:]))) for size in batch_sizes),
    )


def measure_latency(run, batch, *, calls=_CALLS, seconds=_SECONDS):
    """Returns the `Latency` of a batch.

    Args:
        run: function of the batch, which has computed its outputs once it returns.
        batch: `(batch, height, width, channels)`.
        calls: how many are measured at least, and at most.
        seconds: after which they end within these bounds.
    """
    for _ in range(_WARM_UP):
        run(batch)
    took = []
    least, most = calls
    while len(took) < least or (sum(took) < seconds and len(took) < most):
        start = time.perf_counter()
        run(batch)
        took.append(time.perf_counter() - start)
    median, p95 = 1000 * np.percentile(took, [50, 95])
    return Latency(batch_size=len(batch), median_ms=float(median), p95_ms=float(p95), calls=len(took))
