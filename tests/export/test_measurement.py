"""What runs a model is measured by numbers that are counted by hand."""

import numpy as np
import pytest

from keras_tkd.export import measure, measurement

# Four images of one pixel, of which the outputs are made below.
IMAGES = np.array([10, 20, 30, 40], "uint8").reshape(4, 1, 1, 1)
REFERENCE = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])


def run(images):
    """The reference's outputs, but for the third image, where the second class loses by 0.5."""
    outputs = {10: [1.0, 0.0], 20: [2.0, -0.25], 30: [3.5, 3.0], 40: [0.0, 1.0]}
    return np.array([outputs[int(value)] for value in images.ravel()])


def test_accuracy_agreement_and_difference(monkeypatch):
    monkeypatch.setattr(measurement, "_CALLS", (1, 1))
    measured = measure(run, IMAGES, [0, 1, 1, 1], REFERENCE)
    # It names 0, 0, 0, 1, and the reference 0, 0, 1, 1.
    assert measured.test_accuracy == 2 / 4 and measured.agreement == 3 / 4
    assert measured.largest_difference == 3.5


def test_what_is_prepared_is_what_is_run(monkeypatch):
    monkeypatch.setattr(measurement, "_CALLS", (1, 1))
    seen = []

    def run_scaled(images):
        seen.append(images)
        return run(images * 100)

    measured = measure(run_scaled, IMAGES, [0, 1, 1, 1], REFERENCE, prepare=lambda images: images / 100)
    assert measured.largest_difference == 3.5
    assert all(images.dtype == "float32" and images.max() == np.float32(0.4) for images in seen if len(images) > 1)


@pytest.mark.parametrize("outputs", [REFERENCE[:, :1], REFERENCE * np.nan])
def test_outputs_that_are_none_are_refused(outputs):
    with pytest.raises(ValueError, match=r"must give finite outputs of shape \(4, 2\)"):
        measure(lambda images: outputs, IMAGES, [0, 0, 0, 0], REFERENCE)


def measure_with(seconds, monkeypatch):
    """Measures calls that take so many seconds each, by a clock that goes on in them alone."""
    now, calls, durations = [0.0], [], iter(seconds)

    def timed(images):
        calls.append(len(images))
        now[0] += next(durations)
        return run(images)

    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now[0])
    return measure(timed, IMAGES, [0, 0, 0, 0], REFERENCE, batch_sizes=(3,)).latency[0], calls


def test_duration_of_slow_calls(monkeypatch):
    # One call for the outputs, and five to warm up. Twenty are the least, though two take the seconds that are allowed:
    # nineteen of 1 s and one of 3 s. The 95th percentile is at 0.95 * 19 = 18.05 of the sorted ones: 1 + 0.05 * 2.
    latency, calls = measure_with([9.0] * 6 + [1.0] * 10 + [3.0] + [1.0] * 9, monkeypatch)
    assert latency.batch_size == 3 and latency.calls == 20 and calls == [4] + [3] * 25
    assert latency.median_ms == pytest.approx(1000) and latency.p95_ms == pytest.approx(1100)


def test_duration_of_quick_calls(monkeypatch):
    latency, calls = measure_with([1.0] * 6 + [0.001] * 200, monkeypatch)
    assert latency.calls == 200 and latency.median_ms == pytest.approx(1) and len(calls) == 206


def test_calls_end_after_some_seconds(monkeypatch):
    # Of 0.05 s each, forty make two seconds.
    latency, _ = measure_with([1.0] * 6 + [0.05] * 60, monkeypatch)
    assert latency.calls in (40, 41)
