"""Methods that read features, of models with names of their own."""

import keras
import pytest
from keras import layers

from keras_tkd.config import DistillConfig
from keras_tkd.runs.inputs import load_distillation_inputs

SETTINGS = {"dataset": "digits", "baseline": "none", "check": "off"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    head = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(10)]
    steps = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu", name="conv")]
    keras.Sequential([keras.Input((8, 8, 1)), *steps, *head], name="mine").save(folder / "plain.keras")
    images = keras.Input((8, 8, 1))
    maps = layers.Conv2D(4, 3, name="conv")(images)
    sides = [layers.Dense(10)(pool()(maps)) for pool in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)]
    keras.Model(images, layers.Add()(sides), name="doubtful").save(folder / "doubtful.keras")
    return folder


@pytest.mark.parametrize(
    ("recipe", "layer", "meaning"),
    [
        ({"method": "sp"}, "conv", "'features': losses read the last map before it is pooled or flattened"),
        ({"method": "rkd"}, "pool", "'embedding': losses read the input of its last dense layer"),
        ({"losses": ("kd", "sp")}, "conv", "'features': losses read the last map before it is pooled or flattened"),
    ],
)
def test_they_are_chosen_and_said(recipe, layer, meaning, folder, capsys):
    config = DistillConfig(**SETTINGS, **recipe, student_model=str(folder / "plain.keras")).resolved()
    inputs = load_distillation_inputs(config)
    assert f"The student has no layer {meaning}, '{layer}' (--student_layers names others)" in capsys.readouterr().out
    losses = inputs.make_losses(config)[0]
    assert losses[-1].student_layers == layer
    # The teacher is this package's.
    assert losses[-1].teacher_layers in ("features", "embedding")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_where_there_is_doubt_the_error_says_whose_and_what_to_name(role, folder):
    model = {f"{role}_model": str(folder / "doubtful.keras")}
    says = rf"Model 'doubtful' has no output.*'features'.*'conv'.*This is the {role}: .*--{role}_layers"
    with pytest.raises(ValueError, match=says):
        load_distillation_inputs(DistillConfig(**SETTINGS, method="sp", **model).resolved())
    named = {f"{role}_layers": "conv"}
    load_distillation_inputs(DistillConfig(**SETTINGS, method="sp", **model, **named).resolved())


def make_teachers(folder, names):
    """Writes teachers whose only map is of a convolution of these names, and returns their paths."""
    for number, name in enumerate(names):
        head = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(10)]
        keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name=name), *head]).save(
            folder / f"{number}.keras"
        )
    return tuple(str(folder / f"{number}.keras") for number in range(len(names)))


def load_ensemble(paths, **settings):
    settings = SETTINGS | {"method": "sp", "student_model": "digits_student", "teacher_average": "losses"} | settings
    return load_distillation_inputs(DistillConfig(**settings, teacher_path=paths).resolved())


def test_an_ensemble_whose_teachers_have_one_name_for_it(tmp_path, capsys):
    inputs = load_ensemble(make_teachers(tmp_path, ["conv", "conv"]))
    assert "The teachers have no layer 'features': losses read the last map" in capsys.readouterr().out
    assert inputs.layers["teacher_layers"] == {"features": "conv"}


@pytest.mark.parametrize("names", [("conv", "maps"), ("features", "maps")])
def test_an_ensemble_of_several_names_is_refused_with_its_files(names, tmp_path):
    paths = make_teachers(tmp_path, names)
    with pytest.raises(
        ValueError, match=rf"one name for all.*0\.keras: '{names[0]}'; .*1\.keras: '{names[1]}'.*--teacher_layers"
    ):
        load_ensemble(paths)
    with pytest.raises(ValueError, match=rf"Received: '{names[1]}', .*0\.keras: none; .*1\.keras: '{names[1]}'"):
        load_ensemble(paths, teacher_layers=names[1])
    load_ensemble(paths, teacher_layers="pool")
