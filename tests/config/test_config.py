"""What a run is: every rule, the published values filled in, and flags that read back as the same run."""

import dataclasses
import math
import re
import subprocess
import sys

import pytest

from keras_tkd.config import DataConfig, DistillConfig, EvaluateConfig, ExportConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import format_flags, get_value_type, read_flags, resolve_from_record
from keras_tkd.config.teachers import WEIGHTINGS
from keras_tkd.methods import METHODS

NAN = math.nan

# Class, the settings around it, and values that break the rule of the field.
DATA_RULES = [
    ("test_fraction", {}, [0.0, 1.0, -0.5, 1.5, NAN]),
    ("split_seed", {}, [-1, 2**30]),
    ("image_size", {}, [0, -8]),
    ("max_pixels", {"dataset": "photos"}, [0, -1, 1.5, True]),
    ("open_set_fraction", {}, [0.0, -0.1, 1.1, NAN]),
    ("embedding_layer", {}, ["embedding"]),
]
RUN_RULES = [
    *DATA_RULES,
    ("open_set_fraction", {}, [1.0]),
    ("epochs", {}, [0, -1, 1.5, 2.0, True, None]),
    ("batch_size", {}, [0]),
    ("learning_rate", {}, [0.0, -0.1, NAN]),
    ("learning_rate_warmup_epochs", {}, [-1, 0.5, True, None]),
    ("learning_rate_warmup_epochs", {"schedule": "step", "schedule_epochs": (3, 6)}, [3, 4]),
    ("schedule_factor", {"schedule": "step", "schedule_epochs": (2,)}, [0.0, -1.0]),
    ("weight_decay", {}, [-1e-9, NAN]),
    ("momentum", {}, [-0.1, 1.0, NAN]),
    ("momentum", {"optimizer": "adam"}, [0.5, 0.0]),
    ("momentum", {"optimizer": "adamw"}, [0.5]),
    ("optimizer", {}, ["rmsprop", "Adam", None]),
    ("label_smoothing", {}, [-0.1, 1.0, NAN, None]),
    ("class_weight", {}, ["equal", None, {0: 1.0}]),
    ("clip_norm", {}, [0.0, -1.0, NAN]),
    ("seed", {}, [-1, 2**30]),
    ("deterministic", {}, ["yes", 1, None]),
    ("validation_fraction", {}, [-0.1, 1.0, NAN]),
    ("augmentation", {}, ["flip", None]),
    ("augmentation", {}, ["", "none+crop", "crop+", "crop+crop", "crop_flip+horizontal_flip", "crop@size=3", "crop@"]),
    ("augmentation", {}, ["resized_crop@area=0", "resized_crop@area=nan", "resized_crop@area=", "crop@padding=1.5"]),
    ("augmentation", {}, ["horizontal_flip@padding=1", "rand_augment@magnitude=31", 3]),
    ("mixup", {}, [0.0, -0.2, NAN]),
    ("cutmix", {}, [0.0, -1.0, NAN]),
    ("schedule", {}, ["linear", None]),
    ("precision", {}, ["float16", None]),
    ("schedule_epochs", {"schedule": "step"}, [(), (30, 20), (20, 20), (20, 30.5)]),
    ("schedule_epochs", {"schedule": "cosine"}, [(20,)]),
    ("schedule_epochs", {"schedule": "constant"}, [(20, 30)]),
    ("tensorboard", {}, ["none", True]),
    ("profile_steps", {}, [(1,), (0, 5), (-1, 5), (6, 5), (1, 2, 3), (1.5, 2)]),
    ("profile_steps", {"tensorboard": "off"}, [(1, 2)]),
]
TWO = {"teacher_path": ("a.keras", "b.keras")}
TEACHERS_RULES = [
    ("teacher_preprocessing", {"teacher_path": "teacher.keras"}, ["pytorch", None, ("unit", "caffe"), ()]),
    ("teacher_preprocessing", {}, [("unit",)]),
    ("teacher_preprocessing", {**TWO, "teacher_average": "losses"}, [("none",) * 3]),
    ("teacher_path", {"teacher_average": "logits"}, [("a.keras", "b.keras", "a.keras")]),
    ("teacher_average", TWO, [None, "loss"]),
    ("teacher_average", {"teacher_path": "a.keras"}, ["losses"]),
    ("teacher_average", {}, ["logits"]),
    ("teacher_average", {**TWO, "teacher_weights": "confidence"}, ["logits", "probabilities"]),
    ("teacher_weights", {"teacher_path": "a.keras"}, [(1.0,), "entropy"]),
    ("teacher_weights", {**TWO, "teacher_average": "losses"}, [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, NAN), "sure"]),
    ("teacher_weights", {**TWO, "teacher_average": "losses"}, [("entropy", "entropy"), (1.0, "entropy")]),
]
DISTILL_RULES = [
    ("method", {}, ["tdk", None]),
    *TEACHERS_RULES,
    ("teacher_epochs", {}, [0]),
    ("generations", {"method": "trikd"}, [0, 1.5, True]),
    ("teacher_learning_rate", {}, [0.0, NAN]),
    ("teacher_weight_decay", {}, [-0.1]),
    ("teacher_embedding_layer", {}, ["embedding"]),
    ("temperature", {"method": "kd"}, [0.0, -1.0, NAN]),
    ("margin", {"method": "tkd"}, [-1.0, NAN]),
    ("student_loss_weight", {}, [-1.0, NAN]),
    ("distillation_loss_weights", {"method": "tkd"}, [(), (1.0, 2.0), (-1.0,), (NAN,)]),
    ("distillation_loss_weights", {"method": "tkd_soft"}, [(1.0,), (1.0, -2.0)]),
    ("teacher_layers", {}, [("stage1",)]),
    ("teacher_layers", {"student_layers": ("stage1",)}, [("stage1", "stage2")]),
    ("student_layers", {}, [("stage1",)]),
    ("negatives", {}, ["all"]),
    ("negative_classes", {}, ["student"]),
    ("teacher_cache", {}, [""]),
    ("teacher_cache", {"augmentation": "crop"}, ["runs/cache", "workdir"]),
    ("teacher_views", {}, [2]),
    ("teacher_views", {"augmentation": "crop"}, [0, -1]),
    ("teacher_cache_dtype", {}, ["bfloat16"]),
]
EVALUATE_RULES = [
    ("model_path", {}, [None, ""]),
    ("teacher_embedding_layer", {"model_path": "student.keras"}, ["embedding"]),
    *[(name, around | {"model_path": "student.keras"}, values) for name, around, values in TEACHERS_RULES],
]
EXPORTED = {"source": "run", "output": "out"}
EXPORT_RULES = [
    ("source", {"output": "out"}, [None, ""]),
    ("output", {"source": "run"}, [None, ""]),
    ("formats", EXPORTED, [(), ("onnx", "onnx")]),
    ("preprocessing", EXPORTED, ["none", None]),
    ("int8_interface", EXPORTED, ["uint8"]),
    ("int8_interface", EXPORTED | {"formats": ("onnx",)}, ["int8"]),
    ("calibration_images", EXPORTED, [0, 1.5]),
    ("calibration_images", EXPORTED | {"formats": ("onnx",)}, [3]),
    ("calibration_seed", EXPORTED, [-1, 2**30]),
    ("max_drop", EXPORTED, [-0.1, 1.1, NAN]),
    ("existing", EXPORTED, ["continue"]),
    *[(name, around | EXPORTED, values) for name, around, values in TEACHERS_RULES],
]
BROKEN = [
    (cls, name, around, value)
    for cls, rules in [
        (DataConfig, DATA_RULES),
        (TeacherTrainingConfig, RUN_RULES),
        (DistillConfig, RUN_RULES + DISTILL_RULES),
        (EvaluateConfig, EVALUATE_RULES),
        (ExportConfig, EXPORT_RULES),
    ]
    for name, around, values in rules
    for value in values
]


@pytest.mark.parametrize("cls, name, around, value", BROKEN, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_broken_rule_names_the_field_and_the_value(cls, name, around, value):
    with pytest.raises(ValueError) as error:
        cls(**around, **{name: value})
    assert f"`{name}`" in str(error.value) and f"{name}={value!r}" in str(error.value)


FLOATS = [
    (cls, field)
    for cls in (DistillConfig, TeacherTrainingConfig, EvaluateConfig, ExportConfig)
    for field in dataclasses.fields(cls)
    if get_value_type(field)[0] is float
]


def test_settings_that_are_numbers_are_found():
    assert {field.name for _, field in FLOATS} >= {"temperature", "distillation_loss_weights", "momentum", "margin"}


@pytest.mark.parametrize("value", [math.inf, -math.inf, NAN, "0.5", True, (0.5,), 1e39, 1e-300, -1e-39])
@pytest.mark.parametrize("cls, field", FLOATS, ids=lambda part: getattr(part, "__name__", getattr(part, "name", "")))
def test_every_number_must_be_finite(cls, field, value):
    name, several = field.name, get_value_type(field)[1]
    given = (0.5, value) if several else value
    with pytest.raises(ValueError, match=f"`{name}` must be .*finite.*Received: {name}=.*{re.escape(repr(value))}"):
        cls(**{name: given})


@pytest.mark.parametrize(
    "method, weights, rule", [("tkd", (1.0, 2.0), "1 number >= 0"), ("tkd_soft", (1.0,), "2 numbers >= 0")]
)
def test_weights_are_one_for_each_loss(method, weights, rule):
    with pytest.raises(ValueError, match=f"`distillation_loss_weights` must be {rule}"):
        DistillConfig(method=method, distillation_loss_weights=weights)


@pytest.mark.parametrize(
    "name, value",
    [
        ("split_seed", 2**30 - 1),
        ("image_size", 1),
        ("open_set_fraction", 0.001),
        ("open_set_fraction", 0.999),
        ("epochs", 1),
        ("batch_size", 1),
        ("weight_decay", 0.0),
        ("momentum", 0.0),
        ("seed", 2**30 - 1),
        ("validation_fraction", 0.0),
        ("teacher_epochs", 1),
        ("teacher_views", 1),
        ("teacher_weight_decay", 0.0),
        ("margin", 0.0),
        ("student_loss_weight", 0.0),
        ("distillation_loss_weights", (0.0,)),
    ],
)
def test_the_edge_of_a_rule_is_allowed(name, value):
    assert getattr(DistillConfig(**{name: value}), name) == value


def test_the_edge_of_a_rule_for_folders_is_allowed():
    assert DistillConfig(dataset="pets", test_fraction=0.999).test_fraction == 0.999


def test_a_near_miss_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'crop_flip'"):
        TeacherTrainingConfig(augmentation="crop_flp")


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TeacherTrainingConfig().epochs = 3


# What each method reads beyond the data and the training: soft targets a temperature, the methods of triplets and pairs
# a margin and negatives, all of them weights, layers, a warm-up and a teacher; the baseline nothing.
OWN = {
    "temperature": {"temperature": 2.0},
    "margin": {"margin": 1.0},
    "negatives": {"negatives": "in_batch"},
    "negative_classes": {"negative_classes": "teacher"},
    "miner": {"negatives": "in_batch", "miner": "hard"},
    "student_loss_weight": {"student_loss_weight": 0.5},
    "warmup_epochs": {"warmup_epochs": 3},
    "teacher_layers": {"teacher_layers": ("stage1",), "student_layers": ("stage1",)},
    "baseline": {"baseline": "none"},
    "teacher_path": {"teacher_path": ("teacher.keras",)},
    "teacher_classes": {"teacher_path": ("teacher.keras",), "teacher_classes": ("1", "2")},
    "teacher_output": {"teacher_path": ("teacher.keras",), "teacher_output": "logits"},
    "trust_teacher_code": {"teacher_path": ("teacher.keras",), "trust_teacher_code": True},
    "teacher_model": {"teacher_model": "tkd_teacher"},
    "teacher_epochs": {"teacher_epochs": 3},
    "teacher_learning_rate": {"teacher_learning_rate": 0.5},
    "teacher_weight_decay": {"teacher_weight_decay": 0.5},
    "teacher_training": {"teacher_training": "online"},
    "anchor": {"anchor": "random"},
    "generations": {"generations": 2},
    "teacher_loss_weight": {"teacher_loss_weight": 0.5},
    "anchor_weight": {"anchor_weight": 0.5},
    "peer_weight": {"peer_weight": 0.5},
    "teacher_embedding_layer": {"teacher_embedding_layer": "dense", "open_set_fraction": 0.5},
    "teacher_cache": {"teacher_cache": "off"},
    "teacher_views": {"teacher_views": 2, "augmentation": "crop"},
    "teacher_cache_dtype": {"teacher_cache_dtype": "float16"},
}
MINED = {"margin", "negatives", "miner", "negative_classes"}
CACHED = {"teacher_cache", "teacher_views", "teacher_cache_dtype"}
ANCHORED = {"anchor", "generations", "anchor_weight"}
ONLINE = ANCHORED | {"teacher_training", "teacher_loss_weight", "peer_weight"}
TRAINED_BEFORE = {
    "teacher_path",
    "teacher_classes",
    "teacher_output",
    "trust_teacher_code",
    "teacher_epochs",
    "teacher_layers",
}
UNREAD = {method: ONLINE | MINED | {"temperature"} for method in METHODS}
UNREAD |= {"baseline": set(OWN), "tkd_soft": ONLINE}
UNREAD |= {method: ONLINE | {"temperature"} for method in ("tkd", "pairs")}
UNREAD |= {method: ONLINE | MINED for method in ("kd", "lskd", "dkd", "dist", "nkd")}
UNREAD |= {"trikd": MINED | TRAINED_BEFORE, "dml": MINED | TRAINED_BEFORE | ANCHORED | CACHED}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OWN)
def test_a_flag_the_method_does_not_read_is_an_error(method, name):
    if name in UNREAD[method]:
        with pytest.raises(ValueError) as error:
            DistillConfig(method=method, **OWN[name])
        # Of several that are not read, the first is named.
        named = next(iter(OWN[name]))
        for words in (f"'{method}'", f"`{named}`", f"{named}={OWN[name][named]!r}"):
            assert words in str(error.value)
    else:
        assert getattr(DistillConfig(method=method, **OWN[name]), name) == OWN[name][name]


def test_one_value_of_several_may_be_given_by_itself(tmp_path):
    config = DistillConfig(teacher_path=tmp_path / "a, b.keras", teacher_preprocessing="unit")
    assert config.teacher_path == (f"{tmp_path}/a, b.keras",) and config.teacher_preprocessing == ("unit",)
    assert DistillConfig(teacher_path="a.keras") == DistillConfig(teacher_path=("a.keras",))
    assert DistillConfig(teacher_path=()).teacher_path is None
    weights = [("1", "0.5"), (1, 0.5), ("entropy",), "entropy", None, ()]
    read = [DistillConfig(**TWO, teacher_average="losses", teacher_weights=w).teacher_weights for w in weights]
    assert read == [(1.0, 0.5), (1.0, 0.5), "entropy", "entropy", None, None]


def test_other_flags_that_nothing_reads_are_errors():
    with pytest.raises(ValueError, match="`miner`.*miner='hard'"):
        DistillConfig(method="tkd", miner="hard")
    with pytest.raises(ValueError, match="'kd'.*`negative_classes`.*negative_classes='teacher'"):
        DistillConfig(method="kd", negative_classes="teacher")
    with pytest.raises(ValueError, match="'baseline'.*`distillation_loss_weights`"):
        DistillConfig(method="baseline", distillation_loss_weights=())


def test_what_an_online_teacher_reads_depends_on_its_anchor_and_its_training():
    with pytest.raises(ValueError, match="`generations`.*generations=3"):
        DistillConfig(method="trikd", anchor="none", generations=3)
    with pytest.raises(ValueError, match="`anchor`.*anchor='random'"):
        DistillConfig(method="trikd", teacher_training="offline", anchor="random")
    offline = DistillConfig(method="trikd", teacher_training="offline", teacher_path="teacher.keras").resolved()
    assert not offline.online and offline.generations is None and offline.temperature == 1.0
    online = DistillConfig(method="trikd").resolved()
    assert (online.online, online.anchor, online.generations) == (True, "trained", 1)
    assert (online.teacher_loss_weight, online.anchor_weight, online.peer_weight) == (1.0, 1.0, 1.0)
    mutual = DistillConfig(method="dml").resolved()
    assert (mutual.online, mutual.anchor, mutual.generations, mutual.temperature) == (True, None, None, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "trikd", "generations": 0}, "`generations` must be >= 1. Received: generations=0"),
        ({"method": "trikd", "anchor_weight": -1.0}, "`anchor_weight` must be >= 0"),
        ({"train_fraction": 0.0}, "`train_fraction` must be in"),
        ({"train_fraction": 1.5}, "`train_fraction` must be in"),
    ],
)
def test_bad_values_of_online_runs(arguments, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**arguments)


NAMES = ("temperature", "margin", "student_loss_weight", "distillation_loss_weights", "warmup_epochs")
NAMES += ("teacher_layers", "student_layers", "negatives", "miner", "negative_classes")
NONE = dict.fromkeys(NAMES)
PLAIN = {"student_loss_weight": 1.0, "warmup_epochs": 0}
DRAWN = {"negatives": "drawn", "negative_classes": "labels"}


@pytest.mark.parametrize(
    "method, published",
    [
        ("baseline", {}),
        ("kd", {**PLAIN, "temperature": 4.0, "student_loss_weight": 0.1, "distillation_loss_weights": (0.9,)}),
        ("logits", {**PLAIN, "distillation_loss_weights": (0.1,)}),
        ("tkd", {**PLAIN, "margin": 5.0, "distillation_loss_weights": (2.0,), **DRAWN}),
        ("tkd_soft", {**PLAIN, "temperature": 1.0, "margin": 5.0, "distillation_loss_weights": (1.0, 2.0), **DRAWN}),
        ("dkd", {**PLAIN, "temperature": 4.0, "distillation_loss_weights": (1.0,), "warmup_epochs": 20}),
        (
            "fsp",
            {
                **PLAIN,
                "distillation_loss_weights": (50.0,),
                "teacher_layers": ("stage1", "stage2"),
                "student_layers": ("stage1", "stage2"),
            },
        ),
    ],
)
def test_resolved_fills_in_the_published_values(method, published):
    config = DistillConfig(method=method, epochs=7)
    resolved = config.resolved()
    assert {name: getattr(resolved, name) for name in NONE} == NONE | published
    assert dataclasses.replace(resolved, **dict.fromkeys([*published, "validation_fraction"])) == config
    assert resolved.resolved() == resolved


@pytest.mark.parametrize(
    "given",
    [
        # Zeros are values, and are kept.
        {"method": "tkd", "margin": 0.0, "student_loss_weight": 0.0, "distillation_loss_weights": (0.0,)},
        {"method": "tkd", "negatives": "drawn", "negative_classes": "teacher"},
        {"method": "kd", "temperature": 9.0},
        {"method": "dkd", "warmup_epochs": 0},
        {"method": "sp", "teacher_layers": ("stage1", "stage2"), "student_layers": ("stage1", "stage3")},
        {"method": "tkd_soft", "temperature": 2.0, "distillation_loss_weights": (3.0, 4.0)},
    ],
)
def test_resolved_keeps_what_was_given(given):
    resolved = DistillConfig(**given).resolved()
    assert {name: getattr(resolved, name) for name in given} == given


@pytest.mark.parametrize(
    "given, share",
    [
        ({"method": "kd"}, 0.0),
        ({"method": "trikd"}, 0.0),
        ({"method": "trikd", "generations": 2}, 0.1),
        ({"method": "trikd", "generations": 2, "validation_fraction": 0.0}, 0.0),
        ({"method": "kd", "validation_fraction": 0.3}, 0.3),
    ],
)
def test_images_to_choose_by_are_held_out_where_there_is_a_choice(given, share):
    assert DistillConfig(**given).resolved().validation_fraction == share


def test_resolved_with_negatives_of_the_batch():
    resolved = DistillConfig(method="tkd", negatives="in_batch").resolved()
    assert (resolved.negatives, resolved.miner, resolved.negative_classes) == ("in_batch", "random", "labels")
    assert DistillConfig(method="tkd").resolved().miner is None


def test_layers_of_one_side_go_with_the_methods_layers_of_the_other():
    resolved = DistillConfig(method="sp", teacher_layers=("stage3",)).resolved()
    assert (resolved.teacher_layers, resolved.student_layers) == (("stage3",), ("features",))
    with pytest.raises(ValueError, match="equal length"):
        DistillConfig(method="at", student_layers=("stage1",))


def test_the_teacher_has_its_own_budget_on_the_same_data():
    data = {"dataset": "cifar10", "data_dir": "d", "split_seed": 4, "validation_fraction": 0.1}
    budget = {"epochs": 20, "learning_rate": 0.02, "weight_decay": 0.1, "batch_size": 64, "seed": 3}
    shared = {**data, **budget, "momentum": 0.5, "teacher_model": "tkd_teacher"}
    assert DistillConfig(**shared).teacher == TeacherTrainingConfig(**shared)
    own = {"teacher_epochs": 5, "teacher_learning_rate": 0.3, "teacher_weight_decay": 0.0}
    expected = TeacherTrainingConfig(**shared | {"epochs": 5, "learning_rate": 0.3, "weight_decay": 0.0})
    assert DistillConfig(**shared, **own).teacher == expected


def test_the_teacher_has_its_own_embeddings_of_the_same_open_set():
    shared = {"open_set_fraction": 0.5, "embedding_layer": "dense"}
    assert DistillConfig(**shared).teacher == TeacherTrainingConfig(**shared)
    own = DistillConfig(**shared, teacher_embedding_layer="backbone/pool").teacher
    assert own == TeacherTrainingConfig(**shared | {"embedding_layer": "backbone/pool"})
    assert EvaluateConfig(model_path="m", open_set_fraction=1.0).open_set_fraction == 1


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(),
        TeacherTrainingConfig(),
        DistillConfig(),
        EvaluateConfig(model_path="runs/a=b, c/student.keras"),
        ExportConfig(source="runs/a=b, c", output="out", formats=("onnx", "litert_int8"), max_drop=0.1 + 0.2),
        ExportConfig(source="m.keras", output="out", formats="onnx", preprocessing="outside", teacher_path="t"),
        EvaluateConfig(model_path="m", teacher_path="t", teacher_preprocessing="caffe", image_size=7),
        TeacherTrainingConfig(open_set_fraction=0.1 + 0.2, embedding_layer="backbone/pool"),
        EvaluateConfig(**TWO, model_path="m", teacher_preprocessing=("none", "unit"), teacher_average="logits"),
        DistillConfig(**TWO, teacher_average="losses", teacher_weights=(1, 0.1 + 0.2)),
        DistillConfig(**TWO, teacher_average="losses", teacher_weights="confidence"),
        TeacherTrainingConfig(
            learning_rate=0.1 + 0.2, weight_decay=1e-30, momentum=1 / 3, dataset="pets", data_dir="data"
        ),
        TeacherTrainingConfig(schedule="step", schedule_epochs=(100, 200), schedule_factor=0.2, seed=2**30 - 1),
        TeacherTrainingConfig(optimizer="adamw", label_smoothing=0.1, class_weight="balanced", clip_norm=1 / 3),
        *[DistillConfig(method=method).resolved() for method in METHODS],
        DistillConfig(method="trikd", student_term_reaches_teacher=True),
        DistillConfig(
            method="tkd_soft",
            temperature=2.5,
            margin=0.0,
            student_loss_weight=0.0,
            distillation_loss_weights=(0.1, 1e-7),
            teacher_layers=("stage1", "backbone/stage2"),
            student_layers=("stage1", "stage2"),
            negatives="drawn",
            negative_classes="teacher",
            teacher_path="runs/teacher.keras",
            teacher_preprocessing="imagenet",
            baseline="runs/alone",
        ),
    ],
    ids=lambda config: type(config).__name__,
)
def test_flag_lines_read_back_as_the_same_config(config):
    lines = format_flags(config)
    assert type(config)(**read_flags(type(config), "# A comment.\n\n" + "\n".join(lines))) == config
    # What is None has no line, so that nothing reads "None" back; nor has what nothing reads, which would be an error.
    none = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) is None]
    none += config.irrelevant_fields
    assert not [line for line in lines for name in none if line.startswith(f"--{name}=")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--deterministic=Trux", "--deterministic must be of type bool. Received: --deterministic=Trux"),
        ("--deterministic=", "--deterministic must be of type bool"),
        ("--epochs=3x", "--epochs must be of type int. Received: --epochs=3x"),
        ("--learning_rate=0..5", "--learning_rate must be of type float"),
        ('--classes="cat', "--classes must be a list, as a line of CSV has it, of type str"),
        ("--schedule_epochs=3,x", "--schedule_epochs must be a list, as a line of CSV has it, of type int"),
    ],
)
def test_a_line_that_says_no_value_is_named(line, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_flags(DistillConfig, f"--seed=1\n{line}\n")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("1", True), ("F", False), ("False", False)])
def test_yes_and_no_are_the_words_of_the_scripts(word, value):
    assert read_flags(DistillConfig, f"--deterministic={word}") == {"deterministic": value}


UNWRITABLE = ("a\nb", "a\r", "a\u2028b", "a\x85b", "a ", "a\t", "a\0b", "b\udcff")


@pytest.mark.parametrize("text", ["", *UNWRITABLE])
@pytest.mark.parametrize(
    "name", ["dataset", "data_dir", "student_model", "baseline", "teacher_cache", "classes", "teacher_path"]
)
def test_text_that_a_flagfile_would_not_give_back_is_refused(name, text):
    value = (text, "c") if name in ("classes", "teacher_path") else text
    around = {"data_dir": {"dataset": "pets"}, "teacher_path": {"teacher_average": "losses"}}
    with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}="):
        DistillConfig(**around.get(name, {}) | {name: value})


def test_a_list_holds_no_white_space_around_a_value():
    """absl takes it away: the run would not find its class again."""
    with pytest.raises(ValueError, match="`classes` must be text.*white space at its ends.*by its index.*' cat'"):
        DistillConfig(classes=(" cat", "dog"))


@pytest.mark.parametrize("name", [" a", "a b", "a,b", 'a"b', "#a", "--a", "ä", "a=b", "a\\n", "\u3000a"])
def test_other_names_are_read_back_as_they_are(name):
    config = DistillConfig(dataset=name, student_model=name)
    text = "\n".join(format_flags(config.resolved()))
    assert read_flags(DistillConfig, text)["dataset"] == read_flags(DistillConfig, text)["student_model"] == name


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 30}, []),
        # Epochs are counted from 0: the rate of epoch 29 is the last.
        ({"epochs": 30, "schedule": "step", "schedule_epochs": (29,)}, []),
        (
            {"epochs": 30, "schedule": "step", "schedule_epochs": (29, 30)},
            ["Of --schedule_epochs, 30 never comes in 30 epochs"],
        ),
        (
            {"epochs": 2, "schedule": "step", "schedule_epochs": (1, 5, 9), "teacher_epochs": 9},
            [
                "Of --schedule_epochs, 5, 9 never come in 2 epochs",
                "Of --schedule_epochs, 9 never comes in 9 epochs of the teacher",
            ],
        ),
        ({"epochs": 2, "schedule": "step", "schedule_epochs": (1,), "teacher_epochs": 3}, []),
        ({"epochs": 4, "warmup_epochs": 4}, []),
        ({"epochs": 5, "learning_rate_warmup_epochs": 3}, []),
        (
            {"epochs": 1, "warmup_epochs": 4},
            ["With --warmup_epochs=4 the .* weights rise to 25% of their values in 1 epoch"],
        ),
        (
            {"epochs": 4, "learning_rate_warmup_epochs": 3},
            ["With --learning_rate_warmup_epochs=3 .* rises to 100% of its value in the last of 4 epochs, and .*"],
        ),
        (
            {"epochs": 9, "learning_rate_warmup_epochs": 4, "teacher_epochs": 4},
            ["With --learning_rate_warmup_epochs=4 .* rises to 80% of its value in the last of 4 epochs of the .*"],
        ),
        ({"epochs": 5, "warmup_epochs": 20}, ["With --warmup_epochs=20 the .* weights rise to 25% .* in 5 epochs"]),
        ({"epochs": 3, "augmentation": "crop", "teacher_views": 3}, []),
        ({"epochs": 3, "augmentation": "crop", "teacher_views": 8}, ["Of --teacher_views=8, 3 are shown in 3 epochs"]),
    ],
)
def test_settings_that_the_epochs_are_too_few_for_are_told(settings, expected):
    """Not refused: a short trial of a flagfile for a long run has such settings."""
    found = DistillConfig(method="kd", **settings).unreached
    assert len(found) == len(expected) and all(map(re.fullmatch, expected, found))
    late = {"epochs": 3, "schedule": "step", "schedule_epochs": (2, 3)}
    assert TeacherTrainingConfig(**late).unreached == ["Of --schedule_epochs, 3 never comes in 3 epochs"]


def test_value_types():
    types = {field.name: get_value_type(field) for field in dataclasses.fields(DistillConfig)}
    assert types["epochs"] == types["image_size"] == (int, False)
    assert types["learning_rate"] == types["temperature"] == (float, False)
    assert types["dataset"] == types["data_dir"] == (str, False)
    assert types["schedule_epochs"] == (int, True)
    assert types["distillation_loss_weights"] == (float, True)
    assert types["teacher_layers"] == types["teacher_path"] == types["teacher_weights"] == (str, True)


def test_every_field_has_a_help_text():
    for cls in (EvaluateConfig, ExportConfig, TeacherTrainingConfig, DistillConfig):
        assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(cls))


def test_config_needs_neither_keras_nor_tensorflow():
    code = """
import sys
import keras_tkd.config, keras_tkd.methods
loaded = {"tensorflow", "keras"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_choices_are_what_the_library_offers():
    import keras

    from keras_tkd import data, teachers
    from keras_tkd.miners import MINERS
    from keras_tkd.teachers import ensemble, weighting
    from keras_tkd.utils.precision import set_precision

    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(DistillConfig)}
    assert set(choices["augmentation"]) == set(data.AUGMENTATIONS)
    assert set(choices["teacher_preprocessing"]) == set(teachers.PREPROCESSING)
    assert choices["teacher_average"] == ensemble.AVERAGES and WEIGHTINGS == weighting.WEIGHTINGS
    assert set(choices["method"]) == set(METHODS)
    assert set(choices["miner"]) == set(MINERS)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="inner"), keras.layers.Dense(2)])
    for precision in set(choices["precision"]) - {"auto"}:
        set_precision(model, precision)
        assert model.get_layer("inner").dtype_policy.name == precision


def test_auto_becomes_what_an_earlier_beginning_chose(tmp_path):
    path = tmp_path / "flags.flags"
    auto = DistillConfig(method="kd", precision="auto")
    assert resolve_from_record(auto, path) == auto
    path.write_text(
        "# --precision=mixed_float16\n--method=kd\n--precision=mixed_bfloat16\n--teacher_cache=a=b\n--of_old=1\n"
    )
    resolved = resolve_from_record(auto, path)
    assert resolved == dataclasses.replace(auto, precision="mixed_bfloat16", teacher_cache="a=b")
    # What was asked for stays, and so does what the method does not read.
    assert resolve_from_record(TeacherTrainingConfig(precision="float32"), path).precision == "float32"
    baseline = resolve_from_record(DistillConfig(method="baseline", precision="auto"), path)
    assert (baseline.precision, baseline.teacher_cache) == ("mixed_bfloat16", "auto")


def test_weights_go_with_an_architecture_of_keras_applications():
    spec = "keras_applications/MobileNetV2@alpha=0.5"
    config = DistillConfig(method="kd", student_model=spec, student_model_weights="body.h5", teacher_model=spec)
    assert "--student_model_weights=body.h5" in format_flags(config)
    assert f"--student_model={spec}" in format_flags(config)
    with pytest.raises(ValueError, match="student_model_weights` goes with student_model=keras_applications/NAME"):
        DistillConfig(method="kd", student_model_weights="body.h5")
    with pytest.raises(ValueError, match="teacher_model_weights` goes with teacher_model="):
        DistillConfig(method="kd", teacher_path="t.keras", teacher_model_weights="body.h5")
    with pytest.raises(ValueError, match="'baseline' does not read `teacher_model_weights`"):
        DistillConfig(method="baseline", teacher_model_weights="body.h5")
    for name in ("student", "teacher"):
        weights = {f"{name}_model": spec, f"{name}_model_weights": "imagenet"}
        with pytest.raises(ValueError, match=f"nothing is downloaded.*--{name}_model_weights=FILE"):
            DistillConfig(method="kd", **weights)
    config = TeacherTrainingConfig(teacher_model=spec, teacher_model_weights="body.h5")
    assert config.teacher_model_weights == "body.h5"
    with pytest.raises(ValueError, match="nothing is downloaded"):
        TeacherTrainingConfig(teacher_model=spec, teacher_model_weights="imagenet")


def test_a_new_head_is_one_teacher_s_and_is_trained():
    config = DistillConfig(method="kd", teacher_path="t.keras", teacher_head="new", teacher_epochs=3)
    assert config.trains_teacher and config.teacher.epochs == 3
    assert not DistillConfig(method="kd", teacher_path="t.keras").trains_teacher
    with pytest.raises(ValueError, match="`teacher_path` must be one, without `teacher_classes`.*teacher_classes=None"):
        DistillConfig(method="kd", teacher_path="a,b".split(","), teacher_average="losses", teacher_head="new")
    with pytest.raises(ValueError, match=r"without `teacher_classes`.*teacher_classes=\('1', '0'\)"):
        DistillConfig(method="kd", teacher_path="a.keras", teacher_classes=("1", "0"), teacher_head="new")


# Losses of images of one class each: by the label, or by negatives and partners that are drawn for a class.
OF_ONE_CLASS = {
    "tkd": "TripletDistillation",
    "tkd_soft": "TripletDistillation",
    "pairs": "PairDistillation",
    "crd": "ContrastiveRepresentation",
    "dkd": "DecoupledTargets",
    "nkd": "NormalizedTargets",
}


@pytest.mark.parametrize("mixing", [{"mixup": 0.2}, {"cutmix": 1.0}])
@pytest.mark.parametrize("method", METHODS)
def test_mixed_images_are_for_losses_that_read_no_class(method, mixing):
    ((name, value),) = mixing.items()
    if method not in OF_ONE_CLASS:
        assert getattr(DistillConfig(method=method, **mixing), name) == value
        return
    rule = f"`mixup` and `cutmix` make images of two classes, and {OF_ONE_CLASS[method]} is of images of one class each"
    with pytest.raises(ValueError, match=f"{rule}.*such as kd.*method='{method}'.*{name}={value}"):
        DistillConfig(method=method, **mixing)
    with pytest.raises(ValueError, match=f"{rule}.*losses="):
        DistillConfig(losses=("kd", method), **mixing)


def test_negatives_by_the_teachers_classes_go_with_mixed_images():
    by_teacher = {"negatives": "in_batch", "negative_classes": "teacher"}
    assert DistillConfig(method="tkd", mixup=0.2, **by_teacher).mixes
    with pytest.raises(ValueError, match="or tell classes apart by the teacher: negatives='in_batch'"):
        DistillConfig(method="tkd", mixup=0.2, negatives="in_batch")


def test_what_reads_one_class_of_a_mixed_image_is_refused():
    with pytest.raises(ValueError, match="`class_weight` goes by the one class.*class_weight='balanced', mixup=0.2"):
        DistillConfig(method="kd", mixup=0.2, class_weight="balanced")
    assert DistillConfig(method="kd", mixup=0.2, label_smoothing=0.1).mixes
    confident = {"teacher_path": ("a", "b"), "teacher_average": "losses", "teacher_weights": "confidence"}
    with pytest.raises(ValueError, match="`teacher_weights` by confidence read the one class.*'entropy'.*mixup=0.2"):
        DistillConfig(method="kd", mixup=0.2, **confident)


def test_mixed_images_have_views_that_a_cache_keeps_in_memory_alone():
    kept = {"method": "kd", "mixup": 0.2, "teacher_cache": "workdir"}
    assert DistillConfig(**kept, teacher_views=2).teacher_views == 2
    with pytest.raises(ValueError, match="only where `teacher_views` says how many views"):
        DistillConfig(**kept)
    with pytest.raises(ValueError, match="mixed inside windows.*teacher_cache='workdir', shuffle_window=500"):
        DistillConfig(**kept, teacher_views=2, dataset="cifar10", shuffle_window=500)


def test_where_the_images_of_a_runs_folder_are_may_be_said_to_an_export():
    assert ExportConfig(source="runs/a", output="out", data_dir="data").data_dir == "data"
    with pytest.raises(ValueError, match="`data_dir` is not read with `digits`"):
        ExportConfig(source="m.keras", output="out", data_dir="data")


@pytest.mark.parametrize(
    ("cache", "keeps", "folder"),
    [("auto", False, None), ("off", False, None), ("workdir", True, None), ("runs/cache", True, "runs/cache")],
)
def test_where_a_teacher_cache_is(cache, keeps, folder):
    config = DistillConfig(teacher_cache=cache)
    assert (config.keeps_outputs, config.named_cache) == (keeps, folder)
