"""Looks at plain Keras, and at models of this package, on two logical CPU devices: run by the tests, as a process.

    python probe.py FILE

Writes what each function of `PLAIN` and `OURS` returns, as JSON by its name.
"""

import json
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras  # noqa: E402
import numpy as np  # noqa: E402
import plain_keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_tkd import Distiller, callbacks, distribution, losses  # noqa: E402

STRATEGY = None  # two replicas; made by `main`
IN_TURN = {"shuffle": False, "verbose": 0}


# Plain Keras.


def one_weight(optimizer):
    """A model `w x`, w = 1, whose loss is the mean of its outputs: the gradient is the mean of x."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(optimizer, lambda y, outputs: outputs)
    return model


def step_of_one_weight(optimizer, x):
    """The weight after a step on a batch `x`: of one device, and of two replicas."""
    x = np.array(x, "float32")[:, None]
    weights = []
    for scope in (tf.distribute.get_strategy().scope, STRATEGY.scope):
        with scope():
            model = one_weight(optimizer())
        model.fit(x, np.zeros(len(x)), batch_size=len(x), **IN_TURN)
        weights.append(float(model.get_weights()[0][0, 0]))
    return weights


def clipped_step():
    return step_of_one_weight(lambda: keras.optimizers.SGD(0.25, clipvalue=1.0), [8.0, 8.0])


def scaled_step():
    scale = keras.optimizers.LossScaleOptimizer
    return step_of_one_weight(lambda: scale(keras.optimizers.SGD(0.25), initial_scale=1.0), [1.0, np.inf])


def fit_on_uneven_shares():
    with STRATEGY.scope():
        model = one_weight("sgd")
    try:
        model.fit(np.ones((3, 1)), np.zeros(3), batch_size=3, **IN_TURN)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def statistics_of_an_empty_share():
    """BatchNorm's moving means after a batch of 4, and one of 1, of which the second replica has none: of each."""
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.5)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.array([1.0, 3.0, 5.0, 7.0, 10.0])[:, None]
    model.fit(x, x, batch_size=4, **IN_TURN)
    return [float(mean[0]) for mean in STRATEGY.experimental_local_results(model.layers[0].moving_mean.value)]


PLAIN = clipped_step, scaled_step, fit_on_uneven_shares, statistics_of_an_empty_share


# This package.


def linear(weights, name):
    inputs = keras.Input((np.shape(weights)[0],))
    layer = keras.layers.Dense(np.shape(weights)[1], use_bias=False)
    model = keras.Model(inputs, layer(inputs), name=name)
    model.set_weights([np.array(weights, "float32")])
    return model


def distill(teacher, student, loss, gather="global", label_loss=None, strategy=None):
    with (strategy or STRATEGY).scope():
        models = linear(teacher, "teacher"), linear(student, "student")
        model = Distiller(*models, loss, student_loss_weight=0.0, gather=gather)
        model.compile(keras.optimizers.SGD(1.0), label_loss)
    return model


def similarities_of_a_share():
    """SP of four images, two for each replica, by how it is gathered."""
    # Teacher and student each see one half of the input, as it is.
    x = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], "float32")
    first, second = np.eye(4)[:, :2], np.eye(4)[:, 2:]
    return {
        gather: distill(first, second, losses.SimilarityPreserving(), gather).evaluate(x, verbose=0, return_dict=True)
        for gather in ("global", "local")
    }


def step_on_similarities_of_shares():
    """A step on three images, of which the first replica has two, and that of the mean of the shares' losses."""
    rng = np.random.default_rng(0)
    x, teacher, student = (rng.normal(size=shape).astype("float32") for shape in ((3, 4), (4, 3), (4, 3)))
    loss = losses.SimilarityPreserving()
    model = distill(teacher, student, losses.SimilarityPreserving(), "local")
    model.fit(x, batch_size=3, **IN_TURN)
    weights = tf.Variable(student)
    with tf.GradientTape() as tape:
        shares = [loss(part @ teacher, tf.constant(part) @ weights) for part in (x[:2], x[2:])]
        total = (2 * shares[0] + shares[1]) / 3
    return {"moved": model.student.get_weights()[0], "expected": student - tape.gradient(total, weights)}


def steps_of_one_replica():
    """Of one device, and a strategy of one: weights after a step, after one on no numbers, and what that said."""
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = np.arange(8, dtype="float32").reshape(4, 2), np.array([0, 1, 0, 1])
    ends = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        model = distill(np.eye(2), 2 * np.eye(2), losses.SoftTargets(), "global", crossentropy, strategy)
        model.fit(x, y, batch_size=4, **IN_TURN)
        weights, said = model.student.get_weights()[0], None
        try:
            model.fit(x * np.nan, y, batch_size=4, **IN_TURN)
        except FloatingPointError as error:
            said = str(error)
        ends.append([weights, model.student.get_weights()[0], said])
    return ends


def message_of_a_share(poison):
    """The error of a `fit` with `gather="local"` on four images; the last one, the second replica's, is changed."""
    x, y = np.arange(8, dtype="float32").reshape(4, 2), np.array([0, 1, 0, 1])
    poison(x, y)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = distill(np.eye(2), np.eye(2), losses.SoftTargets(), "local", crossentropy)
    try:
        model.fit(x, y, batch_size=4, **IN_TURN)
    except (ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def a_label_of_one_share():
    return message_of_a_share(lambda x, y: y.__setitem__(3, 7))


def an_image_of_one_share():
    return message_of_a_share(lambda x, y: x.__setitem__((3, 0), np.nan))


def network(seed):
    start = keras.initializers.GlorotUniform(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=start)])


class Stop(keras.callbacks.Callback):
    """Ends a training as a kill does, after so many batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def resumed_training():
    """Weights and curves of two epochs: at once, taken up within one by ours, and after one by Keras's callback."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)).astype("float32"), rng.integers(0, 3, 9)

    def make():
        with STRATEGY.scope():
            # An optimizer with a state of its own.
            model = Distiller(network(1), network(2), losses.SoftTargets())
            model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def batches(skipped=0):
        # The last one of an epoch has an image for the first replica alone.
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(4).skip(skipped)

    def end(model, history):
        return {"weights": [weight.tolist() for weight in model.student.get_weights()], "loss": history}

    model = make()
    ends = {"at once": end(model, model.fit(batches(), epochs=2, verbose=0).history["loss"])}

    folder = tempfile.mkdtemp()
    ours, kerass = os.path.join(folder, "ours"), os.path.join(folder, "keras")
    killed = [callbacks.BackupState(ours, every_steps=1), keras.callbacks.BackupAndRestore(kerass), Stop(5)]
    try:
        make().fit(batches(), epochs=2, verbose=0, callbacks=killed)
    except KeyboardInterrupt:
        pass
    model, backup = make(), callbacks.BackupState(ours, every_steps=1)
    epoch, step = backup.restore(model, batches())
    model.fit(batches(step), initial_epoch=epoch, epochs=2, verbose=0, callbacks=[backup])
    ends["BackupState"] = end(model, [each["loss"] for each in backup.history]) | {"position": [epoch, step]}

    model = make()
    history = model.fit(batches(), epochs=2, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(kerass)]).history
    ends["BackupAndRestore"] = end(model, history["loss"])
    return ends


def check_of_a_batch():
    """What `check` says of a batch outside of the strategy's scope, what that is, and what it says inside."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher, student = rng.normal(size=(2, 4, 3))
    model = distill(teacher, student, losses.SoftTargets(), label_loss=crossentropy)
    loss = losses.SoftTargets()(x @ teacher, x @ student)
    (row,) = [row for row in model.check((x, y)).rows if row.term == "kd"]
    with STRATEGY.scope():
        try:
            model.check((x, y))
        except ValueError as error:
            return [row.value, float(loss), str(error)]


OURS = (
    statistics_of_an_empty_share,
    similarities_of_a_share,
    step_on_similarities_of_shares,
    steps_of_one_replica,
    a_label_of_one_share,
    an_image_of_one_share,
    resumed_training,
    check_of_a_batch,
)


def main(path):
    global STRATEGY
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    # What makes a graph run fast costs more than it saves where each runs a few times.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    STRATEGY = distribution.make_strategy("mirrored")
    with plain_keras.unmended():
        found = {"plain": {look.__name__: look() for look in PLAIN}}
    found["ours"] = {look.__name__: look() for look in OURS}
    with open(path, "w") as file:
        json.dump(found, file, default=lambda array: np.asarray(array).tolist())


if __name__ == "__main__":
    main(sys.argv[1])
