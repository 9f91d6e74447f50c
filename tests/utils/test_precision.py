"""The precision chosen for a machine, computing in it, and files that are ordinary float32 Keras."""

import json
import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.runs import commands, devices
from keras_tkd.runs.run import open_run
from keras_tkd.teachers.probabilities import invert_probabilities, with_two_logits
from keras_tkd.utils import precision
from keras_tkd.utils.saved_models import load_saved_model

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3), dtype=np.uint8)


def plain(classes=4, **arguments):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), dtype="uint8"),
            layers.Rescaling(1 / 255, name="scaling"),
            layers.Conv2D(8, 3, name="convolution"),
            layers.BatchNormalization(name="normalization"),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(classes, name="head"),
        ],
        **arguments,
    )


def nested_head():
    """The whole network, scaling and head included, is a layer of the model."""
    inputs = keras.Input((6, 6, 3), dtype="uint8")
    return keras.Model(inputs, plain(name="network")(inputs))


def nested_backbone():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    backbone = keras.Sequential([layers.Conv2D(8, 3, name="convolution"), layers.GlobalMaxPooling2D()])
    x = layers.Dense(4, name="before")(backbone(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Activation("tanh", name="head")(x))


def policies(model):
    return [layer.dtype_policy.name for layer in model._flatten_layers()]


MODELS = {"plain": plain, "nested head": nested_head, "nested backbone": nested_backbone}


def by_name(model):
    return {layer.name: layer for layer in model._flatten_layers()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_in_a_precision_for_a_while(name):
    model, lasting = MODELS[name](), MODELS[name]()
    precision.set_precision(model, "mixed_float16")
    precision.set_precision(lasting, "mixed_bfloat16")
    before = policies(model)
    with pytest.raises(ZeroDivisionError), precision.computing_in([model], "mixed_bfloat16"):
        assert policies(model) == policies(lasting) != before
        raise ZeroDivisionError
    assert policies(model) == before


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mixed, compute", [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_layers_compute_in_low_precision_between_scaling_and_output(name, mixed, compute):
    model = MODELS[name]()
    before = model(IMAGES).numpy()
    precision.set_precision(model, mixed)
    inner = (layers.Conv2D, layers.BatchNormalization, layers.Flatten, layers.GlobalMaxPooling2D)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Rescaling) or layer.name == "head":
            assert layer.compute_dtype == "float32", layer.name
        elif isinstance(layer, inner) or layer.name == "before":
            assert layer.compute_dtype == compute, layer.name
    assert {str(variable.dtype) for variable in model.variables} == {"float32"}
    outputs = model(IMAGES)
    assert outputs.dtype == "float32"
    # It does compute otherwise, by no more than bfloat16's 8 bits explain.
    assert (outputs.numpy() != before).any()
    np.testing.assert_allclose(outputs, before, atol=0.02 * np.abs(before).max())


def test_every_layer_behind_the_operations_that_make_the_output_computes_in_float32():
    """`(-z / 2, z / 2)`: two tensors, of one layer, are joined."""
    model = with_two_logits(plain(classes=1))
    exact = model(IMAGES)
    precision.set_precision(model, "mixed_bfloat16")
    head, inner = (by_name(model)[name] for name in ("head", "convolution"))
    assert head.compute_dtype == "float32" and inner.compute_dtype == "bfloat16"
    assert model(IMAGES).dtype == exact.dtype == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_saved_model_computes_what_it_was_saved_for(policy, tmp_path):
    """Two operations on its output are joined, as of a sigmoid the logit is taken."""
    inputs = keras.Input((6, 6, 3))
    keras.Model(inputs, layers.Activation("sigmoid")(plain()(inputs))).export(tmp_path / "saved", verbose=False)
    model = invert_probabilities(load_saved_model(tmp_path / "saved"), multi_label=True)
    before = model(IMAGES)
    precision.set_precision(model, policy)
    np.testing.assert_array_equal(model(IMAGES), before)


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16"])
def test_a_quantized_layer_stays_what_it_is(name):
    """Without its scale, a kernel of int8 is some hundred times as large."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(8), layers.Dense(4)])
    for layer in model.layers[1:]:
        layer.quantize("int8")
    before = model(IMAGES).numpy()
    with precision.computing_in([model], name):
        within = model(IMAGES).numpy()
    # The pixels, whole numbers below 256, lose nothing in bfloat16's 8 bits.
    np.testing.assert_array_equal(within, before)
    np.testing.assert_array_equal(model(IMAGES), before)


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("policy", ["bfloat16", "float16", "float64"])
def test_layers_whose_weights_are_of_another_kind_compute_as_they_did(policy, name):
    convolution = layers.Conv2D(8, 3, activation="relu", dtype=policy)
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), convolution, layers.Flatten(dtype=policy), layers.Dense(4, dtype=policy)]
    )
    before = model(IMAGES)
    precision.set_precision(model, name)
    after = model(IMAGES)
    assert after.dtype == before.dtype == policy
    np.testing.assert_array_equal(after.numpy(), before.numpy())


@pytest.mark.parametrize("name", MODELS)
def test_setting_it_back_leaves_no_trace(name, tmp_path):
    model = MODELS[name]()
    before = model(IMAGES).numpy()
    precision.set_precision(model, "mixed_bfloat16")
    model(IMAGES)
    precision.set_precision(model, "float32")
    np.testing.assert_array_equal(model(IMAGES), before)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        text = file.read("config.json").decode()
    assert "bfloat16" not in text and "mixed" not in text

    def policies(config):
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy":
                yield config["config"]["name"]
            config = list(config.values())
        if isinstance(config, list):
            for item in config:
                yield from policies(item)

    assert set(policies(json.loads(text))) <= {"float32", "uint8"}
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(IMAGES), before)


CPUINFO = """\
processor\t: 0
model name\t: A processor without avx512_bf16 amx_bf16
flags\t\t: fpu avx2 avx512f{}
bogomips\t: 4800.00

processor\t: 1
flags\t\t: fpu avx2 avx512f{}
"""


@pytest.mark.parametrize(
    ("gpus", "flags", "chosen", "reason"),
    [
        (0, "", "float32", "no GPU, and no flag avx512_bf16 or amx_bf16"),
        (0, " avx512_bf16_of_another_kind", "float32", "no GPU"),
        (0, " avx512_bf16 clzero", "mixed_bfloat16", r"\(avx512_bf16\)"),
        (0, " amx_bf16", "mixed_bfloat16", r"\(amx_bf16\)"),
        (0, " amx_bf16 avx512_bf16", "mixed_bfloat16", r"\(avx512_bf16, amx_bf16\)"),
        (2, " avx512_bf16", "mixed_float16", "2 found"),
    ],
)
def test_chosen_by_what_the_hardware_says_of_itself(gpus, flags, chosen, reason):
    found, why = devices.choose_precision(["GPU"] * gpus, CPUINFO.format(flags, flags))
    assert found == chosen and re.search(reason, why)


def test_without_cpuinfo_it_is_float32():
    assert devices.choose_precision([], "")[0] == "float32"


class TestAuto:
    QUICK = {"dataset": "digits", "epochs": 1, "batch_size": 64, "learning_rate": 0.05, "precision": "auto"}

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch, tmp_path):
        """A machine whose processor has the given flags."""

        def has(flags):
            (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags, flags))

        monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
        has(" amx_bf16")
        return has

    def test_a_run_says_it_and_keeps_it_on_another_machine(self, machine, tmp_path, capsys):
        config = TeacherTrainingConfig(**self.QUICK)
        results = commands.train_teacher(config, tmp_path / "run")
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Precision: ")]
        assert said == ["Precision: mixed_bfloat16, which this processor has in hardware (amx_bf16)"]
        assert "--precision=mixed_bfloat16" in (tmp_path / "run" / "flags.flags").read_text().splitlines()
        machine("")
        assert commands.train_teacher(config, tmp_path / "run") == results
        assert "Precision" not in capsys.readouterr().out
        # Interrupted and taken up.
        (tmp_path / "run" / "results.json").unlink()
        assert commands.train_teacher(config, tmp_path / "run")["flags"] == results["flags"]
        # Begun anew, it is chosen anew.
        anew = commands.train_teacher(config, tmp_path / "run", "overwrite")
        assert "--precision=float32" in anew["flags"] and "Precision: float32, " in capsys.readouterr().out

    def test_distill_trains_all_its_models_in_it(self, tmp_path):
        config = DistillConfig(**self.QUICK, method="kd").resolved()
        resolved = open_run("distill", config, tmp_path / "run").config
        assert resolved.precision == resolved.teacher.precision == "mixed_bfloat16"
