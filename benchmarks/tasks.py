"""The tasks that are timed: the paper's networks on random images of CIFAR-10's size, in batches of 128."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from operations import training_operations  # noqa: E402
from timing import Task  # noqa: E402

from keras_tkd import Distiller, TeacherCache, TeacherEnsemble, TriKD, data, losses, models  # noqa: E402
from keras_tkd.callbacks import BackupState  # noqa: E402
from keras_tkd.data.arrays import allocate_aligned  # noqa: E402
from keras_tkd.data.options import count_batches  # noqa: E402
from keras_tkd.distillation.method_losses import make_losses  # noqa: E402
from keras_tkd.runs.optimization import STEPS_PER_EXECUTION  # noqa: E402

SHAPE = (32, 32, 3)
CIFAR10 = 50_000  # images for training
SIZE_OF_PRODUCT = 2048
CHECKPOINT_STEPS = 100
PHOTOGRAPH, DECODED = (375, 500), (224, 224)  # height and width in pixels, in files and as models see them
WINDOWS = 4  # of photographs in a pass
DONE = "done"  # what a process of its own says after each epoch
HERE = os.path.dirname(os.path.abspath(__file__))


class Tasks:
    """Makes tasks by name: the names are those of its methods, and `method:NAME` for the methods of the package.

    Args:
        count: images in an epoch, which a task goes through once unless it says otherwise.
        folder: where caches are written.
        teacher: name of the teacher's model.
        batch_size: images per step.
        classes: number of classes.
    """

    def __init__(self, count, folder, teacher="tkd_teacher", batch_size=128, classes=10):
        self.count, self.folder, self.batch_size, self.classes = count, folder, batch_size, classes
        self.teacher_name = teacher
        rng = np.random.default_rng(0)
        self.images = allocate_aligned((count, *SHAPE))
        self.images[:] = rng.integers(0, 256, self.images.shape, dtype="uint8")
        self.labels = rng.integers(0, classes, count)

    def make(self, name):
        name, _, method = name.partition(":")
        return getattr(self, name)(method) if method else getattr(self, name)()

    # Parts.

    def student(self):
        return models.build("tkd_student", SHAPE, self.classes)

    def new_teacher(self):
        return models.build(self.teacher_name, SHAPE, self.classes)

    @functools.cached_property
    def teacher(self):
        return self.new_teacher()

    @functools.cached_property
    def plain(self):
        return data.triplet_dataset(self.images, self.labels, self.batch_size, seed=0, negatives=None)

    @functools.cached_property
    def triplets(self):
        return data.triplet_dataset(self.images, self.labels, self.batch_size, seed=0)

    @functools.cached_property
    def image_batches(self):
        return data.image_dataset(self.images, self.labels, self.batch_size, seed=0)

    def fit(self, model, batches, epochs=1, steps_per_execution=STEPS_PER_EXECUTION):
        loss, optimizer = keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.optimizers.SGD(0.001, 0.9)
        model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
        return Task(lambda: model.fit(batches, epochs=epochs, verbose=0, shuffle=False), epochs * self.count)

    def live(self, loss, weight, batches=None):
        return self.fit(Distiller(self.teacher, self.student(), loss, [weight]), batches or self.plain)

    def cached(self, loss, weight, batches=None, read="logits", student=None):
        """Trains with the cache of the outputs that the loss reads, which the first such task builds."""
        batches = self.cache(loss, read).attach(batches or self.plain)
        return self.fit(Distiller(None, student or self.student(), loss, [weight]), batches)

    def cache(self, loss, name):
        options = {"dtype": "float16", "progress": False}
        return TeacherCache.build(self.teacher, self.images, f"{self.folder}/{name}", losses=[loss], **options)

    # A student alone.

    def student_fit(self):
        return self.fit(self.student(), self.image_batches)

    def student_fit_of_two(self):
        """Trains on 256 images a step; the time is of 128 of them and another 128."""
        twice = (np.concatenate([array, array]) for array in (self.images, self.labels))
        return self.fit(self.student(), data.image_dataset(*twice, 2 * self.batch_size, seed=0))

    def keras_fit(self):
        """Trains as a Keras user writes it: a mean over four epochs, since tf.data's autotuner rounds epochs up."""
        slices = tf.data.Dataset.from_tensor_slices((self.images, self.labels))
        batches = slices.shuffle(10_000).batch(self.batch_size).prefetch(tf.data.AUTOTUNE)
        return self.fit(self.student(), batches, epochs=4, steps_per_execution=1)

    def gemm(self):
        """Multiplies float32 matrices, counted as the images whose training takes as many operations."""
        a, b = (tf.random.stateless_normal([SIZE_OF_PRODUCT] * 2, [0, i]) for i in range(2))
        products = 8

        def run():
            for _ in range(products):
                tf.matmul(a, b)

        return Task(run, products * 2 * SIZE_OF_PRODUCT**3 / training_operations(self.student()))

    # With a cache.

    def kd_cached(self):
        return self.cached(losses.SoftTargets(), 0.9)

    def kd_cached_bf16(self):
        with policy("mixed_bfloat16"):
            student = self.student()
        return self.cached(losses.SoftTargets(), 0.9, student=student)

    def tkd_in_batch_cached(self):
        return self.cached(losses.TripletDistillation(), 2.0)

    def tkd_drawn_cached(self):
        return self.cached(losses.TripletDistillation(), 2.0, self.triplets)

    def sp_cached(self):
        return self.cached(losses.SimilarityPreserving("features", "features"), 3000.0, read="features")

    def feature_cached(self):
        return self.cached(make_feature_loss(), 1.0, read="features")

    # Making a cache.

    def teacher_forward(self, model=None, batch_size=256):
        model = model or self.teacher
        forward = tf.function(lambda batch: model(batch, training=False))

        def run():
            for batch in data.view_batches(self.images, batch_size, seed=0):
                forward(batch)

        return Task(run, self.count)

    def build_logits(self):
        return self._build(losses.SoftTargets())

    def build_features(self):
        return self._build(losses.SimilarityPreserving("features", "features"))

    def _build(self, loss):
        def run():
            shutil.rmtree(f"{self.folder}/built", ignore_errors=True)
            self.cache(loss, "built")

        return Task(run, self.count)

    # A live teacher.

    def kd(self):
        return self.live(losses.SoftTargets(), 0.9)

    def logits(self):
        return self.live(losses.LogitRegression(), 0.1)

    def tkd_in_batch(self):
        return self.live(losses.TripletDistillation(), 2.0)

    def tkd_drawn(self):
        return self.live(losses.TripletDistillation(), 2.0, self.triplets)

    def sp(self):
        return self.live(losses.SimilarityPreserving("features", "features"), 3000.0)

    def kd_ensemble_of_2(self):
        ensemble = TeacherEnsemble([self.teacher, self.new_teacher()], average="losses")
        return self.fit(Distiller(ensemble, self.student(), losses.SoftTargets(), [0.9]), self.plain)

    def trikd(self):
        return self.fit(TriKD(self.new_teacher(), self.student(), self.student()), self.plain)

    def teacher_fit(self):
        return self.fit(self.new_teacher(), self.image_batches)

    def anchor_forward(self):
        return self.teacher_forward(self.student())

    def method(self, name):
        # crd keeps something of each sample: of as many as CIFAR-10 has.
        labels = np.random.default_rng(1).integers(0, self.classes, CIFAR10)
        method_losses, weights = make_losses(name, labels=labels)
        # Weights that move nothing: work is measured, and no loss may grow out of bounds on random images.
        weights = [1e-6 * weight for weight in weights]
        return self.fit(Distiller(self.teacher, self.student(), method_losses, weights), self.plain)

    # What a run adds.

    def deterministic(self, method):
        """Trains a method as `method` does, with `--deterministic`: a process has it from its beginning, or never."""
        return self._in_process("steps.py", "--deterministic", "--on_request", f"method:{method}")

    def checkpoints(self):
        """Writes the states of an epoch, and trains nothing: one every 100 steps, and the last at its end."""
        model = self.student()
        self.fit(model, self.image_batches)
        steps = count_batches(self.count, self.batch_size)
        backup = BackupState(f"{self.folder}/checkpoints", every_steps=CHECKPOINT_STEPS)
        backup.set_model(model)
        backup.set_params({"steps": steps})
        backup.on_train_begin()

        def run():
            backup.on_epoch_begin(0)
            for step in range(steps):
                backup.on_train_batch_end(step)
            backup.on_epoch_end(0, {"loss": 1.0})

        return Task(run, self.count)

    # The neighbours: Keras's Distiller on our batches, compiled as Keras does by default, and PyTorch on its own.

    def keras_distiller(self, loss=None):
        loss = loss or keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
        distiller = keras.distillation.Distiller(self.new_teacher(), self.student(), distillation_losses=loss)
        return self.fit(distiller, self.image_batches, steps_per_execution=1)

    def keras_distiller_feature(self):
        return self.keras_distiller(make_feature_loss())

    def torch_tkd_drawn(self):
        return self._torch("drawn")

    def torch_tkd_in_batch(self):
        return self._torch("in_batch")

    def _torch(self, negatives):
        # In one process the frameworks would hinder each other.
        return self._in_process("torch_tkd.py", f"--negatives={negatives}")

    def _in_process(self, program, *arguments):
        """Runs epochs in a process of its own, which sleeps between them."""
        command = [sys.executable, f"{HERE}/{program}", f"--images={self.count}", *arguments]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

        def run():
            child.stdin.write("epoch\n")
            if child.stdout.readline() != f"{DONE}\n":
                raise RuntimeError(f"{command} ended")

        return Task(run, self.count)

    # The pipeline alone.

    def pipeline(self, augment=None):
        batches = data.triplet_dataset(self.images, self.labels, self.batch_size, seed=0, augment=augment)

        def run():
            for _ in batches:
                pass

        return Task(run, self.count)

    def pipeline_augmented(self):
        return self.pipeline(data.crop_and_flip)

    # Photographs in a folder.

    @functools.cached_property
    def photographs(self):
        """Paths of JPEG files of ImageNet's size, smooth with some noise, in a folder for each of two classes."""
        paths = []
        for number in range(self.count):
            seed = [0, number]
            coarse = tf.random.stateless_uniform((8, 10, 3), seed, 0, 256)
            smooth = tf.image.resize(coarse, PHOTOGRAPH, "bicubic")
            noisy = smooth + tf.random.stateless_normal((*PHOTOGRAPH, 3), seed, stddev=8.0)
            path = f"{self.folder}/photographs/{number % 2}/{number:06d}.jpg"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            tf.io.write_file(path, tf.io.encode_jpeg(tf.saturate_cast(noisy, tf.uint8), quality=90))
            paths.append(path)
        return paths

    def bare_decode(self):
        """Decodes and resizes photographs on all cores, as little as it takes."""

        def decode(path):
            image = tf.io.decode_jpeg(tf.io.read_file(path), 3)
            return tf.image.resize(image, DECODED, antialias=True)

        # In a random order, as those of a training.
        paths = np.random.default_rng(0).permutation(self.photographs)
        images = tf.data.Dataset.from_tensor_slices(paths).map(decode, tf.data.AUTOTUNE)
        batches = images.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)

        def run():
            for _ in batches:
                pass

        return Task(run, self.count)

    def folder_decode(self):
        """Makes batches of the photographs of a folder that is streamed, all of which are for training."""
        size, window = DECODED[0], self.count // WINDOWS
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as table:
            rows = [
                f"{os.path.relpath(path, self.folder)},{number % 2},train"
                for number, path in enumerate(self.photographs)
            ]
            # Every class needs images on both sides: two of them once more, under another name.
            rows += [f"{label}.jpg,{label},test" for label in range(2)]
            for label in range(2):
                shutil.copy(self.photographs[label], f"{self.folder}/{label}.jpg")
            table.write("\n".join(["file,label,split", *rows]))
            table.flush()
            splits = data.load(self.folder, labels=table.name, image_size=size, shuffle_window=window)
        batches = data.image_dataset(splits.train_images, splits.train_labels, self.batch_size, seed=0)

        def run():
            for _ in batches:
                pass

        return Task(run, self.count)


def make_feature_loss():
    """Makes Keras's own loss, which both Distillers take: `features` of a ResNet and of the student have one shape."""
    return keras.distillation.FeatureDistillation("mse", "features", "features")


@contextlib.contextmanager
def policy(name):
    """Sets Keras's precision policy inside a block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
