"""Workers of one run on one machine, for trying: processes that find each other on its loopback.

The process that starts the others computes nothing.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from absl import flags

__all__ = ["define", "launch", "start_workers"]

# The flag is the script's own: --help lists it.
flags.disclaim_key_flags()

_GRACE = 90.0  # seconds in which the other workers notice that one has failed
_SHOWN_LINES = 15
# And that of a terminal that is closed: it does not reach sessions of their own.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def define():
    """Defines `--num_workers`."""
    flags.DEFINE_integer(
        "num_workers",
        1,
        "With --distribution=multi_worker: start so many workers on this machine, for trying, in place of setting "
        "TF_CONFIG for each.",
    )


def start_workers(config):
    """Starts `--num_workers` processes of this very command, if asked for, and ends with them; else does nothing."""
    count = flags.FLAGS.num_workers
    if count == 1:
        return
    if config.distribution != "multi_worker" or count < 1 or "TF_CONFIG" in os.environ:
        sys.exit(
            "Error: `num_workers` must be >= 1, and starts the workers of --distribution=multi_worker on this machine, "
            f"where no TF_CONFIG says of others. Received: num_workers={count}, distribution={config.distribution!r}"
            f"{', and a TF_CONFIG' * ('TF_CONFIG' in os.environ)}. Leave --num_workers out, or start with "
            "--distribution=multi_worker and without TF_CONFIG"
        )
    # The later flag wins: each worker is one process.
    sys.exit(launch([sys.executable, *sys.argv, "--num_workers=1"], count))


def launch(command, count):
    """Starts a command as `count` workers and waits for all; shows what the first prints, and why another failed.

    Signals that end this process go to all workers; where all end for one, the first alone speaks. If one fails and
    others have not ended some time after, they are ended.

    Args:
        command: list of the program and its arguments, the same for each.
        count: number of workers, 2 or more.

    Returns:
        The exit code: the largest of the workers', where one that a signal ended counts as 128 and its number.
    """
    addresses = [f"127.0.0.1:{port}" for port in _find_ports(count)]
    with contextlib.ExitStack() as stack:
        # Of the others what they print is kept until it is known whether it matters: it is what the first prints.
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in addresses[1:])]
        workers = [_start(command, addresses, index, output) for index, output in enumerate(outputs)]
        stack.enter_context(_pass_signals_to(workers))
        _wait(workers)
        codes = [code if code >= 0 else 128 - code for code in (worker.returncode for worker in workers)]
        # All have ended for one signal, and the first has said so: that TensorFlow misses it elsewhere is no news.
        interrupted = len(set(codes)) == 1 and codes[0] in {128 + number for number in _SIGNALS}
        for index, code in enumerate(codes):
            if code and index and not interrupted:
                _show(index, outputs[index])
    return max(codes)


def _find_ports(count):
    """Returns ports of the loopback that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _start(command, addresses, index, output):
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(config)}
    # In sessions of their own: of Ctrl-C in a terminal each would hear twice, from there and from here.
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


@contextlib.contextmanager
def _pass_signals_to(workers):
    def pass_on(number, frame):
        for worker in workers:
            worker.send_signal(number)

    # What is ignored (a background job of a script) stays ignored, by the workers too.
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for worker in workers:
            worker.kill()


def _wait(workers):
    """Waits until all workers have ended; after one has failed, not for long."""
    failed = None
    while any(worker.poll() is None for worker in workers):
        if failed is None and any(worker.poll() for worker in workers):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > _GRACE:
            for worker in workers:
                worker.kill()
        time.sleep(0.05)


def _show(index, output):
    output.seek(0)
    for line in output.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]:
        print(f"worker {index}: {line}", file=sys.stderr)
