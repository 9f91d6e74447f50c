"""What a worker says of ports and addresses before it joins the others."""

import socket
import threading
import time

import pytest

from keras_tkd.distribution import joining

NOTHING_LISTENS = "its machine answers, and nothing listens at that port"


def find_free_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "127.0.0.1:{1}".format(*free.getsockname())


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Received: host:{port}, of which the port cannot be had"):
            joining._check_port(f"host:{port}")
    joining._check_port(f"host:{port}")


def test_a_first_worker_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(joining, "_PATIENCE", 0.1)
    address = find_free_address()
    with pytest.raises(OSError, match=f"Worker 0 must be started too.* Received: {address}"):
        joining._wait_for_first([address, "127.0.0.1:1"], 1)


def test_a_late_first_worker_is_waited_for(capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    servers = []
    threading.Timer(0.3, lambda: servers.append(socket.create_server(place))).start()
    began = time.monotonic()
    joining._wait_for_first([f"127.0.0.1:{place[1]}", "127.0.0.1:1"], 1)
    # It came later than the first look.
    assert servers and time.monotonic() - began >= 0.3
    assert capsys.readouterr().out == f"Waiting for worker 0, at 127.0.0.1:{place[1]}\n"
    servers[0].close()


def test_what_is_heard_is_said_while_worker_0_does_not_come(monkeypatch, capsys):
    monkeypatch.setattr(joining, "_PATIENCE", 1.0)
    monkeypatch.setattr(joining, "_PAUSE", 0.5)
    address = find_free_address()
    # The addresses 192.0.2.* are those of examples, and no machine's.
    with pytest.raises(OSError, match=f"{NOTHING_LISTENS}; this one, worker 1 at 192.0.2.1:1, does not know"):
        joining._wait_for_first([address, "192.0.2.1:1"], 1)
    assert f"s: {NOTHING_LISTENS}; this one, worker 1 at 192.0.2.1:1, does not know" in capsys.readouterr().out


def test_what_is_heard_is_said_while_others_do_not_join(monkeypatch, capsys):
    monkeypatch.setattr(joining, "_PAUSE", 0.1)
    ended, own = [], find_free_address()
    monkeypatch.setattr(joining, "end_process", lambda reason: ended.append(reason))
    refusing = find_free_address()
    with socket.create_server(("127.0.0.1", 0)) as there:
        answering = "127.0.0.1:{1}".format(*there.getsockname())
        addresses = [own, answering, refusing, "worker.invalid:1"]
        heard = f"worker 2 at {refusing}: {NOTHING_LISTENS}; worker 3 at worker.invalid:1: its name is not known"
        said = ""
        with joining._watched_wait(addresses, 0):
            while "Waiting for" not in said:
                time.sleep(0.05)
                said = capsys.readouterr().out
        assert heard in said and answering not in said and own not in said
        assert not ended
        monkeypatch.setattr(joining, "_PATIENCE", 0.1)
        with joining._watched_wait(addresses[:2], 0):
            while not ended:
                time.sleep(0.05)
    assert "each with an index of its own. Received: all others answer, and not all have joined" in ended[0]
