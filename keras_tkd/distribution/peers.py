"""The watch of workers over one another: where one is lost, the others end with a sentence instead of waiting for it.

TensorFlow's collective operations wait for a worker that was killed, or left with an error, for as long as nobody says
that it will not come. Each worker has one connection, to worker 0, which the system closes with its process: so its end
is known at once. Where a machine or a link fails without a word, what is missing are the beats.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from os import _exit as exit_at_once

__all__ = ["Peers", "connect_to_first", "end_process", "listen", "read_lines"]

_BEAT = 5.0  # seconds from one sign of life to the next
_SILENCE = 40.0  # seconds without one after which a worker counts as lost: a link that is cut for some seconds is none
_BYE, _FAILED = "bye", "failed "


class Peers:
    """The other workers of a cluster, as one of them watches them.

    Args:
        names: list of how each worker is called in a message, in the workers' order.
        index: number of this worker; number 0 is the one that all others are connected to.
        connect: on worker 0 a listening socket; on the others one that is connected to it.
        end: function of a sentence, called in a thread where a worker is lost: it ends the process.

    Raises:
        OSError: on worker 0, workers that do not connect.
    """

    def __init__(self, names, index, connect, end):
        self._names, self._index, self._end = names, index, end
        self._lines, self._messages = {}, {}  # number of a worker -> its socket, and what comes from it
        self._left, self._lock = set(), threading.Lock()
        self._leaving, self._first_left = False, threading.Event()
        if index == 0:
            with connect:
                connect.settimeout(_SILENCE)
                for _ in names[1:]:
                    line = self._accept(connect)
                    line.settimeout(_SILENCE)
                    messages = read_lines(line)
                    # The first says whose connection it is.
                    number = int(next(messages))
                    self._lines[number], self._messages[number] = line, messages
        else:
            connect.settimeout(_SILENCE)
            self._lines[0], self._messages[0] = connect, read_lines(connect)
            self._send(0, str(index))
        for number in self._lines:
            threading.Thread(target=self._watch, args=(number,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _accept(self, connect):
        try:
            return connect.accept()[0]
        except TimeoutError as error:
            missing = [name for number, name in enumerate(self._names) if number and number not in self._lines]
            raise OSError(
                f"{_explain_connection(connect.getsockname()[1])} Received: no connection of {', '.join(missing)} for "
                f"{_SILENCE:.0f} s. Let it through, in whatever lies between"
            ) from error

    def leave(self):
        """Tells the others that this process has done its part; its end is then none that they mind."""
        self._leave(_BYE)

    def wait_for_first(self):
        """Waits until worker 0 has left too, or is lost: TensorFlow's service there takes earlier ends for crashes."""
        if self._index:
            self._first_left.wait()

    def fail(self, reason):
        """Tells the others that this process ends with an error, so that they end too.

        Args:
            reason: what went wrong, a sentence.
        """
        self._leave(_FAILED + " ".join(reason.split()))

    def wait_for_loss(self):
        """Waits for the sentence about a worker that seems lost, which ends the process; returns if there is none."""
        time.sleep(_SILENCE + _BEAT)

    def _leave(self, message):
        if not self._leaving:
            self._leaving = True
            for number in self._lines:
                self._send(number, message)

    def _send(self, number, message):
        # One that is gone is noticed by whoever reads.
        with contextlib.suppress(OSError), self._lock:
            self._lines[number].sendall(f"{message}\n".encode())

    def _beat(self):
        while not self._leaving:
            for number in self._lines:
                self._send(number, "")
            time.sleep(_BEAT)

    def _watch(self, number):
        """Reads what a worker says, until it has left or is lost."""
        try:
            for message in self._messages[number]:
                if message == _BYE:
                    return
                if message.startswith(_FAILED):
                    return self._lose(number, message.removeprefix(_FAILED))
            reason = "its process is gone"
        except TimeoutError:
            reason = f"nothing was heard of it for {_SILENCE:.0f} s"
        except OSError as error:
            reason = f"the connection to it is gone: {error}"
        finally:
            if number == 0:
                self._first_left.set()
        self._lose(number, f"{self._names[number]} is lost: {reason}")

    def _lose(self, number, reason):
        if self._leaving:
            return
        # Where worker 0 passes on what another one said, that is already a whole sentence.
        if not reason.startswith(tuple(self._names)):
            reason = f"{self._names[number]} has ended: {reason}"
        self.fail(reason)
        self._end(reason)


def listen(port=0, backlog=None) -> socket.socket:
    """Returns a socket that listens on all addresses of this machine, those of IPv6 too where it has any.

    Args:
        port: its port; 0 for one that the system chooses.
        backlog: number of connections that may wait; None for the system's own.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=backlog)


def connect_to_first(host, port):
    """Returns a socket that is connected to worker 0, as `Peers` takes it.

    Raises:
        OSError: it cannot be reached there.
    """
    try:
        return socket.create_connection((host, port), timeout=_SILENCE)
    except OSError as error:
        raise OSError(
            f"{_explain_connection(port)} Received: {host}, which cannot be reached there ({error}). Let it "
            "through, in whatever lies between"
        ) from error


def _explain_connection(port):
    return (
        "Each worker keeps a connection to worker 0 beside TensorFlow's, on a port that the system of worker 0 chooses "
        f"(this time {port})."
    )


def end_process(reason):
    """Ends this process, whatever its main thread waits for."""
    sys.stdout.flush()
    # Not by an exception: the main thread is inside a collective operation, and does not come back from it.
    os.write(2, f"\nError: {reason}. What is saved is whole: start all workers again to go on.\n".encode())
    exit_at_once(1)


def read_lines(line):
    """Yields the lines that come from a socket, without empty ones, until the other end closes it."""
    rest = b""
    while received := line.recv(4096):
        *lines, rest = (rest + received).split(b"\n")
        yield from (text.decode(errors="replace") for text in lines if text)
