"""Every method in training: its own term falls on digits; its layers train, are saved, and stay out of the student."""

import pathlib

import keras
import numpy as np
import pytest
import rounding

from keras_tkd import Distiller, data, models
from keras_tkd.callbacks import WarmUp
from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.methods import METHODS
from keras_tkd.runs import distillation_setup, generations, optimization
from keras_tkd.runs.inputs import Inputs

FLAGS = pathlib.Path(__file__).parents[2] / "flags" / "digits"
DISTILLING = [name for name, method in METHODS.items() if method.terms and not method.online]
# Those whose teacher learns too; test_trikd.py has their step under XLA and in mixed precision.
ONLINE = [name for name, method in METHODS.items() if method.online]
WITH_LAYERS = ["fitnet", "vid", "fsp", "crd"]
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = keras.metrics.SparseCategoricalAccuracy  # made before the step, which is then traced once


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def some_digits(digits):
    """Images and labels of sixteen steps of 64: in four epochs of them every loss falls."""
    return digits.train_images[:1024], digits.train_labels[:1024]


@pytest.fixture(scope="module")
def teacher(digits):
    keras.utils.set_random_seed(0)
    model = models.build("digits_teacher", digits.image_shape, digits.num_classes)
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), LABEL_LOSS, metrics=[ACCURACY("accuracy")])
    history = model.fit(digits.train_images, digits.train_labels, batch_size=64, epochs=4, verbose=0).history
    assert history["accuracy"][-1] > 0.8
    return model


def config_of(method):
    """The flagfile's configuration."""
    return DistillConfig(**read_flags(DistillConfig, (FLAGS / f"{method}.flags").read_text())).resolved()


@pytest.mark.parametrize("method", DISTILLING)
def test_own_term_falls_on_digits(method, digits, some_digits, teacher):
    config = config_of(method)
    keras.utils.set_random_seed(0)
    student = models.build(config.student_model, digits.image_shape, digits.num_classes)
    distiller = Distiller(teacher, student, *Inputs(digits).make_losses(config))
    distiller.compile(keras.optimizers.SGD(config.learning_rate, momentum=config.momentum), LABEL_LOSS)
    pipeline = distillation_setup.make_pipeline(config, teacher)
    batches = pipeline(*some_digits, batch_size=64, seed=0, training=True)
    history = distiller.fit(batches, epochs=4, verbose=0, shuffle=False).history
    for name in distiller.term_names:
        assert history[name][-1] < history[name][0], name


@pytest.mark.parametrize("method", ONLINE)
def test_own_terms_fall_on_digits_where_the_teacher_learns_too(method, digits, some_digits, teacher):
    """From a teacher that is ahead: two that begin as equals agree at first, for neither knows anything."""
    config = config_of(method)
    keras.utils.set_random_seed(0)
    student, anchor = (models.build(config.student_model, digits.image_shape, digits.num_classes) for _ in range(2))
    online = models.build(config.teacher_model, digits.image_shape, digits.num_classes)
    online.set_weights(teacher.get_weights())
    anchored = METHODS[method].online.anchored
    trikd = generations.make_trikd(config, online, student, anchor if anchored else None)
    own, teachers = (optimization.make_optimizer(of) for of in (config, config.teacher))
    trikd.compile(own, LABEL_LOSS, teacher_optimizer=teachers)
    batches = data.triplet_dataset(*some_digits, 64, seed=0, negatives=None)
    history = trikd.fit(batches, epochs=3, verbose=0, shuffle=False).history
    for name in ["kd", "teacher_peer", *(["teacher_anchor"] if anchored else [])]:
        assert history[name][-1] < history[name][0], name


def small(width, name):
    """A network of all the layers that methods read, on 8x8 images."""
    x = images = keras.Input((8, 8, 1))
    for stage in (1, 2, 3):
        x = keras.layers.Conv2D(width, 3, padding="same", name="features" if stage == 3 else f"conv{stage}")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(name=f"stage{stage}")(x)
    x = keras.layers.Flatten(name="embedding")(x)
    return keras.Model(images, keras.layers.Dense(3, name="logits", dtype="float32")(x), name=name)


RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(12, 8, 8, 1)).astype("float32")
LABELS = np.arange(12) % 3
BATCHES = data.triplet_dataset(IMAGES, LABELS, 4, seed=0, negatives=None, training=False)


def small_distiller(*methods, policy="float32", scale=1.0, **options):
    """A Distiller with the losses of all `methods`, their weights times `scale`."""
    keras.utils.set_random_seed(1)
    teacher, student = small(6, "teacher"), small(4, "student")
    for layer in [*teacher.layers, *student.layers]:
        layer.dtype_policy = "float32" if layer.name == "logits" else policy
    losses, weights = [], []
    for method in methods:
        of_method, published = make_losses(method, labels=LABELS)
        losses += of_method
        weights += [scale * weight for weight in published]
    distiller = Distiller(teacher, student, losses, weights)
    distiller.compile(keras.optimizers.SGD(0.001, momentum=0.9), LABEL_LOSS, **options)
    return distiller


def fit(distiller, epochs=2):
    return distiller.fit(BATCHES, epochs=epochs, verbose=0, shuffle=False).history


def test_every_methods_step_is_the_same_under_xla():
    """Which Keras uses by default on a GPU. The losses of all methods in one step: one compilation."""
    ways = {"run_eagerly": True}, {"jit_compile": True}
    # Three steps: the values of the last ones are of weights that the first has moved.
    plain, compiled = (fit(small_distiller(*DISTILLING, scale=1e-3, **way), epochs=1) for way in ways)
    # XLA takes sums, the longest of 3 * 3 * 6 terms, in another order. The largest parts of a loss are kd's, at T = 4.
    rtol, atol = rounding.of_sums(3 * 3 * 6, 3), rounding.of_soft_targets(4, 3)
    for name, values in plain.items():
        np.testing.assert_allclose(values, compiled[name], rtol, atol, err_msg=name)


def test_every_methods_step_in_mixed_precision_stays_near_float32():
    """The losses are computed in float32 from outputs of 8 (bfloat16) or 11 bits. (Op by op: no graph to make.)"""
    scaled, batch = {"scale": 1e-3, "run_eagerly": True}, BATCHES.take(1)
    exact = small_distiller(*DISTILLING, **scaled).evaluate(batch, verbose=0, return_dict=True)
    for policy in ("mixed_bfloat16", "mixed_float16"):
        mixed = small_distiller(*DISTILLING, policy=policy, **scaled)
        measured = mixed.evaluate(batch, verbose=0, return_dict=True)
        for name in mixed.term_names:
            np.testing.assert_allclose(measured[name], exact[name], rtol=0.15, atol=1e-3, err_msg=name)


def test_every_methods_step_trains_in_float16():
    """Where it is hardest: its loss scaling starts by skipping steps."""
    distiller = small_distiller(*DISTILLING, policy="mixed_float16", scale=1e-3)
    before = distiller.student.get_weights()
    fit(distiller, epochs=20)
    after = distiller.student.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    assert not np.array_equal(before[0], after[0])


@pytest.mark.parametrize("method", ["fitnet", "crd"])
def test_layers_of_a_loss_train_and_are_saved_and_are_not_in_the_student(method, tmp_path):
    distiller = small_distiller(method)
    before = [weight.copy() for layer in distiller.loss_layers for weight in layer.get_weights()]
    fit(distiller)
    after = [weight for layer in distiller.loss_layers for weight in layer.get_weights()]
    assert before and all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    again = [weight for layer in loaded.loss_layers for weight in layer.get_weights()]
    for a, b in zip(after, again, strict=True):
        np.testing.assert_array_equal(a, b)
    ours, theirs = fit(distiller), fit(loaded)
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-5, err_msg=name)

    distiller.student.save(tmp_path / "student.keras")
    student = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    # Three convolutions and a dense layer, with their biases.
    assert student.count_params() == (9 * 1 + 1) * 4 + 2 * (9 * 4 + 1) * 4 + (4 + 1) * 3


def test_layers_of_a_loss_do_not_move_in_evaluation():
    for method in WITH_LAYERS:
        distiller = small_distiller(method)
        before = [weight.copy() for layer in distiller.loss_layers for weight in layer.get_weights()]
        assert np.isfinite(distiller.evaluate(BATCHES, verbose=0)).all()
        after = [weight for layer in distiller.loss_layers for weight in layer.get_weights()]
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_regularizers_of_a_losss_layers_count():
    distiller = small_distiller("fsp")
    plain = distiller.evaluate(BATCHES, verbose=0, return_dict=True)
    (projector, other) = distiller.loss_layers
    projector.kernel.regularizer = keras.regularizers.L2(0.5)
    assert other is not projector
    distiller = Distiller(distiller.teacher, distiller.student, distiller.distillation_losses, [50.0])
    distiller.compile("sgd", LABEL_LOSS)
    result = distiller.evaluate(BATCHES, verbose=0, return_dict=True)
    decay = 0.5 * (projector.get_weights()[0] ** 2).sum()
    assert result["regularization"] == pytest.approx(decay, rel=1e-5)
    assert result["loss"] == pytest.approx(plain["loss"] + decay, rel=1e-4)


def test_warm_up_raises_the_weights_by_epoch():
    distiller = small_distiller("dkd")
    distiller.distillation_loss_weights = [3.0]
    plain = distiller.evaluate(BATCHES, verbose=0, return_dict=True)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counted = (logs["val_loss"] - logs["val_student_loss"]) / logs["val_dkd"]
            seen.append((distiller.distillation_share, counted, distiller.distillation_loss_weights))

    given = {"verbose": 0, "shuffle": False, "validation_data": BATCHES, "callbacks": [WarmUp(4), Watch()]}
    assert plain["loss"] == pytest.approx(plain["student_loss"] + 3 * plain["dkd"], rel=1e-5)
    distiller.fit(BATCHES, epochs=6, initial_epoch=1, **given)
    # Epochs 1 to 5 of a warm-up of 4: 2/4, 3/4, and then all.
    assert [share for share, *_ in seen] == [0.5, 0.75, 1.0, 1.0, 1.0]
    np.testing.assert_allclose([counted for _, counted, _ in seen], [1.5, 2.25, 3.0, 3.0, 3.0], rtol=1e-4)
    assert {weights for *_, weights in seen} == {(3.0,)}
    with pytest.raises(ValueError, match="epochs=0"):
        WarmUp(0)


def test_privileged_teacher_sees_the_whole_image_and_the_student_a_masked_one(digits, teacher):
    whole = digits.train_images
    masked = whole.copy()
    masked[:, :, 4:] = 0
    keras.utils.set_random_seed(0)
    student = models.build("digits_student", digits.image_shape, digits.num_classes)
    distiller = Distiller(teacher, student, *make_losses("logits"))
    distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9), LABEL_LOSS, metrics=[ACCURACY("accuracy")])
    batches = data.triplet_dataset(masked, digits.train_labels, 64, seed=0, negatives=None, teacher_images=whole)
    history = distiller.fit(batches, epochs=4, verbose=0, shuffle=False).history
    assert history["logits"][-1] < history["logits"][0]
    seen = distiller.evaluate(batches, verbose=0, return_dict=True)
    z_t, z_s = teacher.predict(whole, verbose=0), student.predict(masked, verbose=0)
    assert seen["logits"] == pytest.approx(((z_t - z_s) ** 2).mean(), rel=1e-4)
    assert seen["agreement"] == pytest.approx((z_t.argmax(-1) == z_s.argmax(-1)).mean(), abs=1e-6)
    assert seen["accuracy"] == pytest.approx((z_s.argmax(-1) == digits.train_labels).mean(), abs=1e-6)
