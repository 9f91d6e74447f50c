"""Processes of our own that train at the same time, each with its share of the threads."""

import contextlib
import os
import signal
import subprocess
import sys

__all__ = ["WorkerProcess", "end_with_parent", "interrupt_on_exit"]


class WorkerProcess:
    """A module of this package that runs in a process of its own.

    Of one that fails, the last line of its output says why: `Error: ...`.

    Args:
        arguments: name of the module, and what stands behind it on the command line; list of texts.
        output: path of the file to which what it prints is added.
        parallel: number of processes at once, which share the threads.
        pass_fds: open file descriptors that it has too.
    """

    def __init__(self, arguments, output, parallel, pass_fds=()):
        self._output = output
        threads = str(max(1, (os.cpu_count() or 1) // parallel))
        # What the user set for all runs stays; and on a GPU none may take all of the memory.
        environment = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} | os.environ
        with open(output, "a", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                pass_fds=pass_fds,
                # Ctrl-C in a terminal reaches all of a group, and a second signal would not wait for a step to end.
                start_new_session=True,
            )

    def send(self, text):
        """Writes text to its input, which is left open: it ends when the system closes that, see `end_with_parent`."""
        # One that died at once reads nothing, and is told of by how it ended.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text)
            self._process.stdin.flush()

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
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        if code > 0 and lines and lines[-1].startswith("Error: "):
            return lines[-1].removeprefix("Error: ")
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"its process ended with {ending}; see {self._output}"

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


def end_with_parent():
    """Ends this process as SIGTERM does, with its state written, once the other end of its input is closed.

    The system closes it when the process that started this one ends, however it does: a training that went on would
    keep its folder locked. To be called in a thread.
    """
    # Not of the buffered stream, whose lock a thread that waits there would hold while Python shuts down.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
