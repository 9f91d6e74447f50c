"""What TensorFlow is told when a process joins the others."""

import signal

import pytest
from tensorflow.python.eager import context

from keras_tkd.distribution import coordination


def test_silence_of_some_seconds_is_borne(monkeypatch):
    """On a link benchmarks/distribution.py shows it, --link=cut. Without it TensorFlow has its default, 0."""
    ours = context.context()
    monkeypatch.setattr(ours, "_coordination_service_config", None)
    with coordination._bear_with_silence():
        ours.configure_coordination_service("standalone")
    assert ours.coordination_service.heartbeat_timeout_in_ms == 20_000
    ours.configure_coordination_service("standalone")
    assert ours.coordination_service.heartbeat_timeout_in_ms == 0


def test_a_signal_does_what_it_did():
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        own = signal.getsignal(signal.SIGTERM)
        with coordination._keep_handler(signal.SIGTERM):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is own
        with pytest.raises(RuntimeError), coordination._keep_handler(signal.SIGTERM):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
