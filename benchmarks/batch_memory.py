"""Extra memory of the losses over a whole batch: value and gradient on 512 embeddings of 128 numbers.

python benchmarks/batch_memory.py

Each loss is measured in a process of its own: the peak of resident bytes after 5 calls, less the peak before the first,
and less what the same calls take on a batch of 8 (code and buffers of TensorFlow).
"""

import argparse
import json
import os
import resource
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

LOSSES = (
    "SimilarityPreserving",
    "RelationalDistance",
    "RelationalAngle",
    "ProbabilisticTransfer",
    "CorrelationCongruence",
)


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def extra(name, batch, size=128):
    """Prints the bytes that value and gradient of a loss add to the peak of this process."""
    import numpy as np
    import tensorflow as tf

    from keras_tkd import losses

    loss = getattr(losses, name)()
    teacher, student = (tf.constant(x, tf.float32) for x in np.random.default_rng(0).normal(size=(2, batch, size)))

    @tf.function
    def run(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return value, tape.gradient(value, student)

    before = peak()
    for _ in range(5):
        run(teacher, student)[1].numpy()
    print(peak() - before)


def measure(name, batch):
    command = [sys.executable, __file__, f"--child={name}", f"--batch={batch}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        extra(arguments.child, arguments.batch)
        return
    figures = {name: round((measure(name, arguments.batch) - measure(name, 8)) / 1e6, 1) for name in LOSSES}
    print(json.dumps({"batch": arguments.batch, "megabytes": figures}, indent=2))


if __name__ == "__main__":
    main()
