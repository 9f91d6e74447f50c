"""Runs every method on a GPU: that its step is right there, how fast it is, and that a training learns.

python benchmarks/gpu.py --json=gpu.json
python benchmarks/gpu.py --only=steps --methods=kd,tkd --workers=1

Three parts:
- steps: one step of every method in three precisions, with XLA and without. Its terms and the step that it takes are
  compared with those of the CPU in float32; float16's loss scale is made to fall and to rise;
- speed: images/s of kd and tkd, the teacher live and cached, beside the student's own `fit`;
- training: `scripts/distill.py`, from the teacher to the verdict.

Without a GPU all of it runs on the CPU, on fewer images. Ends with an error where a step is wrong; times are shown, and
judged by nobody.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Several processes share the GPU.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

from run import describe_machine  # noqa: E402

from keras_tkd.methods import METHODS  # noqa: E402

# The student alone has no term of its own: `speed` trains it.
TAUGHT = [name for name, method in METHODS.items() if method.terms]
HERE = pathlib.Path(__file__).parent
PARTS = ("speed", "steps", "training")
# Largest relative difference to the CPU's float32 of a term and of a step. A product rounds by 2^-24 in float32, 2^-9
# in bfloat16 and 2^-12 in float16, and a step is some ten layers forward and back, of terms that are differences of
# sums of up to 2,048 products. A wrong term or gradient is off by its whole size.
BOUNDS = {"float32": 2.0**-10, "mixed_bfloat16": 2.0**-2, "mixed_float16": 2.0**-4}
SHAPE, CLASSES, BATCH = (16, 16, 3), 10, 32
STEPS = 4
MOST_SKIPPED = 15  # steps, in which Keras's first loss scale, 2^15, falls to 1
SPEED = ("student_fit", "kd", "kd_cached", "tkd_in_batch_cached", "tkd_drawn", "tkd_drawn_cached")
# Images in an epoch, rounds, precisions and batches of the speeds.
ON_GPU = (25_600, 3, ("float32", "mixed_bfloat16", "mixed_float16"), (128, 1024))
ON_CPU = (2_560, 2, ("float32",), (128,))
TRAINING = ["--flagfile=flags/digits/kd.flags", "--epochs=60"]


def find_gpu():
    """Returns the name of the first GPU that TensorFlow sees, or None."""
    code = (
        "import tensorflow as tf; gpus = tf.config.list_physical_devices('GPU'); "
        "print(tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU') if gpus else '')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else None


# A worker: steps of some methods, in a process of its own.


def make_model(method, precision):
    """Makes the Distiller or TriKD of a method on the paper's small networks, always with the same weights."""
    import keras
    import numpy as np

    from keras_tkd import Distiller, TriKD, models
    from keras_tkd.distillation.method_losses import make_losses
    from keras_tkd.utils.precision import set_precision

    # Devices draw starting weights alike, but not if their precisions differ.
    keras.utils.set_random_seed(0)
    teacher = models.build("tkd_teacher", SHAPE, CLASSES)
    student, anchor = (models.build("tkd_student", SHAPE, CLASSES) for _ in range(2))
    for model in (teacher, student, anchor):
        set_precision(model, precision)
    if METHODS[method].online:
        # Dropout draws by other generators on other devices, and under XLA.
        for layer in teacher.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        return TriKD(teacher, student, anchor if METHODS[method].online.anchored else None)
    labels = np.random.default_rng(1).integers(0, CLASSES, BATCH)
    losses, weights = make_losses(method, labels=labels)
    return Distiller(teacher, student, losses, weights)


def make_batches(method):
    """Makes one batch of noise, brighter from class to class, with drawn images where the method reads such."""
    import numpy as np

    from keras_tkd import data

    rng = np.random.default_rng(0)
    labels = np.arange(BATCH) % CLASSES
    images = (rng.integers(0, 128, (BATCH, *SHAPE)) + 12 * labels[:, None, None, None]).astype("uint8")
    extra = METHODS[method].extra_images
    options = {"batch_size": BATCH, "seed": 0}
    if "partners" in extra:
        return data.pair_dataset(images, labels, **options)
    return data.triplet_dataset(images, labels, negatives="other_class" if extra else None, **options)


def run_step(method, precision, xla):
    """Runs a method's step; returns what it came to, as plain data and the weights' change."""
    import keras
    import numpy as np

    model, batches = make_model(method, precision), make_batches(method)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizers = {"optimizer": keras.optimizers.SGD(0.01)}
    if METHODS[method].online:
        optimizers["teacher_optimizer"] = keras.optimizers.SGD(0.01)
    model.compile(**optimizers, loss=loss, jit_compile=xla)
    before = read_weights(model.student)
    terms = {name: values[0] for name, values in model.fit(batches, epochs=1, verbose=0).history.items()}
    skipped = 0
    # Keras's loss scale begins high, and falls until gradients fit into float16.
    while not (moved := read_weights(model.student) - before).any() and skipped < MOST_SKIPPED:
        skipped += 1
        model.fit(batches, epochs=1, verbose=0)
    history = model.fit(batches, epochs=STEPS, verbose=0).history
    values = np.array([value for values in history.values() for value in values])
    weights = [np.isfinite(weight).all() for weight in model.get_weights()]
    record = {"terms": terms, "skipped": skipped, "finite": bool(np.isfinite(values).all() and all(weights))}
    if precision == "mixed_float16":
        record["scale"] = move_scale(model, batches)
    return record, moved


def read_weights(model):
    """Returns all weights of a model, one vector in float64."""
    import numpy as np

    return np.concatenate([np.ravel(weight) for weight in model.get_weights()]).astype("float64")


def move_scale(model, batches):
    """Lets the loss scale overflow, and lets it grow; returns what went wrong, or None."""
    import numpy as np

    optimizer, before = model.optimizer, read_weights(model.student)
    optimizer.dynamic_scale.assign(2.0**100)
    model.fit(batches, epochs=1, verbose=0)
    if float(optimizer.dynamic_scale) != 2.0**99:
        return f"after an overflow it is {float(optimizer.dynamic_scale):.3g}, not 2^99"
    if (read_weights(model.student) != before).any():
        return "a step that overflowed moved the student"
    optimizer.dynamic_scale.assign(2.0**-4)
    optimizer.step_counter.assign(optimizer.dynamic_growth_steps - 1)
    model.fit(batches, epochs=1, verbose=0)
    if float(optimizer.dynamic_scale) != 2.0**-3:
        return (
            f"after {optimizer.dynamic_growth_steps} finite steps it is {float(optimizer.dynamic_scale):.3g}, not 2^-3"
        )
    moved = read_weights(model.student) - before
    return None if moved.any() and np.isfinite(moved).all() else "a step that did not overflow moved nothing"


def work(jobs, folder):
    """Runs jobs, and prints a line of JSON for each as it ends."""
    import keras
    import numpy as np
    import tensorflow as tf

    # What is compared is float32, whose products Hopper's and Ampere's GPUs else round to 11 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    for job in jobs:
        name, began = ":".join(map(str, job)), time.perf_counter()
        try:
            record, moved = run_step(job[0], job[1], bool(int(job[2])))
            np.save(f"{folder}/{name}.npy", moved)
        # Whatever a step ends with is what is to be found out.
        except Exception as error:  # noqa: BLE001
            record = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"}
        record["seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps({"job": name, **record}), flush=True)
        keras.backend.clear_session()


# The parts.


def measure_steps(methods, precisions, workers, timeout):
    """Runs every method's step in processes of their own; returns a record for each, compared with the CPU's."""
    kinds = [(precision, xla) for precision in precisions for xla in (0, 1)]
    jobs = [(method, precision, xla) for precision, xla in kinds for method in methods]
    references = [(method, "float32", 0) for method in methods]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2 * workers) as pool:
        os.mkdir(f"{folder}/cpu"), os.mkdir(f"{folder}/gpu")

        def start(part, device):
            environment = {"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {}
            names = [":".join(map(str, job)) for job in part]
            command = [sys.executable, __file__, "--work", f"{folder}/{device}", *names]
            child = subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
            records = {record.pop("job"): record for record in map(json.loads, out.splitlines())}
            ending = "not run: out of time" if child.returncode == -9 else (err.strip().splitlines() or ["?"])[-1][:300]
            return {name: records.get(name, {"error": ending}) for name in names}

        futures = {
            device: [pool.submit(start, of_device[i::workers], device) for i in range(workers)]
            for device, of_device in (("cpu", references), ("gpu", jobs))
        }
        records = {
            device: dict(collections.ChainMap(*(future.result() for future in of_device)))
            for device, of_device in futures.items()
        }
        return {":".join(map(str, job)): compare(job, records, folder) for job in jobs}


def compare(job, records, folder):
    """Compares a step with the CPU's; returns its record, with the relative differences."""
    import numpy as np

    name, reference = ":".join(map(str, job)), f"{job[0]}:float32:0"
    record, expected = records["gpu"][name], records["cpu"][reference]
    if "error" in record or "error" in expected:
        return record | {"right": False} | ({"cpu": expected["error"]} if "error" in expected else {})
    terms = {
        term: abs(record["terms"][term] - value) / (abs(value) or 1.0)
        for term, value in expected["terms"].items()
        # Shares of images, which jump.
        if not term.endswith(("agreement", "accuracy"))
    }
    moved, exact = (np.load(f"{folder}/{device}/{of}.npy") for device, of in (("gpu", name), ("cpu", reference)))
    step = float(np.linalg.norm(moved - exact) / np.linalg.norm(exact))
    right = record["finite"] and record.get("scale") is None and max(*terms.values(), step) <= BOUNDS[job[1]]
    return record | {"terms_off": terms, "step_off": step, "right": bool(right)}


def show_steps(records, methods, precisions):
    """Prints, for each method, the largest difference of each precision, without XLA and with it."""
    kinds = [(precision, xla) for precision in precisions for xla in (0, 1)]
    print("\nLargest relative difference to the CPU's float32, of a term / of the step")
    print(
        f"{'method':10}"
        + "".join(f"{precision.removeprefix('mixed_') + (' XLA' if xla else ''):>20}" for precision, xla in kinds)
    )
    for method in methods:
        cells = []
        for kind in kinds:
            record = records[":".join(map(str, (method, *kind)))]
            shown = (
                "error" if "error" in record else f"{max(record['terms_off'].values()):.0e} / {record['step_off']:.0e}"
            )
            cells.append(shown + ("" if record["right"] else " !"))
        print(f"{method:10}" + "".join(f"{cell:>20}" for cell in cells))
    for name, record in records.items():
        if not record["right"]:
            print(f"{name}: {record.get('error') or record.get('cpu') or record.get('scale') or 'off, or not finite'}")


def measure_speed(images, rounds, precisions, batch_sizes):
    """Times trainings in turn in this process; returns images/s by precision and batch, then by task."""
    from tasks import Tasks, policy
    from timing import alternate

    found = {}
    for batch_size in batch_sizes:
        for precision in precisions:
            with tempfile.TemporaryDirectory() as folder, policy(precision):
                makes = Tasks(images, folder, batch_size=batch_size)
                measured = alternate({name: makes.make(name) for name in SPEED}, rounds)
            rates = {name: round(128_000 / sorted(values)[len(values) // 2]) for name, values in measured.items()}
            found[f"{precision}, batch {batch_size}"] = rates
            shown = ", ".join(f"{name} {rate:,}" for name, rate in rates.items())
            print(f"{precision}, batch {batch_size}: {shown} images/s", flush=True)
    return found


def start_training(arguments, folder):
    """Starts `scripts/distill.py` in a process of its own."""
    command = [sys.executable, str(HERE.parent / "scripts" / "distill.py"), *arguments, f"--workdir={folder}/run"]
    return subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--methods", default=",".join(TAUGHT), help="methods whose steps are run")
    parser.add_argument("--precisions", default=",".join(BOUNDS), help="precisions in which these steps are run")
    parser.add_argument("--workers", type=int, help="processes that run steps at once: half of the processors or less")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for all steps together")
    parser.add_argument("--training", nargs="*", default=TRAINING, help="flags of the training, in place of its own")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        folder, *names = arguments.work
        return work([tuple(name.split(":")) for name in names], folder)
    parts, methods, precisions = (
        value.split(",") for value in (arguments.only, arguments.methods, arguments.precisions)
    )
    for given, known, flag in (
        (parts, PARTS, "--only"),
        (methods, TAUGHT, "--methods"),
        (precisions, BOUNDS, "--precisions"),
    ):
        if not set(given) <= set(known):
            raise SystemExit(f"`{flag}` takes {', '.join(known)}. Received: {', '.join(given)}")
    gpu, began = find_gpu(), time.perf_counter()
    print(f"Device: {gpu or 'the CPU: no GPU is found'}", flush=True)
    figures = {"device": gpu or "cpu", "machine": describe_machine()}

    def keep(part, found):
        # At once: a run that is broken off leaves what it measured.
        figures[part] = found
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")

    # First, alone on the device.
    if "speed" in parts:
        keep("speed", measure_speed(*(ON_GPU if gpu else ON_CPU)))
    with contextlib.ExitStack() as stack:
        if "training" in parts:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            training = start_training(arguments.training, folder)
        if "steps" in parts:
            workers = arguments.workers or max(1, min(8, os.cpu_count() // 2 if gpu else 1))
            keep("steps", measure_steps(methods, precisions, workers, arguments.timeout))
            show_steps(figures["steps"], methods, precisions)
        if "training" in parts:
            out, _ = training.communicate()
            print("\n" + "\n".join(out.splitlines()[-12:]), flush=True)
            results = pathlib.Path(folder, "run", "results.json")
            learned = training.returncode == 0
            keep("training", json.loads(results.read_text()) if learned else {"error": out[-2000:]})
    print(f"\n{time.perf_counter() - began:.0f} seconds")
    wrong = [name for name, record in figures.get("steps", {}).items() if not record["right"]]
    if wrong or "error" in figures.get("training", {}):
        raise SystemExit(f"Wrong: {', '.join(wrong) or 'the training'}")


if __name__ == "__main__":
    main()
