"""Processes of our own that train at the same time, each with its share of the threads."""

import contextlib
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading

__all__ = ["WorkerProcess", "connect_to_parent", "interrupt_on_exit"]


class WorkerProcess:
    """A module of this package that runs in a process of its own, which begins with `connect_to_parent`.

    Of one that fails, the last line of its output says why: `Error: ...`.

    Args:
        module: name of the module.
        output: path of the file to which what it prints is added.
        parallel: number of processes at once, which share the threads.

    Attributes:
        connection: a `multiprocessing.connection.Connection` to it, at whose end it has ended.
        output: path of the file to which what it prints is added now.
    """

    def __init__(self, module, output, parallel):
        self.output = output
        self.connection, there = multiprocessing.Pipe()
        threads = str(max(1, (os.cpu_count() or 1) // parallel))
        # What the user set for all runs stays; and on a GPU none may take all of the memory.
        environment = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} | os.environ
        with open(output, "a", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(there.fileno())],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                pass_fds=[there.fileno()],
                # Ctrl-C in a terminal reaches all of a group, and a second signal would not wait for a step to end.
                start_new_session=True,
            )
        # Once the other process alone has this end, its own end tells that it has ended.
        there.close()

    def send(self, message):
        """Sends it an object."""
        # One that died at once receives nothing, and is told of by how it ended.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(message)

    @property
    def returncode(self):
        """Its exit status, or the signal that ended it, below 0; None while it runs."""
        return self._process.poll()

    def read_error(self):
        """Waits until it has ended; returns why it did, in one line, or None where nothing is wrong."""
        self.wait()
        self._release()
        code = self._process.returncode
        if code == 0:
            return None
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        if code > 0 and lines and lines[-1].startswith("Error: "):
            return lines[-1].removeprefix("Error: ")
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"its process ended with {ending}; see {self.output}"

    def interrupt(self, number):
        """Sends it a signal."""
        self._process.send_signal(number)

    def wait(self):
        """Waits until it has ended."""
        self._process.wait()

    def kill(self):
        """Ends it at once."""
        self._process.kill()
        self._release()

    def _release(self):
        # Closes its input. Sooner, that would be a signal to one that is about to end, or is writing its state.
        self._process.communicate()


@contextlib.contextmanager
def interrupt_on_exit(running):
    """Interrupts the jobs of a list where an exception leaves the block, Ctrl-C for one, and waits for their state.

    Args:
        running: list of the jobs that are going on, which the block keeps as it is: `WorkerProcess`, or the like.
    """
    try:
        yield
    except BaseException as ending:
        # Processes of their own have not received the terminal's signal.
        for job in running:
            job.interrupt(getattr(ending, "signal", signal.SIGINT))
        for job in running:
            job.wait()
        raise
    finally:
        # A second signal does not wait.
        for job in running:
            job.kill()


def connect_to_parent():
    """Returns the connection to the process that started this one, with which this one ends.

    It ends as by SIGTERM, with its state written, once the other end of its input is closed. The system closes that
    when the other process ends, however it does: a training that went on would keep its folder locked.

    Signals come from the other process alone, and count here even where that ignores them, as a background job does.
    Outside of a training, which finishes its step, they end this process at once.
    """
    # Not by an exception, as Python does for Ctrl-C: one that comes in a callback of the garbage collector is ignored,
    # and the other process would wait for the end of this one for good.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return multiprocessing.connection.Connection(int(sys.argv[1]))


def _end_with_parent():
    # Not of the buffered stream, whose lock a thread that waits there would hold while Python shuts down.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
