"""The meeting of workers: threads stand in for their processes, and addresses of the loopback for their machines."""

import concurrent.futures
import contextlib
import socket
import time

import pytest

from keras_tkd.distribution import joining
from keras_tkd.distribution.joining import meet

NOTHING_LISTENS = "its machine answers, and nothing listens at that port"
# Of examples, and of no machine.
FOREIGN = "192.0.2.1:1"


@pytest.fixture
def addresses():
    """Addresses of three workers at which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return ["127.0.0.1:{1}".format(*each.getsockname()) for each in sockets]


@pytest.fixture
def begin():
    """Function that begins a worker's part in a meeting, in a thread; returns its future."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield lambda *arguments: pool.submit(meet, *arguments)


def wait_for(capsys, text):
    said = ""
    while text not in said:
        time.sleep(0.02)
        said += capsys.readouterr().out
    return said


@contextlib.contextmanager
def tensorflow_at(address):
    """What listens at the port of worker 0 after the meeting, as soon as that is free."""
    while True:
        with contextlib.suppress(OSError):
            with socket.create_server(joining.split_address(address)):
                yield
            return
        time.sleep(0.02)


def test_workers_wait_until_all_are_there(begin, addresses, capsys):
    # A late worker 0, and a later worker 2.
    second = begin(addresses, 1)
    wait_for(capsys, f"Waiting for worker 0, at {addresses[0]}")
    first = begin(addresses, 0)
    wait_for(capsys, f"Waiting for 2 other worker(s), at {addresses[1]}, {addresses[2]}")
    assert not first.done() and not second.done()
    third = begin(addresses, 2)
    first.result(timeout=60)
    with tensorflow_at(addresses[0]):
        second.result(timeout=60)
        third.result(timeout=60)


def test_a_port_that_is_taken_is_refused(addresses):
    with socket.create_server(joining.split_address(addresses[1])):
        with pytest.raises(OSError, match=f"Received: {addresses[1]}, of which the port cannot be had"):
            meet(addresses, 1)


def test_worker_0_that_does_not_come_is_named_with_what_is_heard(monkeypatch, addresses, capsys):
    monkeypatch.setattr(joining, "_PATIENCE", 1.0)
    monkeypatch.setattr(joining, "_PAUSE", 0.4)
    heard = rf"{addresses[0]} in TF_CONFIG, after \d s: {NOTHING_LISTENS}. Start"
    with pytest.raises(OSError, match=f"Worker 0 must be started too, and be reached. Received: {heard}"):
        meet(addresses, 1)
    assert f"Still waiting for worker 0, at {addresses[0]} in TF_CONFIG, after " in capsys.readouterr().out
    with pytest.raises(OSError, match="s: its name is not known; this one, worker 1 at 192.0.2.1:.* does not know"):
        meet(["worker.invalid:1", addresses[1].replace("127.0.0.1", "192.0.2.1")], 1)


def test_others_that_do_not_come_are_named_to_all_that_wait(monkeypatch, begin, addresses, capsys):
    monkeypatch.setattr(joining, "_PATIENCE", 2.0)
    monkeypatch.setattr(joining, "_PAUSE", 0.4)
    places = [*addresses, FOREIGN]
    monkeypatch.setattr(joining, "_probe", {addresses[2]: NOTHING_LISTENS, FOREIGN: "no answer"}.get)
    first, second = begin(places, 0), begin(places, 1)
    missing = f"there came no worker 2 at {addresses[2]} ({NOTHING_LISTENS}), worker 3 at {FOREIGN} (no answer)"
    wait_for(capsys, "Worker 0 is still waiting: after ")
    for worker in (first, second):
        with pytest.raises(OSError, match="each with an index of its own") as error:
            worker.result(timeout=60)
        assert missing in str(error.value)


def test_two_of_an_index_are_told_at_once(begin, addresses):
    first, second = begin(addresses, 0), begin(addresses, 1)
    while not first.running():
        time.sleep(0.02)
    line = None
    while not second.done():
        # As from another machine: here it could not have the port.
        with contextlib.suppress(OSError):
            line = socket.create_connection(joining.split_address(addresses[0]), timeout=5)
            line.sendall(b"1\n")
        time.sleep(0.1)
    for worker in (first, second):
        with pytest.raises(OSError, match="index of its own. Received: index 1 of 127.0.0.1 and 127.0.0.1. Mend"):
            worker.result(timeout=60)
    line.close()


def test_what_is_no_worker_is_let_go_and_one_that_left_may_come_again(begin, addresses):
    first = begin(addresses, 0)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"7\n", b"1\n", b""):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(joining.split_address(addresses[0])) as line:
                line.sendall(said)
                break
            time.sleep(0.02)
    others = [begin(addresses, index) for index in (1, 2)]
    first.result(timeout=60)
    with tensorflow_at(addresses[0]):
        for other in others:
            other.result(timeout=60)


def test_an_address_at_which_a_worker_is_not_is_told_at_once(begin, addresses):
    # On the worker itself, the address is another: that of its own `TF_CONFIG`.
    first, second = begin([addresses[0], addresses[2]], 0), begin(addresses[:2], 1)
    for worker in (first, second):
        with pytest.raises(OSError, match=rf"all have come, .* worker 1 at {addresses[2]} \({NOTHING_LISTENS}\). Mend"):
            worker.result(timeout=60)


def test_worker_0_that_ends_after_the_meeting_is_named(monkeypatch, begin, addresses):
    first, second = begin(addresses[:2], 0), begin(addresses[:2], 1)
    first.result(timeout=60)
    monkeypatch.setattr(joining, "_PATIENCE", 0.2)
    with pytest.raises(OSError, match=f"must go on when all have come. .*and now {NOTHING_LISTENS}. See why"):
        second.result(timeout=60)


def test_an_address_of_another_machine_is_noticed():
    assert joining._describe_own(["127.0.0.1:1", FOREIGN], 0) == ""
    assert "worker 1 at 192.0.2.1:1, does not know that" in joining._describe_own(["127.0.0.1:1", FOREIGN], 1)
