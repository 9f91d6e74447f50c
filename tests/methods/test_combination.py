"""Losses of several methods from one list: what an entry says, the sum that is trained, the flags that give it back."""

import dataclasses

import keras
import numpy as np
import pytest
from losses import oracles

from keras_tkd import Distiller
from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import format_flags, read_flags
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.methods import METHODS
from keras_tkd.methods.combination import combine, parse_entry

BOTH = ("teacher_layers", "student_layers")


@pytest.mark.parametrize(
    "entry, terms",
    [
        ("kd", [("SoftTargets", 0.9, {"temperature": 4.0})]),
        ("kd:0.5", [("SoftTargets", 0.5, {"temperature": 4.0})]),
        (" kd@temperature=2:.45 ", [("SoftTargets", 0.45, {"temperature": 2.0})]),
        ("lskd@temperature=1e1:0", [("SoftTargets", 0.0, {"temperature": 10.0, "standardize": True, "name": "lskd"})]),
        ("tkd@margin=3@miner=hard:2", [("TripletDistillation", 2.0, {"margin": 3.0, "miner": "hard"})]),
        ("dkd@beta=2", [("DecoupledTargets", 1.0, {"temperature": 4.0, "alpha": 1.0, "beta": 2.0})]),
        ("rkd", [("RelationalDistance", 25.0, {}), ("RelationalAngle", 50.0, {})]),
        ("rkd:1/2e-1", [("RelationalDistance", 1.0, {}), ("RelationalAngle", 0.2, {})]),
        # Each argument goes to the loss that takes it, layers to all.
        (
            "tkd_soft@margin=0@temperature=2:3/4",
            [("SoftTargets", 3.0, {"temperature": 2.0}), ("TripletDistillation", 4.0, {"margin": 0.0})],
        ),
        ("sp@student_layers=a/b:30", [("SimilarityPreserving", 30.0, {"student_layers": "a/b"})]),
        ("at@teacher_layers=stage1+b", [("AttentionTransfer", 1000.0, {"teacher_layers": ["stage1", "b"]})]),
        # What comes after a colon is a weight where it is a number, else part of the layer's name.
        (
            "sp@teacher_layers=c:pre_activation",
            [("SimilarityPreserving", 3000.0, {"teacher_layers": "c:pre_activation"})],
        ),
        (
            "sp@teacher_layers=c:pre_activation:2",
            [("SimilarityPreserving", 2.0, {"teacher_layers": "c:pre_activation"})],
        ),
    ],
)
def test_what_an_entry_says(entry, terms):
    read = parse_entry(entry).terms
    assert [(term.loss, term.weight) for term in read] == [term[:2] for term in terms]
    for term, (_, _, arguments) in zip(read, terms, strict=True):
        assert {name: term.arguments[name] for name in arguments} == arguments
        assert ("margin" in term.arguments) == ("margin" in arguments)
    # Its text, which has all numbers, says the same.
    assert parse_entry(str(parse_entry(entry))) == parse_entry(entry)
    assert parse_entry(str(parse_entry(entry))).terms == read


def test_the_text_of_an_entry_is_complete():
    assert str(parse_entry("kd")) == "kd@temperature=4.0:0.9"
    assert str(parse_entry("dkd@beta=2")) == "dkd@temperature=4.0@alpha=1.0@beta=2.0:1.0"
    assert str(parse_entry("at@teacher_layers=a+b")) == "at@teacher_layers=a+b:1000.0"
    assert str(parse_entry("rkd")) == "rkd:25.0/50.0"


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.terms and not method.online])
def test_a_list_of_one_is_the_method(method):
    one = combine([method])
    assert (one.terms, one.extra_images) == (METHODS[method].terms, METHODS[method].extra_images)
    assert one.warmup_epochs == METHODS[method].warmup_epochs
    # But labels count as much as in any list.
    assert one.student_loss_weight == 1.0


def test_a_list_is_one_method():
    method = combine("kd:0.9, tkd:2.0, sp")
    assert method == combine(["kd:0.9", "tkd", "sp:3000"])
    assert method.summary == "kd@temperature=4.0:0.9 + tkd@margin=5.0:2.0 + sp:3000.0"
    assert [term.layers for term in method.terms] == [(), (), ("features",)]
    assert method.extra_images == {"negatives"} and method.warmup_epochs == 0
    assert combine("pairs,tkd,dkd").extra_images == {"negatives", "partners"}
    # dkd's 20 epochs, however often it is listed.
    assert combine("pairs,dkd,dkd@beta=1").warmup_epochs == 20


@pytest.mark.parametrize(
    "losses, message",
    [
        ([], r"`losses` must be a list.*losses=\[\]"),
        ("", "`losses` must be a list.*''"),
        ("kd,", "`losses` must be a list.*''"),
        ("kd:x", "`losses` must be a list.*'kd:x'"),
        ("kd:", "`losses` must be a list.*'kd:'"),
        ("kd: 1", "`losses` must be a list.*'kd: 1'"),
        ("kd@temperature", "`losses` must be a list.*'kd@temperature'"),
        ("kd,kdd:1", "must be one of kd, .*'kdd:1'"),
        ("baseline", "must be one of kd, .*'baseline'"),
        ("kd@margin=2", "'kd' knows the arguments temperature, .*no `margin`.*'kd@margin=2'"),
        ("logits@temperature=2", "'logits' knows .*no `temperature`"),
        ("lskd@standardize=False", "'lskd' knows .*no `standardize`"),
        ("lskd@name=kd", "'lskd' knows .*no `name`"),
        ("tkd@negative_classes=teacher", "'tkd' knows the arguments margin, miner, .*no `negative_classes`"),
        ("kd@temperature=hot", "`temperature` must be a number > 0.*hot"),
        ("kd@temperature=0", "`temperature` must be a number > 0.*=0"),
        ("kd@temperature=2:x", "`temperature` must be a number > 0.*2:x"),
        ("tkd@margin=-1", "`margin` must be a number >= 0.*-1"),
        ("tkd@margin=nan", "`margin` must be a number >= 0.*nan"),
        ("tkd@miner=", "`miner` must have a value"),
        ("sp@student_layers=a+", "`student_layers` must have a value"),
        ("kd:-1", "'kd' takes a weight >= 0 for each of its losses, SoftTargets.*'kd:-1'"),
        ("kd:1e999", "'kd' takes a weight"),
        ("kd:1/2", "'kd' takes a weight"),
        ("rkd:25", "'rkd' takes a weight .*RelationalDistance/RelationalAngle.*'rkd:25'"),
    ],
)
def test_errors(losses, message):
    with pytest.raises(ValueError, match=message):
        combine(losses)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = np.arange(8) % 3


def network(width, name):
    x = inputs = keras.Input((5,))
    x = keras.layers.Dense(width, "tanh", name="features")(x)
    x = keras.layers.Dense(4, "tanh", name="embedding")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)


def outputs(model):
    """Embedding and logits, and the features, float64."""
    layers = ("features", "embedding", "logits")
    read = keras.Model(model.inputs, [model.get_layer(name).output for name in layers])
    return dict(zip(layers, (np.asarray(z, "float64") for z in read.predict(X, verbose=0)), strict=True))


def test_the_total_is_the_sum_of_the_single_losses():
    """Terms of six methods, kd three times, against the papers' formulas."""
    listed = "kd@temperature=1:0.9, kd@temperature=8:0.25, lskd:0.3, tkd@margin=1.5@miner=all:2, "
    listed += "sp@teacher_layers=embedding:30, rkd:5/7, logits"
    keras.utils.set_random_seed(0)
    teacher, student = network(6, "teacher"), network(3, "student")
    losses, weights = make_losses(combine(listed))
    distiller = Distiller(teacher, student, losses, weights)
    assert distiller.term_names == ["kd", "kd_2", "lskd", "tkd", "sp", "rkd_distance", "rkd_angle", "logits"]
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = distiller.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)

    t, s = outputs(teacher), outputs(student)
    z_t, z_s = t["logits"], s["logits"]
    terms = [
        (0.9, "kd", oracles.soft_targets(z_t, z_s, 1.0)),
        (0.25, "kd_2", oracles.soft_targets(z_t, z_s, 8.0)),
        (0.3, "lskd", oracles.soft_targets(z_t, z_s, 2.0, standardize=True)),
        (2.0, "tkd", oracles.mined_triplet(z_t, z_s, Y, 1.5, "all")),
        # The teacher's layer is the entry's, the student's the method's.
        (30.0, "sp", oracles.similarity_preserving(t["embedding"], s["features"])),
        (5.0, "rkd_distance", oracles.relational_distance(t["embedding"], s["embedding"])),
        (7.0, "rkd_angle", oracles.relational_angle(t["embedding"], s["embedding"])),
        (0.1, "logits", oracles.logit_regression(z_t, z_s)),
    ]
    total = np.mean([-oracles.log_softmax(row)[label] for row, label in zip(z_s.tolist(), Y, strict=True)])
    for weight, name, values in terms:
        assert logs[name] == pytest.approx(values.mean(), rel=1e-4), name
        total += weight * values.mean()
    assert logs["loss"] == pytest.approx(total, rel=1e-4)


def test_what_a_run_gives_all_losses_of_a_list():
    losses, _ = make_losses(combine("tkd:1, pairs:1, crd"), seed=5, labels=Y.tolist(), negative_classes="teacher")
    assert [loss.seed for loss in losses] == [5, 5, 5]
    assert [loss.negative_classes for loss in losses[:2]] == ["teacher", "teacher"]
    assert losses[2].labels == Y.tolist()
    with pytest.raises(ValueError, match="'kd.*crd.*' needs the `labels`"):
        make_losses(combine("kd,crd"))


# In a run's configuration.


def test_a_list_in_place_of_the_method():
    config = DistillConfig(losses=("kd", "rkd:1/2", "dkd"))
    assert config.recipe == combine("kd,rkd:1/2,dkd")
    title = "kd@temperature=4.0:0.9 + rkd:1.0/2.0 + dkd@temperature=4.0@alpha=1.0@beta=8.0:1.0"
    resolved = config.resolved()
    assert config.title == resolved.title == title
    assert " + ".join(resolved.losses) == title
    assert (resolved.student_loss_weight, resolved.warmup_epochs, resolved.negatives) == (1.0, 20, None)
    others = {"losses", "student_loss_weight", "validation_fraction", "warmup_epochs"}
    for field in dataclasses.fields(config):
        assert field.name in others or getattr(resolved, field.name) == getattr(config, field.name)
    # An empty list is none.
    assert DistillConfig(losses=(), method="kd").recipe == METHODS["kd"]
    assert DistillConfig(losses=(), method="kd").title == "kd"


@pytest.mark.parametrize(
    "settings",
    [
        {"losses": ("kd:0.9", "tkd:2.0", "sp:3000")},
        {"losses": ("kd@temperature=2:0.45", "kd@temperature=8:0.45"), "student_loss_weight": 0.1, "warmup_epochs": 3},
        {"losses": ("tkd@miner=hard", "pairs"), "negatives": "in_batch", "negative_classes": "teacher"},
        {"losses": ("sp@teacher_layers=a/b@student_layers=c:pre_activation", "at@student_layers=a+b+c:1e-7")},
    ],
)
def test_flags_give_back_the_same_run(settings):
    for config in (DistillConfig(**settings), DistillConfig(**settings).resolved()):
        lines = format_flags(config)
        assert DistillConfig(**read_flags(DistillConfig, "\n".join(lines))) == config
        assert not [line for line in lines if line.startswith("--method")]
    assert config.resolved() == config
    assert config.recipe == DistillConfig(**settings).recipe


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "kd"}, "in place of a `method`.*method='kd'"),
        ({"temperature": 2.0}, "own `temperature`, in the list: kd@temperature=2:0.5.*temperature=2.0"),
        ({"losses": ("tkd",), "margin": 2.0}, "own `margin`"),
        ({"losses": ("tkd",), "negatives": "in_batch", "miner": "hard"}, "own `miner`"),
        ({"losses": ("sp",), "student_layers": ("stage1",)}, "own `student_layers`"),
        ({"distillation_loss_weights": (1.0,)}, r"own `distillation_loss_weights`, in the list: kd:0.5.*\(1.0,\)"),
        ({"negatives": "in_batch"}, "these `losses` does not read `negatives`"),
        ({"losses": ("tkd", "pairs")}, "negatives or with partners.*'in_batch'.*negatives=None.*'tkd', 'pairs'"),
        ({"losses": ("tkd_soft", "pairs"), "negatives": "drawn"}, "negatives or with partners.*negatives='drawn'"),
        ({"losses": ("tkd@miner=hard",)}, "`miner`.*'in_batch'.*negatives=None"),
        ({"losses": ("kd@margin=2",)}, "no `margin`"),
        ({"losses": ("kd:1/2",)}, "takes a weight"),
    ],
)
def test_settings_that_do_not_go_with_a_list(settings, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**{"losses": ("kd",), **settings})
