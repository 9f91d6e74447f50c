"""Processes of our own: what the one that started them says counts, whatever that ignores itself."""

import signal

import pytest

from keras_tkd.runs.processes import WorkerProcess

# The module of a worker: it says that it is there, and waits; or waits where Python ignores what a signal raises.
WAITING = """
import time
from keras_tkd.runs.processes import connect_to_parent
connect_to_parent().send("here")
time.sleep(20)
"""
WAITING_IN_A_FINALIZER = """
import time
from keras_tkd.runs.processes import connect_to_parent
connection = connect_to_parent()
class Slow:
    def __del__(self):
        connection.send("here")
        time.sleep(5)
Slow()
connection.recv()
"""


@pytest.fixture
def ignored():
    """As a shell starts its background jobs, whose processes inherit it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=[WAITING, WAITING_IN_A_FINALIZER], ids=["waiting", "in a finalizer"])
def worker(request, ignored, tmp_path, monkeypatch):
    (tmp_path / "waiting.py").write_text(request.param)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = WorkerProcess("waiting", tmp_path / "output.txt", parallel=2)
    assert process.connection.recv() == "here"
    yield process
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_worker_ends(worker, number):
    worker.interrupt(number)
    worker._process.wait(timeout=60)  # one that has lost the signal waits for its next step
    assert worker.returncode == -number
