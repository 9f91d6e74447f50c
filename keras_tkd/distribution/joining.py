"""The meeting of the workers, before TensorFlow joins them: where one does not come, the others say so, and why.

TensorFlow waits for the workers without a word, and for an hour; meanwhile it lets no thread of Python run, and no
signal end the process. So they meet before, at the port of worker 0 in `TF_CONFIG`, where it listens after that.
"""

import concurrent.futures
import contextlib
import re
import socket
import time

from keras_tkd.distribution.peers import listen, read_lines

__all__ = ["meet", "split_address"]

_PATIENCE = 300.0  # seconds that workers wait for one another
_PAUSE = 30.0  # seconds after which a worker that waits says what it hears of the others
_ALL_HERE, _FAILED = "all are here", "failed "


def split_address(address) -> tuple[str, int]:
    """Returns host and port of a worker's address; raises `ValueError` for one that lacks either."""
    # Of an IPv6 address the brackets say where it ends.
    found = re.fullmatch(r"(?:\[([^][]+)\]|([^][:]+)):([0-9]{1,5})", str(address))
    if not found or not 0 < int(found[3]) < 2**16:
        raise ValueError(
            "A worker's address in TF_CONFIG must be host:port, or [host]:port where the host is an IPv6 address, with "
            f"a port from 1 to 65535. Received: {address!r}. Mend it on all workers"
        )
    return found[1] or found[2], int(found[3])


def meet(addresses: list, index: int):
    """Waits until all workers have come to worker 0, and says from time to time for whom.

    Args:
        addresses: of all workers, as `TF_CONFIG` has them.
        index: number of this worker.

    Raises:
        OSError: a port that is taken; workers that do not come; two with the same index.
    """
    with _hold_port(addresses[index]) as listening:
        if index == 0:
            _receive(addresses, listening)
        else:
            _report(addresses, index)
    # TensorFlow's service has still to begin there.
    began = time.monotonic()
    while index and (heard := _probe(addresses[0])):
        if time.monotonic() - began > _PATIENCE:
            raise OSError(
                f"Worker 0 must go on when all have come. Received: {addresses[0]} in TF_CONFIG, where it was, and now "
                f"{heard}. See why it ended, and start all again"
            )
        time.sleep(0.1)


def _hold_port(address):
    """Returns a socket that listens where the others will look for this worker."""
    try:
        # On all interfaces, as TensorFlow does: the name may be that of a gateway.
        return listen(split_address(address)[1])
    except OSError as error:
        raise OSError(
            f"A worker listens at its port in TF_CONFIG. Received: {address}, of which the port cannot be had: "
            f"{error.strerror}. Another program, or an earlier run, may use it: choose another, in the TF_CONFIG "
            "of all workers"
        ) from error


def _receive(addresses, listening):
    """Waits, as worker 0, until each of the others has said its index; closes `listening`, and lets all go on."""
    print(f"Waiting for {len(addresses) - 1} other worker(s), at {', '.join(addresses[1:])}", flush=True)
    lines, pause = {}, _Pause()
    listening.settimeout(0.2)
    try:
        while len(lines) < len(addresses) - 1:
            with contextlib.suppress(TimeoutError):
                _let_in(listening.accept()[0], lines, addresses)
            for number in [number for number, line in lines.items() if _is_closed(line)]:
                lines.pop(number).close()
            if pause.is_over():
                missing = [i for i in range(1, len(addresses)) if i not in lines]
                heard = _describe(addresses, missing, "answers, and may have another index")
                said = f"after {pause.waited:.0f} s there came no {heard}"
                if pause.is_last():
                    raise OSError(
                        f"All workers must be started within {_PATIENCE:.0f} s of one another, with the same "
                        f"addresses, each with an index of its own. Received: {said}{_describe_own(addresses, 0)}"
                    )
                print(f"Still waiting: {said}{_describe_own(addresses, 0)}", flush=True)
                _send(lines, said)
        # Now that they are there, and hold their ports.
        if lost := _describe(addresses, sorted(lines), None):
            raise OSError(
                "Each worker must be reached at its address in TF_CONFIG. Received: all have come, but from "
                f"{addresses[0]} cannot be reached {lost}. Mend the addresses, or what lies between"
            )
        # Before they look for TensorFlow there.
        listening.close()
        _send(lines, _ALL_HERE)
    except OSError as error:
        _send(lines, f"{_FAILED}{error}")
        raise
    finally:
        for line in lines.values():
            line.close()


def _let_in(line, lines, addresses):
    """Adds the connection of a worker to `lines`, by its index."""
    line.settimeout(5.0)
    try:
        number = int(next(read_lines(line)))
    except (OSError, ValueError, StopIteration):
        number = None  # somebody else's, who looks what there is at this port
    if number not in range(1, len(addresses)):
        line.close()
    elif number in lines and not _is_closed(lines[number]):
        with line:
            places = " and ".join(each.getpeername()[0].removeprefix("::ffff:") for each in (lines[number], line))
            reason = f"Each worker must have an index of its own. Received: index {number} of {places}. Mend TF_CONFIG"
            _send({number: line}, f"{_FAILED}{reason}")
        raise OSError(reason)
    else:
        lines[number] = line


def _report(addresses, index):
    """Waits, as another worker than 0, until worker 0 says that all have come."""
    pause = _Pause()
    print(f"Waiting for worker 0, at {addresses[0]}", flush=True)
    while True:
        heard = "something else than a worker that waits for others answers there"
        try:
            with socket.create_connection(split_address(addresses[0]), timeout=5) as line:
                line.sendall(f"{index}\n".encode())
                line.settimeout(_PAUSE + 15)
                for text in read_lines(line):
                    if text == _ALL_HERE:
                        return
                    if text.startswith(_FAILED):
                        raise _MeetingFailed(text.removeprefix(_FAILED))
                    print(f"Worker 0 is still waiting: {text}", flush=True)
        except _MeetingFailed:
            raise
        except OSError as error:
            # Also for a name that is not known yet: some systems give a machine its name when it has started.
            heard = _explain(error)
        if pause.is_over():
            heard = f"{addresses[0]} in TF_CONFIG, after {pause.waited:.0f} s: {heard}{_describe_own(addresses, index)}"
            if pause.is_last():
                raise OSError(
                    f"Worker 0 must be started too, and be reached. Received: {heard}. Start it, or mend the address "
                    "on all workers"
                )
            print(f"Still waiting for worker 0, at {heard}", flush=True)
        time.sleep(0.5)


class _MeetingFailed(OSError):
    """The reason that worker 0 gives why the workers do not meet."""


class _Pause:
    """The time since the wait began, and until something is said of it again."""

    def __init__(self):
        self._began = time.monotonic()
        self._next = _PAUSE

    @property
    def waited(self):
        return time.monotonic() - self._began

    def is_over(self):
        """Returns whether something is to be said; then the next pause begins."""
        if self.waited < min(self._next, _PATIENCE):
            return False
        self._next = self.waited + _PAUSE
        return True

    def is_last(self):
        return self.waited >= _PATIENCE


def _describe(addresses, numbers, answers):
    """Names workers, with what is heard at their addresses; `answers` is said of those that do, None to leave them."""
    # At once: one that does not answer takes seconds.
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        heard = zip(numbers, pool.map(lambda i: _probe(addresses[i]) or answers, numbers), strict=True)
    return ", ".join(f"worker {i} at {addresses[i]} ({said})" for i, said in heard if said)


def _describe_own(addresses, index):
    """Says where the address of this worker is none of this machine: it may have another worker's index."""
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, place in socket.getaddrinfo(split_address(addresses[index])[0], 0):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
                return ""
    return f"; this one, worker {index} at {addresses[index]}, does not know that for an address of its machine"


def _probe(address):
    """Returns None where something answers at an address; else what is heard there, in words."""
    try:
        with socket.create_connection(split_address(address), timeout=5):
            return None
    except OSError as error:
        return _explain(error)


def _explain(error):
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "its machine answers, and nothing listens at that port"
    return "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _is_closed(line):
    """Returns whether the other end has closed a connection on which it has nothing more to say."""
    line.setblocking(False)
    try:
        return not line.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        line.settimeout(5.0)


def _send(lines, text):
    for line in lines.values():
        # One that is gone is noticed when it is read.
        with contextlib.suppress(OSError):
            line.sendall(f"{text}\n".encode())
