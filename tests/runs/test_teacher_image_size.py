"""Runs whose teacher sees images of another size: what it says is of the stored pixels, by every way to the student.

Classes differ by a chequered pattern that is there in the stored 16x16 pixels alone: at 8x8 all images are grey.
"""

import json

import keras
import numpy as np
import PIL.Image
import pytest
import rounding

from keras_tkd.config import DistillConfig, EvaluateConfig
from keras_tkd.runs import commands
from keras_tkd.runs.images import load_splits
from keras_tkd.runs.sweep_plan import choose_by_data, list_steps, make_configs

CONTRASTS = {"flat": 0, "weak": 50, "strong": 100}
QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "baseline": "none", "check": "off", "method": "kd"}
SIZES = {"image_size": 8, "teacher_image_size": 16, "student_model": "digits_student"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chequered")
    rng = np.random.default_rng(0)
    signs = (-1) ** np.add.outer(np.arange(16), np.arange(16))
    for name, contrast in CONTRASTS.items():
        (root / name).mkdir()
        for number in range(20):
            pixels = rng.integers(110, 140) + contrast * signs
            PIL.Image.fromarray(np.repeat(pixels[..., None], 3, 2).astype("uint8")).save(root / name / f"{number}.png")
    return str(root)


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory):
    """Knows the classes by the mean distance of two neighbours, twice the contrast: logits are -(distance - its)^2."""
    pixels = keras.Input((None, None, 3))
    distance = keras.ops.abs(pixels[:, :, 1:, :1] - pixels[:, :, :-1, :1]) / 40
    known = keras.layers.GlobalAveragePooling2D()(distance)
    logits = keras.layers.Dense(3)
    model = keras.Model(pixels, logits(known))
    own = np.array([0.0, 100.0, 200.0]) / 40  # in the order of the names: flat, strong, weak
    own = own[[0, 2, 1]]
    logits.set_weights([2 * own[None], -(own**2)])
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    model.save(path)
    return str(path)


@pytest.fixture(scope="module")
def distill(folder, teacher_path):
    def run(workdir, **settings):
        settings = {"dataset": folder, "teacher_path": teacher_path} | QUICK | SIZES | settings
        return commands.distill(DistillConfig(**settings), workdir)

    return run


def read_losses(workdir, *names):
    history = json.loads((workdir / "checkpoints" / "student" / "record.json").read_text())["history"]
    return np.array([[epoch[name] for name in names] for epoch in history])


def test_networks_of_a_comparison_are_chosen_by_what_each_of_the_two_sees(folder):
    """Of 8 pixels and of 16, as in a run."""
    config = DistillConfig(dataset=folder, method="kd", image_size=8, teacher_image_size=16)
    chosen, splits = choose_by_data(config)
    assert (chosen["teacher_model"], chosen["student_model"]) == ("tkd_teacher", "digits_student")
    assert splits.for_teacher.image_shape == (16, 16, 3)


def test_the_teacher_knows_what_the_student_does_not_see(distill, tmp_path, folder, teacher_path):
    results = distill(tmp_path)
    assert results["teacher"]["test_accuracy"] == 1 and results["teacher"]["image_shape"] == [16, 16, 3]
    assert "--teacher_image_size=16" in results["flags"]
    assert "image_shape" not in results["student"]
    assert keras.models.load_model(tmp_path / "student.keras").input_shape == (None, 8, 8, 3)
    settings = {"model_path": str(tmp_path / "student.keras"), "dataset": folder, "teacher_path": teacher_path}
    same = commands.evaluate(EvaluateConfig(**settings, image_size=8, teacher_image_size=16))
    assert same["teacher"]["test_accuracy"] == 1 and same["agreement"] == results["student"]["agreement"]
    # At the student's size, the pattern is gone.
    blind = commands.evaluate(EvaluateConfig(**settings, image_size=8))
    assert blind["teacher"]["test_accuracy"] == pytest.approx(1 / 3)


WAYS = {
    "images as they are": {},
    "views": {"augmentation": "crop_flip", "teacher_views": 2},
    "drawn negatives": {"method": "tkd"},
    "partners": {"method": "pairs"},
    "mixed images": {"mixup": 0.4, "cutmix": 1.0, "teacher_views": 2},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_outputs_that_are_kept_are_those_of_the_live_teacher(settings, distill, tmp_path):
    term = {"kd": "kd", "tkd": "tkd", "pairs": "pairs"}[settings.get("method", "kd")]
    losses = {}
    for name, more in (
        ("live", {"teacher_cache": "off"}),
        ("kept", {"teacher_cache": "workdir"}),
        ("blind", {"teacher_cache": "off", "teacher_image_size": None}),
    ):
        distill(tmp_path / name, **settings, **more)
        losses[name] = read_losses(tmp_path / name, term, f"val_{term}")
    # In other batches the teacher's means, of 16 * 15 distances, are summed in another order, and the largest part of
    # its logits is 5^2; there are two epochs of three steps.
    rtol, atol = rounding.of_sums(16 * 15, 2 * 3), 25 * rounding.of_sums(16 * 15)
    np.testing.assert_allclose(losses["kept"], losses["live"], rtol, atol)
    # Of both terms, that of the training and that of the held-out images, in some epoch.
    assert np.abs(losses["blind"] - losses["live"]).max(0).min() > 3e-4


def test_streamed_images_are_those_of_memory(distill, tmp_path):
    losses = []
    for name, window in (("held", None), ("streamed", 60)):
        distill(tmp_path / name, shuffle_window=window, teacher_cache="off", augmentation="crop")
        losses.append(read_losses(tmp_path / name, "loss", "kd", "val_kd"))
    np.testing.assert_array_equal(losses[0], losses[1])


def test_a_teacher_that_the_run_trains_is_trained_at_its_size(distill, tmp_path):
    results = distill(tmp_path, teacher_path=None, teacher_model="digits_teacher", check="warn", epochs=1)
    assert keras.models.load_model(tmp_path / "teacher.keras").input_shape == (None, 16, 16, 3)
    assert results["teacher"]["image_shape"] == [16, 16, 3]


def test_the_size_of_the_student_is_no_second_one(folder):
    assert load_splits(DistillConfig(dataset=folder, image_size=8, teacher_image_size=8).resolved()).teacher is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"teacher_outputs": "outputs.npz"}, "`teacher_image_size` is not read where `teacher_outputs` is given"),
        ({"method": "trikd"}, "Method 'trikd' does not read `teacher_image_size`"),
        ({"method": "baseline"}, "Method 'baseline' does not read `teacher_image_size`"),
        ({"dataset": "photos", "decoded_cache": "cache"}, "`decoded_cache` holds images of one size"),
        ({"teacher_image_size": 0}, "`teacher_image_size` must be >= 1"),
    ],
)
def test_where_there_is_no_second_size_it_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**{"teacher_image_size": 16} | settings)


def test_in_a_comparison_the_one_teacher_and_those_that_read_it_have_its_size(tmp_path):
    base = DistillConfig(dataset="digits", image_size=8, teacher_image_size=16)
    teacher, *others = list_steps(base, make_configs(base, ["kd", "trikd"]), [0], tmp_path)
    assert (teacher.method, teacher.config.image_size) == ("teacher", 16)
    sizes = {step.method: (step.config.image_size, step.config.teacher_image_size) for step in others}
    assert sizes == {"baseline": (8, None), "kd": (8, 16), "trikd": (8, None)}
