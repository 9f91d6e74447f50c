"""What several workers send in a step, and how long it takes: measured here, and on paper for clusters.

    python benchmarks/distribution.py --workers=1,2,4
    python benchmarks/distribution.py --workers=2 --link=slow        # 10 Mbit/s
    python benchmarks/distribution.py --workers=2 --link=cut         # the cable is out for five seconds
    python benchmarks/distribution.py --workers=2,4 --equal          # weights after 21 steps, beside one process's

Each worker is a process of one thread that trains the paper's student by soft targets, on 64 images a step, whose
teacher's outputs come with the batch. Where this may make network namespaces (Linux, root), each worker has one to
itself, and bytes are those that its network card sends; else those of the loopback device, divided by the workers.

The tables on paper follow from sizes alone, and from the time per image that is measured with one worker:

    gradients = 2 (N - 1) / N * 4 bytes * parameters            a ring, as TensorFlow's between CPUs and NCCL's
    outputs = (N - 1) * images of a worker * bytes of an image  what the losses read, with `gather="global"`
    seconds = (gradients + outputs) / bandwidth

with no overlap of sending and computing, of which the step does none, and without latency.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import namespaces
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
TRAINING = HERE.parent / "tests" / "distribution" / "train.py"
BATCH = 64  # images of each worker in a step
WARM_UP = 10  # steps
CLASSES = 10
# Trainings of tests/distribution/train.py, by which `--equal` compares weights, and by how much these may differ.
COMPARED = ("kd", "tkd_drawn", "tkd_in_batch", "sp", "rkd", "crd", "trikd")
TOLERANCE = 1e-5
GBIT = 1e9 / 8  # bytes a second
CLUSTERS = (8, 32, 128, 512)
# Trained numbers; operations of a training step on one image, in millions; bytes of an image that the losses read: the
# student's and the teacher's logits, float32, and the label.
MODELS = {"tkd_student": (161_130, 27.3, 2 * 4 * 10 + 8), "ResNet-50": (25_583_592, 3 * 2 * 4_089.0, 2 * 4 * 1000 + 8)}
# Operations a second, in millions: a GPU of today at a third or so of what its makers promise in 16 bits.
GPU = 1e8


def count_gradient_bytes(parameters, workers):
    """Returns what each worker sends of the gradients in a step."""
    return 2 * (workers - 1) / workers * 4 * parameters


def find_batch(part, parameters, image_bytes, image_seconds, workers, bandwidth):
    """Returns how many images of each worker let sending take no more than `part` of a step; None if none do.

    Args:
        part: 0..1.
        image_bytes: bytes of an image that each worker sends to the others.
        image_seconds: seconds that a worker computes on an image.
        bandwidth: bytes a second.
    """
    # gradients + images * outputs <= part / (1 - part) * images * image_seconds
    left = part / (1 - part) * image_seconds - (workers - 1) * image_bytes / bandwidth
    return count_gradient_bytes(parameters, workers) / bandwidth / left if left > 0 else None


# A worker.


def work(path, steps, interface, gather):
    """Trains as one worker, or alone, and writes what it saw."""
    import keras
    import tensorflow as tf

    from keras_tkd import Distiller, distribution, losses, models

    tf.config.threading.set_intra_op_parallelism_threads(1)
    workers = len(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]) if "TF_CONFIG" in os.environ else 1
    seen = []

    class Meter(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((time.perf_counter(), read_sent_bytes(interface)))

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    count = workers * BATCH * (WARM_UP + steps)
    x = {
        "image": rng.integers(0, 256, (count, 32, 32, 3), dtype="uint8"),
        "teacher": {"logits": rng.normal(size=(count, CLASSES)).astype("float32")},
    }
    with distribution.scope("multi_worker" if workers > 1 else "none"):
        student = models.build("tkd_student", (32, 32, 3), CLASSES)
        model = Distiller(None, student, losses.SoftTargets(4.0), gather=gather)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    labels = rng.integers(0, CLASSES, count)
    model.fit(x, labels, workers * BATCH, shuffle=False, verbose=0, callbacks=[Meter()])
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in student.get_weights())).hexdigest()
    pathlib.Path(path).write_text(json.dumps({"seen": seen, "parameters": student.count_params(), "weights": digest}))


def read_sent_bytes(interface, machine=()):
    """Returns the bytes that a network device has sent so far, here or where the words `machine` lead."""
    path = "/proc/net/dev"
    # No process of its own for each step of a worker.
    entered = machine and subprocess.run([*machine, "cat", path], stdout=subprocess.PIPE, check=True, text=True).stdout
    for line in (entered or pathlib.Path(path).read_text()).splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            return int(numbers.split()[8])
    return 0


# All of them.


def measure(count, steps, link, gather, folder):
    """Trains with so many workers; returns what each of them wrote."""
    with make_machines(count) as cluster:
        if link == "slow":
            cluster.slow_down(10)
        paths = [folder / f"{count} {i}.json" for i in range(count)]
        card = f"--interface={namespaces.CARD if cluster else 'lo'}"
        options = [__file__, f"--steps={steps}", f"--gather={gather}", card]
        processes = start_workers(cluster, [[*options, f"--worker={path}"] for path in paths])
        if link == "cut":
            # Once it trains, and no longer sends little.
            while read_sent_bytes(namespaces.CARD, cluster.enter(0)) < 20e6 and processes[0].poll() is None:
                time.sleep(0.1)
            cluster.plug(0, False)
            time.sleep(5)
            cluster.plug(0, True)
        wait_for(processes)
        return [json.loads(path.read_text()) for path in paths], cluster is not None


def make_machines(count):
    """Returns a context with so many machines, a `namespaces.Cluster`; with None where there is one, or can be none."""
    return namespaces.machines(count) if count > 1 and namespaces.available() else contextlib.nullcontext()


def start_workers(cluster, commands):
    """Starts a worker, or a single process, for each of the commands of Python, on its machine where there are some."""
    count = len(commands)
    if cluster:
        addresses = [f"{cluster.address(i)}:2222" for i in range(count)]
    else:
        addresses = [f"127.0.0.1:{port}" for port in _find_ports(count)]
    processes = []
    for i, command in enumerate(commands):
        own = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
        if count > 1:
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
            own["TF_CONFIG"] = json.dumps(config)
        entered = [*(cluster.enter(i) if cluster else []), sys.executable, *map(str, command)]
        processes.append(subprocess.Popen(entered, env=os.environ | own))
    return processes


def wait_for(processes):
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"Workers ended with {codes}")


def compare_weights(counts, folder):
    """Prints, for each training, by how much weights of several workers differ from those of a single process."""

    def train(name, count):
        paths = [folder / f"{name} of {count} {i}.npz" for i in range(count)]
        with make_machines(count) as cluster:
            wait_for(start_workers(cluster, [[TRAINING, name, path, *COMPARED] for path in paths]))
        return [dict(np.load(path)) for path in paths]

    (alone,), rows = train("none", 1), []
    for count in counts:
        found = train("multi_worker", count)
        largest = {}
        for kind in COMPARED:
            names = [name for name in alone if name.startswith(f"{kind}/")]
            if any(not np.array_equal(worker[name], found[0][name]) for worker in found for name in names):
                sys.exit(f"The weights of {count} workers differ after {kind}")
            largest[kind] = max(float(abs(found[0][name] - alone[name]).max()) for name in names)
        rows.append(f"| {count} workers | {' | '.join(f'{value:.1e}' for value in largest.values())} |")
        if not all(value <= TOLERANCE for value in largest.values()):
            sys.exit(f"The weights of {count} workers are not those of one process, within {TOLERANCE}: {largest}")
    # After all that workers say.
    print(f"\n| largest difference | {' | '.join(COMPARED)} |\n|---|{len(COMPARED) * '---|'}", *rows, sep="\n")


def _find_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def summarize(found, spaces):
    """Returns a row of the measured table, as a dict, of what each worker wrote."""
    workers, (seconds, _) = len(found), zip(*found[0]["seen"], strict=True)
    steps = len(seconds) - WARM_UP
    sent = [worker["seen"][-1][1] - worker["seen"][WARM_UP - 1][1] for worker in found]
    each = sorted(after - before for before, after in zip(seconds[WARM_UP - 1 :], seconds[WARM_UP:], strict=False))
    return {
        "workers": workers,
        "milliseconds": 1000 * each[len(each) // 2],
        "longest": 1000 * each[-1],
        "bytes": (sum(sent) / workers if spaces else sent[0] / workers) / steps if workers > 1 else 0.0,
        "gradients": count_gradient_bytes(found[0]["parameters"], workers),
        "equal": len({worker["weights"] for worker in found}) == 1,
    }


def show_measured(rows):
    print(
        "\n| workers | ms per step | longest | bytes sent per step and worker | of gradients, by the formula | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['bytes'] / row['gradients']:.3f}" if row["gradients"] else ""
        numbers = f"{row['milliseconds']:.1f} | {row['longest']:.0f} | {row['bytes']:,.0f} | {row['gradients']:,.0f}"
        print(f"| {row['workers']} | {numbers} | {ratio} |")
        if not row["equal"]:
            sys.exit(f"The weights of {row['workers']} workers differ")


def show_on_paper(image_seconds):
    """Prints for each model and device with how many images of each worker sending takes a half and a tenth."""
    student = MODELS["tkd_student"][1]
    for name, (parameters, operations, image_bytes) in MODELS.items():
        # A model whose layers use the processor as the student's do.
        devices = {"one core here": image_seconds * operations / student, "a GPU, 100 TFLOP/s": operations / GPU}
        for device, seconds in devices.items():
            print(f"\n{name}, {parameters:,} parameters, {1e6 * seconds:,.2f} us per image on {device}:\n")
            print("| workers | gbit/s | gradients, ms | half, local | tenth, local | half, global | tenth, global |")
            print("|---|---|---|---|---|---|---|")
            for gbits in (10, 100):
                for workers in CLUSTERS:
                    milliseconds = 1000 * count_gradient_bytes(parameters, workers) / (gbits * GBIT)
                    batches = [
                        find_batch(part, parameters, read, seconds, workers, gbits * GBIT)
                        for read in (0, image_bytes)
                        for part in (0.5, 0.1)
                    ]
                    cells = [f"{math.ceil(batch):,}" if batch is not None else "none" for batch in batches]
                    print(f"| {workers} | {gbits} | {milliseconds:.3g} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers, one after the other")
    parser.add_argument("--steps", type=int, default=40, help="steps that count, after ten to warm up")
    parser.add_argument("--gather", default="global", choices=("global", "local"), help="see `Distiller`")
    parser.add_argument("--link", default="free", choices=("free", "slow", "cut"), help="what happens to the network")
    parser.add_argument("--equal", action="store_true", help="compare the weights of trainings, and measure nothing")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--interface", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.steps, arguments.interface, arguments.gather)
    if arguments.link != "free" and not namespaces.available():
        sys.exit("--link=slow and cut need network namespaces: Linux, root, the tools ip and tc")
    rows, counts = [], [int(count) for count in arguments.workers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.equal:
            return compare_weights([count for count in counts if count > 1], pathlib.Path(folder))
        for count in counts:
            found = measure(count, arguments.steps, arguments.link, arguments.gather, pathlib.Path(folder))
            rows.append(summarize(*found))
    show_measured(rows)
    alone = [row for row in rows if row["workers"] == 1]
    if alone:
        show_on_paper(alone[0]["milliseconds"] / 1000 / BATCH)


if __name__ == "__main__":
    main()
