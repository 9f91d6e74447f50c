"""What TensorFlow is told when a process joins the others."""

import signal
import subprocess
import sys

import pytest
import tensorflow as tf
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


def test_a_wait_that_stops_all_threads_of_python_is_ended():
    # `PyDLL` keeps Python's lock, as TensorFlow does while it waits for workers.
    code = """
import ctypes
from keras_tkd.distribution import coordination
with coordination._ended_after(60):
    pass
with coordination._ended_after(0.2):
    ctypes.PyDLL(None).sleep(600)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and "Timeout" in ended.stderr


def test_a_process_in_which_tensorflow_runs_already_joins_nobody():
    tf.constant(0)
    with pytest.raises(ValueError, match="Received: a process in which TensorFlow runs already. Begin in a new"):
        coordination.join_cluster(["127.0.0.1:1", "127.0.0.1:2"], 1)


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
