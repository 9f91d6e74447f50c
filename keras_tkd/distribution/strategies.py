"""The strategies of `tf.distribute`, by name, and what Keras needs in order to train under them."""

import contextlib
import json
import os

import tensorflow as tf

from keras_tkd.distribution.coordination import join_cluster
from keras_tkd.distribution.joining import split_address
from keras_tkd.utils import keras_graph
from keras_tkd.utils.choices import DISTRIBUTIONS

__all__ = ["STRATEGIES", "make_strategy", "read_cluster", "scope"]

STRATEGIES = DISTRIBUTIONS
_made = {}


def make_strategy(name: str):
    """Makes a strategy by its name; a process has one of each.

    Args:
        name: `"none"`: one device; `"mirrored"`: all GPUs of this machine, or its logical CPU devices where it has no
            GPU; `"multi_worker"`: several machines, or processes, of which the environment's `TF_CONFIG` tells.

    Returns:
        A `tf.distribute.Strategy`; None for `"none"`.

    Raises:
        ValueError: another name; `"multi_worker"` without a `TF_CONFIG` that names two workers or more, or in a process
            in which TensorFlow runs already.
        OSError: workers that do not meet, see `meet`.
    """
    if name == "none":
        return None
    keras_graph.mend_distributed_fit()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _make_once(name, lambda: tf.distribute.MirroredStrategy([device.name for device in devices]))
    if name == "multi_worker":
        addresses, index = read_cluster()
        return _make_once(name, lambda: join_cluster(addresses, index))
    raise ValueError(f"`distribution` must be one of {', '.join(STRATEGIES)}. Received: {name!r}")


def _make_once(name, make):
    # TensorFlow numbers the messages of each strategy from the same start: two of the same devices in one process would
    # take each other's for their own.
    if name not in _made:
        _made[name] = make()
    return _made[name]


@contextlib.contextmanager
def scope(name: str):
    """Opens a strategy, inside which models are made that train on several devices or machines.

    Args:
        name: see `make_strategy`.

    Yields:
        The strategy, or None.
    """
    strategy = make_strategy(name)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        yield strategy


def read_cluster() -> tuple[list, int]:
    """Returns the addresses of the workers that the environment's `TF_CONFIG` lists, and the number of this one.

    Raises:
        ValueError: it is no cluster of two workers or more, this process being one of them.
    """
    text = os.environ.get("TF_CONFIG", "")
    rule = (
        "`multi_worker` reads the environment's TF_CONFIG, the same list of workers on each and the number of its own: "
        """{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}"""
    )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers, index = cluster["worker"], task["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{rule}. Received: TF_CONFIG={text!r} ({type(error).__name__})") from None
    # TensorFlow knows others, which would take part without being one of the list.
    if set(cluster) != {"worker"}:
        raise ValueError(f"{rule}. Received: a cluster of {', '.join(cluster)}. List all of them as workers")
    if not isinstance(workers, list) or len(set(map(str, workers))) < 2 or len(set(map(str, workers))) < len(workers):
        raise ValueError(f"{rule}. Received: workers {workers!r}, which must be two addresses or more, each once")
    # TensorFlow would wait for one that is none without a word.
    for worker in workers:
        split_address(worker)
    if task.get("type") != "worker" or not isinstance(index, int) or not 0 <= index < len(workers):
        raise ValueError(f"{rule}. Received: task {task!r} of {len(workers)} workers")
    return workers, index
