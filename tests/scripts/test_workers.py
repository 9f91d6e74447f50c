"""The launcher of workers on one machine, with commands that need no TensorFlow."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("workers")


def program(text):
    head = "import json, os, sys, time; task = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
    return [sys.executable, "-c", head + textwrap.dedent(text)]


def test_each_worker_has_its_number_and_all_the_same_addresses(workers, tmp_path):
    write = f"open(os.path.join({str(tmp_path)!r}, str(task)), 'w').write(os.environ['TF_CONFIG'])"
    assert workers.launch(program(write), 3) == 0
    configs = [json.loads((tmp_path / str(index)).read_text()) for index in range(3)]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": index} for index in range(3)]
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3 and all(config["cluster"]["worker"] == addresses for config in configs)
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_the_worst_exit_code_counts_and_its_last_lines_are_shown(workers, capfd):
    assert workers.launch(program("print('chief' if task == 0 else 'no room left'); sys.exit(3 * task)"), 2) == 3
    out, err = capfd.readouterr()
    assert out == "chief\n" and err == "worker 1: no room left\n"
    # What another prints is nobody's concern as long as all is well.
    assert workers.launch(program("print(task)"), 2) == 0
    assert capfd.readouterr() == ("0\n", "")


def test_a_signal_that_is_ignored_reaches_none(workers):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # Workers that would end by it.
        text = f"""
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if task == 0:
            os.kill({os.getpid()}, signal.SIGINT)
        time.sleep(0.5)
        """
        assert workers.launch(program(text), 2) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_of_an_interruption_the_first_alone_speaks(workers, capfd, number):
    text = f"print('Interrupted' if task == 0 else 'Error: the leader is gone'); sys.exit({128 + number})"
    assert workers.launch(program(text), 2) == 128 + number
    assert capfd.readouterr() == ("Interrupted\n", "")
    # One that fails while the other is interrupted still says why.
    assert workers.launch(program(f"print('no room left'); sys.exit(3 if task else {128 + number})"), 2) == 128 + number
    assert capfd.readouterr() == ("no room left\n", "worker 1: no room left\n")


def test_one_that_does_not_end_after_another_has_failed_is_ended(workers, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.2)
    assert workers.launch(program("sys.exit(1) if task else time.sleep(300)"), 2) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_all_workers(workers, tmp_path, number):
    """That of a closed terminal too, or workers would go on that nobody sees."""
    text = f"""
    import signal, threading
    ended = threading.Event()
    def note(*_):
        open(os.path.join({str(tmp_path)!r}, f"got{{task}}"), 'w').close()
        sys.exit(7)
    signal.signal({number:d}, note)
    open(os.path.join({str(tmp_path)!r}, f"up{{task}}"), 'w').close()
    time.sleep(300)
    """

    def send():
        while len(list(tmp_path.glob("up*"))) < 2:
            threading.Event().wait(0.05)
        os.kill(os.getpid(), number)

    # Under `nohup` this process ignores one of them, and so would they.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        threading.Thread(target=send, daemon=True).start()
        assert workers.launch(program(text), 2) == 7
    finally:
        signal.signal(number, before)
    assert len(list(tmp_path.glob("got*"))) == 2


@pytest.mark.parametrize(
    ("given", "environment", "received"),
    [
        (["--num_workers=2"], {}, "distribution='none'"),
        (["--num_workers=0", "--distribution=multi_worker"], {}, "num_workers=0"),
        (["--num_workers=2", "--distribution=multi_worker"], {"TF_CONFIG": "{}"}, "and a TF_CONFIG"),
    ],
)
def test_workers_that_cannot_be_started_here_are_refused(given, environment, received, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train_teacher.py"), "--dataset=digits", "--workdir=w", *given]
    ended = subprocess.run(
        command, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1 and received in ended.stderr and not any(tmp_path.iterdir())
