"""What a worker says of ports and addresses before it joins the others."""

import socket
import threading
import time

import pytest

from keras_tkd.distribution import joining


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Received: host:{port}, of which the port cannot be had"):
            joining._check_port(f"host:{port}")
    joining._check_port(f"host:{port}")


def test_a_first_worker_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(joining, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "127.0.0.1:{1}".format(*free.getsockname())
    with pytest.raises(OSError, match=f"Worker 0 must be started too.* Received: {address}"):
        joining._wait_for_first(address)


def test_a_late_first_worker_is_waited_for(capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    servers = []
    threading.Timer(0.3, lambda: servers.append(socket.create_server(place))).start()
    began = time.monotonic()
    joining._wait_for_first(f"127.0.0.1:{place[1]}")
    # It came later than the first look.
    assert servers and time.monotonic() - began >= 0.3
    assert capsys.readouterr().out == f"Waiting for worker 0, at 127.0.0.1:{place[1]}\n"
    servers[0].close()
