"""What a seed fixes, and what `deterministic` fixes besides."""

import itertools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import data, models
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.data.options import deterministic_options
from keras_tkd.distillation.distiller import Distiller
from keras_tkd.losses import TripletDistillation
from keras_tkd.runs import commands, optimization
from keras_tkd.utils.files import save_model

ROOT = pathlib.Path(__file__).parents[2]
# Drawn negatives, views, and a student with dropout. One batch holds the whole training set.
RANDOM = {"method": "tkd", "augmentation": "crop", "student_model": "digits_teacher", "baseline": "none"}
RANDOM |= {"dataset": "digits", "train_fraction": 0.1, "batch_size": 200}


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    keras.utils.set_random_seed(5)
    save_model(models.build("digits_student", (8, 8, 1), 10), path)
    return path


@pytest.fixture(autouse=True)
def any_teacher(monkeypatch):
    monkeypatch.setattr(commands, "check_teacher", lambda *arguments: None)  # one that knows nothing will do


def test_trainings_of_a_seed_are_the_same_bytes_whatever_the_threads(monkeypatch):
    """Drawn negatives, views and dropout, from pipelines that 1, 2 and 5 threads fill."""

    def build():
        pixels = keras.Input((8, 8, 1))
        return keras.Model(pixels, keras.layers.Dense(10)(keras.layers.Dropout(0.5)(keras.layers.Flatten()(pixels))))

    keras.utils.set_random_seed(0)
    teacher, student = build(), build()
    distiller = Distiller(teacher, student, TripletDistillation(), [2.0])
    optimization.compile_model(distiller, TeacherTrainingConfig(learning_rate=1e-6))
    distiller.optimizer.build(student.trainable_variables)
    # Among the variables are those that count for dropout.
    start = [(variable, variable.numpy()) for variable in [*distiller.variables, *distiller.optimizer.variables]]
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (120, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, 120)
    trained = []
    for threads in (1, 2, 5):

        def of_so_many_threads(threads=threads):
            options = deterministic_options()
            options.threading.private_threadpool_size = threads
            return options

        monkeypatch.setattr("keras_tkd.data.epochs.deterministic_options", of_so_many_threads)
        monkeypatch.setattr("keras_tkd.data.anchors.PARALLEL_CALLS", threads)
        for variable, value in start:
            variable.assign(value)
        batches = data.triplet_dataset(images, labels, 8, seed=0, augment=data.crop_and_flip)
        history = distiller.fit(batches, epochs=2, verbose=0, shuffle=False).history
        trained.append([*(weight.tobytes() for weight in student.get_weights()), history])
    assert trained[0] == trained[1] == trained[2]
    assert student.get_weights()[0].tobytes() != start[0][1].tobytes()


class _Begun(Exception):
    """A training has begun."""


def begin(config, path, monkeypatch):
    """Returns what a run's training of its student begins with: a dict of arrays."""
    begun = {}

    def fit(distiller, batches, **arguments):
        batch, _ = next(iter(batches))
        student = distiller.student
        begun["weights"] = np.concatenate([weight.ravel() for weight in student.get_weights()])
        begun["order"] = batch["index"].numpy()
        # Sample by sample, whatever their order.
        by_sample = np.argsort(begun["order"])
        begun["views"] = batch["image"].numpy()[by_sample, -1]
        begun["negatives"] = batch["negative"].numpy()[by_sample, :-1]
        # What dropout leaves of the same images, at the same weights.
        student.set_weights([np.full(weight.shape, 0.01) for weight in student.get_weights()])
        begun["dropout"] = student(np.full((16, 8, 8, 1), 100.0), training=True).numpy()
        raise _Begun

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "fit", fit)
        with pytest.raises(_Begun):
            commands.distill(config, path)
    return begun


def test_another_seed_changes_weights_order_views_negatives_and_dropout(teacher_path, tmp_path, monkeypatch):
    # A view whose last row says which it is; what is above shows the sample.
    def mark(images, seeds):
        marks = tf.cast(seeds % 251, images.dtype)[:, None, None, None]
        return tf.concat([images[:, :-1], tf.broadcast_to(marks, tf.shape(images[:, -1:]))], 1)

    def of_seed(seed, folder):
        config = DistillConfig(**RANDOM, seed=seed, teacher_path=str(teacher_path))
        return begin(config, tmp_path / folder, monkeypatch)

    monkeypatch.setitem(data.AUGMENTATIONS, "crop", mark)
    first, again, other = of_seed(0, "first"), of_seed(0, "again"), of_seed(1, "other")
    assert first.keys() == {"weights", "order", "views", "negatives", "dropout"}
    for name, value in first.items():
        assert np.array_equal(value, again[name]), name
        assert not np.array_equal(value, other[name]), name


def test_deterministic_is_refused_where_tensorflow_has_begun_otherwise(tmp_path):
    tf.config.list_logical_devices()
    rule = "`deterministic` fixes.*Received: deterministic=True.*pools of 0.*in a new process"
    with pytest.raises(ValueError, match=rule):
        commands.train_teacher(TeacherTrainingConfig(deterministic=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


COMMANDS = """
import os, runpy, sys, traceback
# Imported once, and run in forks: nothing has run yet, and so TensorFlow has no thread that a fork would lose.
import tensorflow as tf
from keras_tkd.runs import commands, optimization

commands.check_teacher = lambda *arguments: None
optimization.STEPS_PER_EXECUTION = 1
script, *arguments = sys.argv[1:]
children = []
for cores, threads in ((1, 1), (None, 4)):
    children.append(os.fork())
    if children[-1]:
        continue
    code = 1
    try:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        # What TensorFlow takes for its pools where nothing else is said; without, they are as many as the cores.
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        sys.argv = [script, *arguments, f"--workdir={threads}"]
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) > 0)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that gives a process some cores alone")
def test_deterministic_commands_are_the_same_bytes_on_any_number_of_cores(teacher_path, tmp_path):
    """crd, whose bank and sums grow differences of rounding: on one core, and on all with a larger pool."""
    script = ROOT / "scripts" / "distill.py"
    flags = ["--method=crd", "--baseline=none", f"--teacher_path={teacher_path}", "--teacher_cache=off", "--epochs=2"]
    flags += ["--train_fraction=0.1", "--batch_size=32", "--deterministic"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(script.parent), str(ROOT)])}
    command = [sys.executable, "-c", COMMANDS, str(script), *flags]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    done = subprocess.run(command, cwd=tmp_path, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--deterministic=True" in (tmp_path / "1" / "flags.flags").read_text().splitlines()
    one, other = (keras.saving.load_model(tmp_path / name / "student.keras").get_weights() for name in ("1", "4"))
    assert all(itertools.starmap(np.array_equal, zip(one, other, strict=True)))
