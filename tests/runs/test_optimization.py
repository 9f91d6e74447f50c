"""Schedules of a long training, to the last bit of the optimizer's float32; optimizers and label losses, by hand."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from keras_tkd import Distiller, TriKD, data, losses, models
from keras_tkd.callbacks import WarmUp
from keras_tkd.config import TeacherTrainingConfig
from keras_tkd.config.training import RunConfig
from keras_tkd.runs import commands, optimization
from keras_tkd.utils.precision import set_precision

EPOCHS = 1_000
# By hand, at a first rate of 0.1.
LAST_RATES = {
    "constant": ({}, 0.1),
    # Three times a tenth, on the way and in the very last epoch.
    "step": ({"schedule_epochs": (300, 600, EPOCHS - 1)}, 0.0001),
    # 0.1 (1 + cos(pi 999 / 1000)) / 2, by the half angle, where nothing cancels: 1 - cos(x) is 2 sin(x / 2)^2.
    "cosine": ({}, 0.1 * np.sin(np.pi / (2 * EPOCHS)) ** 2),
}


def test_every_schedule_has_its_row():
    assert LAST_RATES.keys() == set(RunConfig.__dataclass_fields__["schedule"].metadata["choices"])


@pytest.mark.parametrize("schedule", LAST_RATES)
def test_a_thousand_epochs_end_at_exactly_the_last_rate(schedule):
    settings, expected = LAST_RATES[schedule]
    config = TeacherTrainingConfig(epochs=EPOCHS, learning_rate=0.1, schedule=schedule, **settings)
    optimizer = optimization.make_optimizer(config)
    callback = optimization.schedule_learning_rate(optimizer, config)
    rates = []
    for epoch in range(EPOCHS):
        callback.on_epoch_begin(epoch)
        rates.append(optimizer.learning_rate.numpy())
    assert rates[0] == np.float32(0.1) and rates[-1] == np.float32(expected)
    assert np.all(np.diff(rates) <= 0)


def test_a_thousand_epochs_of_warming_up_end_at_exactly_the_weights():
    model = types.SimpleNamespace(distillation_share=None)
    callback = WarmUp(EPOCHS)
    callback.set_model(model)
    shares = []
    for epoch in range(EPOCHS):
        callback.on_epoch_begin(epoch)
        shares.append(model.distillation_share)
    np.testing.assert_allclose(shares, np.arange(1, EPOCHS + 1) / EPOCHS, rtol=1e-12)
    assert shares[-1] == 1.0


def step(config, gradient, weights=(1.0, -2.0), wrap=None):
    """What one step of a configuration's optimizer adds to weights."""
    variable = keras.Variable(np.array(weights, "float32"))
    optimizer = optimization.make_optimizer(config)
    optimizer = wrap(optimizer) if wrap else optimizer
    optimizer.build([variable])
    gradient = optimizer.scale_loss(keras.ops.convert_to_tensor(np.array(gradient, "float32")))
    optimizer.apply([gradient], [variable])
    return variable.numpy() - np.array(weights, "float32")


def test_the_first_step_of_each_optimizer():
    settings = {"learning_rate": 0.1, "weight_decay": 0.5}
    np.testing.assert_allclose(step(TeacherTrainingConfig(**settings), [2.0, 4.0]), [-0.2, -0.4], rtol=1e-6)
    # Adam's first step is the rate, whatever the gradient's length; the coupled decay is a part of the loss, not of it.
    adam = step(TeacherTrainingConfig(**settings, optimizer="adam"), [2.0, 4.0])
    np.testing.assert_allclose(adam, [-0.1, -0.1], rtol=1e-5)
    # Decoupled: 0.1 * 0.5 * w more is taken off.
    adamw = step(TeacherTrainingConfig(**settings, optimizer="adamw"), [2.0, 4.0])
    np.testing.assert_allclose(adamw, [-0.1 - 0.05, -0.1 + 0.1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_is_taken_once(optimizer):
    config = TeacherTrainingConfig(weight_decay=0.5, optimizer=optimizer)
    assert config.coupled_weight_decay == (0.0 if optimizer == "adamw" else 0.5)


# Loss scaling multiplies gradients by 2**15 before they come to the optimizer.
@pytest.mark.parametrize("wrap", [None, keras.optimizers.LossScaleOptimizer])
def test_clipping_is_by_the_norm_of_the_gradient_itself(wrap):
    config = TeacherTrainingConfig(learning_rate=0.1, clip_norm=0.5)
    # Of norm 5: a tenth of it is left, and 0.1 is the rate.
    np.testing.assert_allclose(step(config, [3.0, 4.0], wrap=wrap), [-0.03, -0.04], rtol=1e-4)
    np.testing.assert_allclose(step(config, [0.3, 0.4], wrap=wrap), [-0.03, -0.04], rtol=1e-4)
    # Shorter than that, it stays.
    np.testing.assert_allclose(step(config, [0.03, 0.04], wrap=wrap), [-0.003, -0.004], rtol=1e-4)


def test_both_optimizers_of_a_student_and_its_teacher_clip_under_loss_scaling():
    config = TeacherTrainingConfig(clip_norm=0.5)
    teacher, student = (models.build(f"digits_{role}", (8, 8, 1), 10) for role in ("teacher", "student"))
    for model in (teacher, student):
        set_precision(model, "mixed_float16")
    trikd = TriKD(teacher, student)
    optimization.compile_model(trikd, config, teacher_optimizer=optimization.make_optimizer(config))
    for optimizer in (trikd.optimizer, trikd.teacher_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert optimizer.inner_optimizer.global_clipnorm == 0.5


LABELS = np.repeat([0, 1, 2], [6, 3, 1])


def test_balanced_weights_are_those_of_scikit_learn():
    weights = optimization.compute_class_weights(TeacherTrainingConfig(class_weight="balanced"), LABELS, "abc")
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=LABELS), rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)
    assert optimization.compute_class_weights(TeacherTrainingConfig(), LABELS, "abc") is None


class Block(keras.layers.Layer):
    """A layer of layers without a graph."""

    def build(self, shape):
        self.dense = keras.layers.Dense(4)
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)[:, ::2]


def make_counted(trainable=True):
    """Two layers: of 3 * 3 * 1 * 4 + 4 = 40 weights at 8 * 8 places, and of 256 * 10 + 10 = 2,570 weights at one."""
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(hidden)))
    model.trainable = trainable
    return model


def test_large_steps_are_executed_one_by_one_and_small_ones_together(monkeypatch):
    """Signals are looked at between executions: of large steps eight would keep them waiting."""
    monkeypatch.setattr(optimization, "STEPS_PER_EXECUTION", 8)
    alone = 3 * (64 * 40 + 2570)  # forward, and twice back
    around = Distiller(make_counted(), make_counted(), losses.SoftTargets())
    tokens = keras.Sequential([keras.Input((6, 3)), Block()])  # 3 * 4 + 4 = 16 weights, at six places at most
    cases = ((make_counted(), alone), (make_counted(False), alone // 3), (around, alone + alone // 3))
    for model, each in (*cases, (tokens, 3 * 6 * 16)):
        for steps, expected in ((80, 8), (8.5, 8), (5.5, 5), (1.5, 1), (0.01, 1)):
            batch_size = int(5e10 / steps / each)
            assert optimization.count_steps_together(model, batch_size) == expected, (model.name, steps)
    for batch_size, expected in ((8, 8), (10**7, 1)):
        model = make_counted()
        optimization.compile_model(model, TeacherTrainingConfig(batch_size=batch_size))
        assert model.steps_per_execution == expected


def test_a_class_without_images_has_no_weight():
    with pytest.raises(ValueError, match="class_weight='balanced', and class 'd' has none"):
        optimization.compute_class_weights(TeacherTrainingConfig(class_weight="balanced"), LABELS, "abcd")


def test_labels_are_smoothed_and_weighted_in_the_loss_alone():
    """Two images by hand: -sum_c q_c log p_c, with q = 0.9 + 0.1 / 3 of the label's class and 0.1 / 3 of others."""
    config = TeacherTrainingConfig(label_smoothing=0.1)
    labels = optimization.make_label_map(config, 3, np.array([2.0, 0.5, 1.0]))
    x, rows, weights = labels(tf.zeros((2, 1)), tf.constant([0, 2]))
    assert rows.numpy().tolist() == [[1, 0, 0], [0, 0, 1]] and weights.numpy().tolist() == [2.0, 1.0]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    optimization.compile_model(model, config)
    p = np.array([0.7, 0.2, 0.1])
    logits = tf.constant(np.log([p, p]), tf.float32)
    q = np.array([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3], [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3]])
    each = -(q * np.log(p)).sum(1)
    assert float(model.loss(rows, logits)) == pytest.approx(each.mean(), rel=1e-6)
    assert float(model.loss(rows, logits, sample_weight=weights)) == pytest.approx((2 * each[0] + each[1]) / 2)
    # Without either, nothing is changed.
    assert optimization.make_label_map(TeacherTrainingConfig(), 3)(x, rows) == (x, rows)


def make_unbalanced_folder(folder):
    """48 dark images and 12 light ones, of noise; a fifth of each is for testing."""
    rng = np.random.default_rng(0)
    for name, count, low in (("dark", 48, 0), ("light", 12, 60)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(low, low + 160, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


def test_a_run_trains_as_keras_does_with_smoothing_weights_and_clipping(tmp_path):
    """Against Keras's own `fit(class_weight=...)`."""
    config = TeacherTrainingConfig(
        dataset=make_unbalanced_folder(tmp_path / "images"),
        teacher_model="digits_student",
        epochs=2,
        batch_size=16,
        learning_rate=0.01,
        schedule="constant",
        optimizer="adamw",
        weight_decay=0.01,
        label_smoothing=0.2,
        class_weight="balanced",
        clip_norm=0.3,
    )
    results = commands.train_teacher(config, tmp_path / "run")
    trained = keras.saving.load_model(tmp_path / "run" / "teacher.keras", compile=False)
    splits = data.load(config.dataset)
    counts = np.bincount(splits.train_labels)
    assert counts.tolist() == [38, 10]

    def fit_alone(**given):
        keras.utils.set_random_seed(config.seed)
        model = models.build("digits_student", splits.image_shape, 2)
        model.compile(
            keras.optimizers.AdamW(0.01, weight_decay=0.01, global_clipnorm=0.3),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
        )
        batches = data.image_dataset(splits.train_images, splits.train_labels, 16, seed=config.seed)
        batches = batches.map(lambda image, label: (image, tf.one_hot(label, 2)))
        model.fit(batches, epochs=2, verbose=0, shuffle=False, **given)
        return np.concatenate([weights.ravel() for weights in model.get_weights()])

    ours = np.concatenate([weights.ravel() for weights in trained.get_weights()])
    np.testing.assert_allclose(ours, fit_alone(class_weight={0: 48 / (2 * 38), 1: 48 / (2 * 10)}), atol=1e-5)
    assert np.abs(ours - fit_alone()).max() > 1e-3

    confusion = np.array(results["teacher"]["confusion_matrix"])
    assert confusion.sum(axis=1).tolist() == [10, 2]
    recalls = np.diagonal(confusion) / [10, 2]
    assert results["teacher"]["test_accuracy"] == pytest.approx(np.trace(confusion) / 12)
    assert results["teacher"]["per_class_accuracy"] == pytest.approx(dict(zip(("dark", "light"), recalls, strict=True)))
    assert results["teacher"]["balanced_accuracy"] == pytest.approx(recalls.mean())
    # A row of the matrix is a line of the file.
    text = (tmp_path / "run" / "results.json").read_text()
    assert f"[{confusion[0, 0]}, {confusion[0, 1]}]" in text
