"""The devices and machines that train one run together.

Who owns what:
- `distribution` makes the strategy, finds the other workers and watches them;
- a `Cluster` is what a run sees of all that: where models are made, which part of a batch is its own, which folder;
- every worker does the same as a run in a single process does, in the same order, in a folder of its own. So none waits
  for what another does not do, and whether a training is taken up, ended early or finished, all find alike.
"""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from keras_tkd.data.options import count_batches
from keras_tkd.distribution.joining import split_address
from keras_tkd.distribution.peers import Peers, connect_to_first, end_process, listen
from keras_tkd.distribution.rows import RowGatherer
from keras_tkd.distribution.strategies import make_strategy, read_cluster
from keras_tkd.runs.layout import OBSERVATIONS, OWN_FILES, REPORT
from keras_tkd.utils.files import hash_file

__all__ = ["Cluster", "connect"]

# What no worker reads of a run's folder, or all read where it is.
_NOT_COPIED = ("logs", REPORT, OBSERVATIONS, "teacher_cache")


class Cluster:
    """The devices that train a run: one, several of this machine, or the workers of which this process is one.

    Args:
        strategy: the `tf.distribute.Strategy`; None for one device.
        names: what the workers are called in errors; one name where there is a single process.
        index: number of this worker.

    Attributes:
        share: `(index, number of workers)`, the part of each batch that this process makes; None for all of it.
        is_chief: whether this worker's folder is the run's, in which the results are.
    """

    def __init__(self, strategy=None, names=("worker 0",), index=0):
        self.strategy = strategy
        self.share = (index, len(names)) if len(names) > 1 else None
        self.is_chief = index == 0
        self._names = list(names)
        self._gather = None if self.share is None else RowGatherer(strategy)
        self._peers, self._copies = None, []
        self._ends_for_all = False

    def watch(self, addresses):
        """Begins to watch the other workers, so that the loss of one ends the others."""
        index = self.share[0]
        host, _ = split_address(addresses[0])
        listening = listen(backlog=len(addresses)) if index == 0 else None
        port = self.exchange(str(listening.getsockname()[1]) if listening else "")[0]
        line = listening or connect_to_first(host, int(port))
        self._peers = Peers(self._names, index, line, self._end)
        # What a process does after its run concerns nobody else. The last that is registered is called first.
        atexit.register(self._peers.wait_for_first)
        atexit.register(self._peers.leave)

    def scope(self):
        """Returns the context in which models, losses and optimizers are made that train together."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def distribute(self, batches):
        """Returns batches as `fit` takes them: of each, this process made its share already."""
        if self.share is None:
            return batches
        # Not as a data set: TensorFlow would share out the shares once more.
        return self.strategy.distribute_datasets_from_function(lambda _: batches)

    def check_batches(self, samples, batch_size):
        """Raises `ValueError` if in some batch of an epoch a device has no image."""
        devices = 1 if self.strategy is None else self.strategy.num_replicas_in_sync
        for size in {min(batch_size, samples), samples % batch_size or batch_size}:
            # Of one process's batch TensorFlow gives the first devices as many as fit, each the same number.
            used = min(size, devices) if self.share else count_batches(size, count_batches(size, devices))
            if used < devices:
                raise ValueError(
                    "Each device must have an image of every batch, or its statistics (BatchNorm) are of nothing. "
                    f"Received: {samples} training images, batch_size={batch_size}, and so a batch of {size} for "
                    f"{devices} devices. Choose another batch_size"
                )

    def exchange(self, text):
        """Returns the texts that all workers give here, in their order; waits for all."""
        if self.share is None:
            return [text]

        # As bytes, of which none in a text is 0.
        gathered = self.gather_rows(np.frombuffer(text.encode() + b"\0", np.uint8))
        return gathered.tobytes().decode().split("\0")[:-1]

    def gather_rows(self, rows):
        """Returns the rows that all workers give here, in their order, as one array; waits for all. See `RowGatherer`.

        Args:
            rows: array of this worker's.
        """
        return rows if self.share is None else self._gather(rows)

    def agree(self, facts):
        """Raises `ValueError`, on all workers, if one of them differs from worker 0 in what must be the same.

        Args:
            facts: dict of plain data, by what each is called in the error.
        """
        first, *others = map(json.loads, self.exchange(json.dumps(facts)))
        for name, theirs in zip(self._names[1:], others, strict=True):
            differing = [fact for fact in {**first, **theirs} if first.get(fact) != theirs.get(fact)]
            if differing:
                said = "; ".join(_describe_difference(fact, first.get(fact), theirs.get(fact)) for fact in differing)
                raise ValueError(
                    "All workers must be started with the same flags, on the same files and versions. Received on "
                    f"{self._names[0]} and on {name}: {said}. Mend that, and start all again"
                )

    def claim_folder(self, path):
        """Returns the folder that this worker works in: the run's, or else a copy, of what a run goes on from.

        Raises:
            ValueError: the workers do not see the same folder.
        """
        if self.share is None:
            return path
        path = pathlib.Path(path)
        self.agree({"the files in --workdir, which all workers must see,": _list_files(path)})
        if not self.is_chief:
            copy = pathlib.Path(tempfile.mkdtemp(prefix="worker-"))
            self._copies.append(copy)
            for name in set(OWN_FILES) - set(_NOT_COPIED):
                if (path / name).is_dir():
                    shutil.copytree(path / name, copy / name)
                elif (path / name).exists():
                    shutil.copyfile(path / name, copy / name)
            path = copy
        # Nothing is changed there before all have theirs.
        self.exchange("")
        return path

    def agree_to_end(self):
        """Says that all workers end now, with an interruption that is none of a single one; waits for all."""
        # Until all have written what they keep.
        self.exchange("")
        self._ends_for_all = True

    def end(self, error=None):
        """Ends this worker's part in a run: all wait for one another, unless there is an error, which ends the others.

        Args:
            error: the exception that ended the run; None where it is finished.
        """
        try:
            if self._peers is not None and error is None:
                self.exchange("")
            elif self._peers is not None and self._ends_for_all and isinstance(error, KeyboardInterrupt):
                # A signal may end the process at once, and not by its exit.
                self._peers.leave()
                self._peers.wait_for_first()
            elif self._peers is not None:
                # The operation that failed may be how the loss of another worker shows: of that, the watch has more to
                # say, and ends this process.
                if isinstance(error, tf.errors.OpError):
                    self._peers.wait_for_loss()
                interrupted = isinstance(error, KeyboardInterrupt)
                self._peers.fail("it was interrupted" if interrupted else str(error) or type(error).__name__)
        finally:
            self._remove_copies()

    def _end(self, reason):
        self._remove_copies()
        end_process(reason)

    def _remove_copies(self):
        for copy in self._copies:
            shutil.rmtree(copy, ignore_errors=True)


@functools.cache
def connect(distribution):
    """Returns the `Cluster` that a configuration's `distribution` names. A process has one of each, from first to last.

    Raises:
        ValueError, OSError: as `make_strategy`; several GPUs in one worker.
    """
    if distribution != "multi_worker":
        strategy = make_strategy(distribution)
        if strategy is not None:
            # Of a GPU that TensorFlow does not find, nothing else would tell.
            devices = [device.rpartition("device:")[2] for device in strategy.extended.worker_devices]
            print(f"Devices: {len(devices)}, {', '.join(devices)}", flush=True)
        return Cluster(strategy)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus[1:]:
        raise ValueError(
            f"A worker trains on one device. Received: a process that sees {len(gpus)} GPUs. Start one worker for "
            "each, with CUDA_VISIBLE_DEVICES=0 and so on, or take --distribution=mirrored on a single machine"
        )
    addresses, index = read_cluster()
    strategy = make_strategy(distribution)
    names = [f"worker {number} at {address}" for number, address in enumerate(addresses)]
    cluster = Cluster(strategy, names, index)
    cluster.watch(addresses)
    return cluster


def _list_files(path):
    """Returns what there is of a run that it may go on from: names of files, with their checksums or sizes."""
    files = [file for name in set(OWN_FILES) - set(_NOT_COPIED) for file in (path / name, *(path / name).rglob("*"))]
    listed = {str(file.relative_to(path)): file for file in files if file.is_file()}
    # Models and states are large; what was written says more of them than they do of themselves.
    return {
        name: hash_file(file) if file.suffix in (".json", ".flags") else os.path.getsize(file)
        for name, file in sorted(listed.items())
    }


def _describe_difference(fact, first, second):
    """Says in what two workers differ; of lists and dicts, the entries alone."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
        first, second = ({name: part[name] for name in names if name in part} for part in (first, second))
    elif isinstance(first, list) and isinstance(second, list):
        first, second = [x for x in first if x not in second], [x for x in second if x not in first]
    return f"{fact} {first!r} and {second!r}"
