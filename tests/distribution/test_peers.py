"""The watch of workers over one another, by sockets inside one process."""

import queue
import socket
import threading

import pytest

from keras_tkd.distribution import peers
from keras_tkd.distribution.peers import Peers

NAMES = ["worker 0 at a", "worker 1 at b", "worker 2 at c"]


@pytest.fixture
def workers():
    """Three workers that are connected, and what each has been told to end with."""
    listening, ends = socket.create_server(("127.0.0.1", 0)), [queue.Queue() for _ in NAMES]
    made = [None] * len(NAMES)

    def begin():
        made[0] = Peers(NAMES, 0, listening, ends[0].put)

    first = threading.Thread(target=begin)
    first.start()
    for index in (2, 1):
        line = socket.create_connection(listening.getsockname())
        made[index] = Peers(NAMES, index, line, ends[index].put)
    first.join()
    yield made, ends
    for worker in made:
        worker.leave()


def test_a_worker_that_is_gone_ends_all_others_with_its_name(workers):
    made, ends = workers
    # As the system does it for a process that was killed.
    made[1]._lines[0].shutdown(socket.SHUT_RDWR)
    assert ends[0].get(timeout=10) == "worker 1 at b is lost: its process is gone"
    assert ends[2].get(timeout=10) == "worker 1 at b is lost: its process is gone"


def test_the_reason_of_a_worker_that_failed_reaches_all_others(workers):
    made, ends = workers
    made[2].fail("the disk\nis full")
    assert ends[0].get(timeout=10) == ends[1].get(timeout=10) == "worker 2 at c has ended: the disk is full"
    assert ends[2].empty()


def test_worker_0_is_missed_by_all(workers):
    made, ends = workers
    # A process that is gone notices nothing itself.
    made[0]._leaving = True
    for number in (1, 2):
        made[0]._lines[number].shutdown(socket.SHUT_RDWR)
    assert ends[1].get(timeout=10) == ends[2].get(timeout=10) == "worker 0 at a is lost: its process is gone"


def test_a_worker_that_has_left_is_not_missed(workers):
    made, ends = workers
    made[1].leave()
    made[1]._lines[0].close()
    made[2].fail("something")
    # The first that is heard of is not the one that left.
    assert ends[0].get(timeout=10) == "worker 2 at c has ended: something"
    assert ends[1].empty()


def test_silence_is_a_loss_too(monkeypatch):
    monkeypatch.setattr(peers, "_SILENCE", 0.3)
    monkeypatch.setattr(peers, "_BEAT", 60.0)
    listening, ended = socket.create_server(("127.0.0.1", 0)), queue.Queue()
    line = socket.create_connection(listening.getsockname())
    line.sendall(b"1\n")
    first = Peers(NAMES[:2], 0, listening, ended.put)
    assert ended.get(timeout=10) == "worker 1 at b is lost: nothing was heard of it for 0 s"
    first.leave()
    line.close()


def test_a_port_that_workers_do_not_get_through_to_is_named(monkeypatch):
    monkeypatch.setattr(peers, "_SILENCE", 0.3)
    listening = socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    with socket.create_connection((host, port)) as line:
        line.sendall(b"2\n")
        said = rf"worker 0 chooses \(this time {port}\). Received: no connection of worker 1 at b"
        with pytest.raises(OSError, match=said):
            Peers(NAMES, 0, listening, None)
    # It no longer listens.
    with pytest.raises(OSError, match=rf"\(this time {port}\). Received: {host}, which cannot be reached there"):
        peers.connect_to_first(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_workers_are_let_in_by_either_address(host):
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with peers.listen() as listening:
        line = peers.connect_to_first(host, listening.getsockname()[1])
        line.close()
