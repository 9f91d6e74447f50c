"""What holds for every loss. A new loss is one more row of `CASES`.

Expected values come from `oracles.py`: float64, written from the papers, sharing no code with the library.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

import keras_tkd.losses
from keras_tkd.losses import (
    DIST,
    AttentionTransfer,
    BinarySoftTargets,
    ContrastiveRepresentation,
    CorrelationCongruence,
    DecoupledTargets,
    DistillationLoss,
    FlowOfSolution,
    HardTargets,
    Hint,
    LogitRegression,
    NormalizedTargets,
    PairDistillation,
    ProbabilisticTransfer,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    SoftTargets,
    TripletDistillation,
    VariationalInformation,
)
from keras_tkd.miners import fair_coin, random_other_class, random_same_class
from keras_tkd.utils.hyperparameters import Hyperparameter

STEP = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One loss, with all that the properties below need to know about it.

    Attributes:
        name: id of the row.
        loss: the class.
        draw: `(rng, batch, classes)` -> `(y_true, y_pred)`. Floating-point numbers are outputs of the models, whole
            numbers (labels, index, step) are not. Losses on features may take `classes` for the width of an output.
        oracle: `(y_true, y_pred, **arguments)` -> one float64 value per sample.
        default_name: the method's name.
        arguments: constructor arguments of the row; the oracle gets them too.
        changed: every argument of the constructor that is the loss's own, none at its default.
        required: constructor arguments without a default.
        prepare: `(loss)`; gives the layers of a loss that has some known weights.
        at_teacher: the value where the student equals the teacher: "zero", or "zero sum" where only the shares of the
            samples together are zero (the gradient vanishes with both), or `(y_true, y_pred, **arguments)` -> one value
            per sample; None where the two cannot be equal.
        rounding: how far from zero value and gradient may be there.
        invariant: the `CHANGES` of the outputs that change nothing.
        same_width: whether teacher and student must be of one shape.
        live: attribute -> another value for it; every `Hyperparameter` of the class.
        jumps: name of one of the `EXTREMES` -> why the gradient is not between the one-sided slopes there. Where a loss
            jumps to either side these are steep and of opposite signs, and no mark is needed.
        by_position: why the order of the batch matters, where it does.
        batch: rows, where the rows may not choose their partners at random.
    """

    name: str
    loss: type
    draw: Callable
    oracle: Callable
    default_name: str
    arguments: dict = dataclasses.field(default_factory=dict)
    changed: dict = dataclasses.field(default_factory=dict)
    required: dict = dataclasses.field(default_factory=dict)
    prepare: Callable | None = None
    at_teacher: str | Callable | None = "zero"
    rounding: float = 1e-14
    invariant: tuple = ()
    same_width: bool = True
    live: dict = dataclasses.field(default_factory=dict)
    jumps: dict = dataclasses.field(default_factory=dict)
    by_position: str = ""
    batch: int = 12

    def new(self, **arguments):
        loss = self.loss(**{**self.required, **arguments})
        if self.prepare:
            self.prepare(loss)
        return loss

    def make(self, **more):
        return self.new(**{"dtype": "float64", **self.arguments, **more})

    def inputs(self, batch=12, classes=6, seed=0):
        return self.draw(np.random.default_rng(seed), batch, classes)

    def values(self, y_true, y_pred, **more):
        return self.oracle(y_true, y_pred, **{**self.arguments, **more})


# What the inputs look like


def draw_logits(rng, batch, classes):
    return tuple(4.0 * rng.normal(size=(2, batch, classes)))


def draw_labelled(rng, batch, classes):
    teacher, student = draw_logits(rng, batch, classes)
    return {"logits": teacher, "labels": rng.integers(classes, size=batch)}, student


def draw_triplets(rng, batch, classes):
    anchor, positive, negative = 4.0 * rng.normal(size=(3, batch, classes))
    return anchor, {"positive": positive, "negative": negative}


def draw_pairs(rng, batch, classes):
    teacher, student = draw_logits(rng, batch, classes)
    return {"logits": teacher, "same": np.arange(batch) % 2}, student


def draw_mined(rng, batch, classes):
    """Three classes, so that each anchor chooses; in a batch of two there is nothing to choose."""
    teacher, student = draw_logits(rng, batch, classes)
    return {"logits": teacher, "labels": np.arange(batch) % 3, "step": np.int64(STEP)}, student


def draw_embeddings(rng, batch, classes):
    return rng.normal(size=(batch, classes)), rng.normal(size=(batch, classes + 2))


def draw_maps(rng, batch, classes):
    """Of other width and size: two means over positions."""
    return rng.normal(size=(batch, 2, 2, 3)), rng.normal(size=(batch, 3, 2, 2))


def draw_map_and_vector(rng, batch, classes):
    teacher = [rng.normal(size=(batch, 2, 2, 3)), rng.normal(size=(batch, 4))]
    return teacher, [rng.normal(size=(batch, 3, 2, 2)), rng.normal(size=(batch, 5))]


def draw_two_maps(rng, batch, classes):
    """The teacher's map is the larger, then the student's; 3 to 2 is a pooling to cells that overlap."""
    teacher = [rng.normal(size=(batch, 4, 3, 2)), rng.normal(size=(batch, 2, 2, 3))]
    return teacher, [rng.normal(size=(batch, 2, 2, 3)), rng.normal(size=(batch, 2, 3, 2))]


def draw_tokens(rng, batch, classes):
    """Four patches; of the first outputs, the teacher's begin with a class token."""
    teacher = [rng.normal(size=(batch, 5, 3)), rng.normal(size=(batch, 4, 4))]
    return teacher, [rng.normal(size=(batch, 4, 2)), rng.normal(size=(batch, 4, 5))]


def draw_tokens_with_classes(rng, batch, classes):
    """Four patches; the teacher's first outputs begin with a class token, and the student's second ones."""
    teacher = [rng.normal(size=(batch, 5, 2)), rng.normal(size=(batch, 4, 3))]
    return teacher, [rng.normal(size=(batch, 4, 3)), rng.normal(size=(batch, 5, 2))]


def draw_flows(rng, batch, classes):
    """Three layers of equal width on both sides; of their sizes some differ."""
    teacher = [rng.normal(size=(batch, *shape)) for shape in ((2, 2, 2), (2, 1, 3), (1, 1, 2))]
    return teacher, [rng.normal(size=(batch, *shape)) for shape in ((3, 2, 2), (2, 2, 3), (1, 1, 2))]


def draw_indexed(rng, batch, classes):
    """Training samples by their positions in `TRAINING_LABELS`."""
    index = rng.permutation(len(TRAINING_LABELS))[:batch]
    teacher = {"features": rng.normal(size=(batch, 4)), "index": index, "step": np.int64(STEP)}
    return {**teacher, "labels": np.array(TRAINING_LABELS)[index]}, rng.normal(size=(batch, 2, 1, 3))


# Layers that losses own, with known weights


def known(*shape):
    """Numbers that half precision holds exactly."""
    return np.round(16.0 * np.random.default_rng(shape).normal(size=shape)) / 16.0


# Shapes of `draw_map_and_vector`, of `draw_tokens`, of `draw_two_maps`.
TOKENS = [(None, 5, 3), (None, 4, 4)], [(None, 4, 2), (None, 4, 5)]
MAP_AND_VECTOR = [(None, 2, 2, 3), (None, 4)], [(None, 3, 2, 2), (None, 5)]
TWO_MAPS = [(None, 4, 3, 2), (None, 2, 2, 3)], [(None, 2, 2, 3), (None, 2, 3, 2)]
# Kernel, then gamma, beta, mean and variance of BatchNorm.
PROJECTORS = [
    (known(2, 3), known(2, 2, 3)[0, 0], known(3, 3)[0], known(3, 3)[1], known(3, 3)[2] ** 2 + 0.5),
    (known(5, 4), known(2, 2, 4)[0, 0], known(4, 4)[0], known(4, 4)[1], known(4, 4)[2] ** 2 + 0.5),
]
# Three kernels, then what the variances are made of.
REGRESSORS = [
    (known(2, 3), known(3, 3), known(1, 3, 3)[0], known(1, 3)[0]),
    (known(5, 4), known(4, 4), known(1, 4, 4)[0], known(1, 4)[0]),
]
KERNELS = [known(3, 2), known(2, 3)]
TRAINING_LABELS = [0, 1, 2, 0, 1, 0, 2, 2, 0, 1, 0, 0, 2, 1, 0, 1]
NORMALIZERS = [20.0, 12.5]


def prepare_hint(loss, shapes=MAP_AND_VECTOR):
    loss.build(*shapes)
    for projector, (kernel, *statistics) in zip(loss.layers, PROJECTORS, strict=True):
        projector.layers[0].set_weights([kernel])
        projector.layers[1].set_weights(statistics)


def prepare_regressors(loss, shapes=MAP_AND_VECTOR):
    loss.build(*shapes)
    for regressor, (*kernels, raw) in zip(loss.layers, REGRESSORS, strict=True):
        for layer, kernel in zip(regressor.dense, kernels, strict=True):
            layer.set_weights([kernel])
        regressor.raw_variance.assign(raw)


def prepare_flow(loss):
    loss.build(*TWO_MAPS)
    for layer, kernel in zip(loss.layers, KERNELS, strict=True):
        layer.set_weights([kernel])


def prepare_contrast(loss):
    loss.build((None, 4), (None, 2, 1, 3))
    teacher, student, bank = loss.layers
    teacher.set_weights(heads(loss.feature_size)[0])
    student.set_weights(heads(loss.feature_size)[1])
    for memory, rows in zip((bank.teacher, bank.student), banks(loss.feature_size), strict=True):
        memory.assign(rows)
    # As after a first batch: how that one sets them is in `test_contrastive.py`.
    bank.log_normalizers.assign(np.log(NORMALIZERS))
    bank.normalized.assign([1.0, 1.0])


def heads(size):
    """Kernel and bias of the teacher's head, of the student's."""
    return (known(4, size), known(4, 4, size)[0, 0]), (known(3, size), known(3, 3, size)[0, 0])


def banks(size):
    return [[oracles.unit(row) for row in known(role, len(TRAINING_LABELS), size)[0]] for role in (1, 2)]


# The oracles, called as the losses are


def soft_targets_oracle(y_true, y_pred, temperature, standardize=False):
    return oracles.soft_targets(y_true, y_pred, temperature, standardize)


def triplet_oracle(y_true, y_pred, margin):
    return oracles.triplet(y_true, y_pred["positive"], y_pred["negative"], margin)


def triplet_at_teacher(y_true, y_pred, margin):
    distances = [oracles.distance(a, n) for a, n in zip(y_true, y_pred["negative"], strict=True)]
    return [max(margin - distance, 0.0) for distance in distances]


def labelled(oracle):
    """An oracle of `(teacher, student, labels, ...)`."""
    return lambda y_true, y_pred, **arguments: oracle(y_true["logits"], y_pred, y_true["labels"], **arguments)


def hard_targets_at_teacher(y_true, y_pred):
    """log(1 / p) of the likeliest class."""
    return [np.log(np.sum(np.exp(row)) / np.exp(np.max(row))) for row in y_true]


def normalized_targets_at_teacher(y_true, y_pred, temperature, gamma):
    """p log(1 / p) of the target, and the entropy of the others."""
    values = []
    for row, label in zip(y_true["logits"], y_true["labels"], strict=True):
        p = np.exp(row) / np.sum(np.exp(row))
        others = np.exp(np.delete(row, label) / temperature)
        others /= np.sum(others)
        entropy = np.sum(others * np.log(1 / others))
        values.append(p[label] * np.log(1 / p[label]) + gamma * temperature**2 * entropy)
    return values


def hint_oracle(y_true, y_pred):
    return oracles.hint(y_true, y_pred, PROJECTORS)


def regressor_oracle(y_true, y_pred):
    softplus = [(*kernels, np.log1p(np.exp(raw)) + 1e-5) for *kernels, raw in REGRESSORS]
    return oracles.variational_information(y_true, y_pred, softplus)


def projected_flow_oracle(y_true, y_pred):
    projected = [oracles.linear(maps, kernel) for maps, kernel in zip(y_pred, KERNELS, strict=True)]
    return oracles.flow_of_solution(y_true, projected)


@functools.cache
def drawn_negatives(labels, seed, negatives):
    """The draws are the loss's own, tested in `test_contrastive.py`."""
    loss = ContrastiveRepresentation(TRAINING_LABELS, negatives=negatives, seed=seed)
    return loss.draw(tf.constant(labels, "int64"), tf.constant(STEP)).numpy()


def contrast_oracle(y_true, y_pred, feature_size, negatives, temperature, seed):
    """Outside training: the positive is the other network's embedding of the same sample."""
    embeddings = [
        [oracles.unit(row) for row in oracles.linear(oracles.embeddings(features), kernel) + bias]
        for features, (kernel, bias) in zip((y_true["features"], y_pred), heads(feature_size), strict=True)
    ]
    drawn = drawn_negatives(tuple(y_true["labels"].tolist()), seed, negatives)
    of_teacher, of_student = banks(feature_size)
    values = []
    for v_t, v_s, others in zip(*embeddings, drawn, strict=True):
        contrast = functools.partial(oracles.contrast, temperature=temperature, samples=len(TRAINING_LABELS))
        student = contrast(v_s, v_t, [of_teacher[n] for n in others], normalizer=NORMALIZERS[0])
        teacher = contrast(v_t, v_s, [of_student[n] for n in others], normalizer=NORMALIZERS[1])
        values.append(student + teacher)
    return np.array(values)


def pair_oracle(y_true, y_pred, margin):
    return oracles.pair(y_true["logits"], y_pred, y_true["same"], margin)


def pair_at_teacher(y_true, y_pred, margin):
    return np.where(y_true["same"], 0.0, margin**2)


@functools.cache
def partners(labels, seed):
    """Coins, mates, negatives and whether there is one: the miners', whose own tests are elsewhere."""
    labels, seed = tf.constant(labels, "int64"), [seed, STEP]
    (mates, _), (negatives, valid) = random_same_class(labels, seed), random_other_class(labels, seed)
    return [found.numpy() for found in (fair_coin(labels, seed), mates, negatives, valid)]


def mined_pair_oracle(y_true, y_pred, margin, seed):
    same, mates, negatives, valid = partners(tuple(y_true["labels"].tolist()), seed)
    chosen = [y_pred[i] for i in np.where(same, mates, negatives)]
    return oracles.pair(y_true["logits"], chosen, same, margin) * (same | valid)


def mined_oracle(y_true, y_pred, margin, seed):
    _, _, negatives, valid = partners(tuple(y_true["labels"].tolist()), seed)
    return oracles.triplet(y_true["logits"], y_pred, [y_pred[i] for i in negatives], margin) * valid


# The table


def relation_case(name, loss, oracle, draw):
    return Case(
        name=name,
        loss=loss,
        draw=draw,
        oracle=oracle,
        default_name=name.removesuffix("-maps"),
        invariant=("translation", "scale", "rotation"),
        same_width=False,
    )


def mined_case(miner):
    return Case(
        name=f"tkd-{miner}",
        loss=TripletDistillation,
        draw=draw_mined,
        oracle=labelled(oracles.mined_triplet),
        default_name="tkd",
        arguments={"margin": 5.0, "miner": miner},
        changed={"margin": 2.5, "miner": "all", "negative_classes": "teacher", "seed": 3},
        at_teacher=None,
        live={"margin": 1.0},
    )


STEEP = "within 1e-7 of a constant row the slope is 1e7 times as steep, and a difference of 1e-5 steps over that"


def soft_targets_case(name, arguments, other_temperature, invariant, jumps=()):
    return Case(
        name=name,
        loss=SoftTargets,
        draw=draw_logits,
        oracle=soft_targets_oracle,
        default_name="kd",
        arguments=arguments,
        changed={"temperature": 2.5, "standardize": True},
        invariant=invariant,
        live={"temperature": other_temperature},
        jumps=dict.fromkeys(jumps, STEEP),
    )


ALL_KINKS = (
    "all ReLUs of the regressor are at their kinks, where its slopes are between those of each, not of their sum"
)

CASES = [
    soft_targets_case("kd-T1", {"temperature": 1.0}, 3.0, ("shift of each row",)),
    soft_targets_case("kd-T4", {"temperature": 4.0}, 1.5, ("shift of each row",)),
    soft_targets_case("kd-T0.5", {"temperature": 0.5}, 2.0, ("shift of each row",)),
    soft_targets_case(
        "lskd",
        {"temperature": 2.0, "standardize": True},
        1.0,
        ("shift of each row", "scale", "scale of each row"),
        ("student zero",),
    ),
    *[
        Case(
            name=f"binary_kd-T{temperature:g}",
            loss=BinarySoftTargets,
            draw=draw_logits,
            oracle=oracles.binary_soft_targets,
            default_name="binary_kd",
            arguments={"temperature": temperature},
            changed={"temperature": 2.5},
            live={"temperature": 1.5},
        )
        for temperature in (4.0, 1.0)
    ],
    Case(
        name="hard",
        loss=HardTargets,
        draw=draw_logits,
        oracle=oracles.hard_targets,
        default_name="hard",
        at_teacher=hard_targets_at_teacher,
        invariant=("shift of each row",),
    ),
    Case(
        name="logits",
        loss=LogitRegression,
        draw=draw_logits,
        oracle=oracles.logit_regression,
        default_name="logits",
    ),
    Case(
        name="dist",
        loss=DIST,
        draw=draw_logits,
        oracle=oracles.dist,
        default_name="dist",
        arguments={"temperature": 4.0, "inter_weight": 1.0, "intra_weight": 1.0},
        changed={"temperature": 2.5, "inter_weight": 0.5, "intra_weight": 2.0},
        at_teacher="zero sum",
        rounding=1e-13,
        invariant=("shift of each row",),
        live={"temperature": 1.5, "inter_weight": 0.25, "intra_weight": 2.0},
    ),
    Case(
        name="dkd",
        loss=DecoupledTargets,
        draw=draw_labelled,
        oracle=labelled(oracles.decoupled_targets),
        default_name="dkd",
        arguments={"temperature": 4.0, "alpha": 1.0, "beta": 8.0},
        changed={"temperature": 2.5, "alpha": 0.5, "beta": 2.0},
        invariant=("shift of each row",),
        live={"temperature": 1.5, "alpha": 2.0, "beta": 0.5},
    ),
    Case(
        name="nkd",
        loss=NormalizedTargets,
        draw=draw_labelled,
        oracle=labelled(oracles.normalized_targets),
        default_name="nkd",
        arguments={"temperature": 2.0, "gamma": 1.5},
        changed={"temperature": 2.5, "gamma": 0.5},
        at_teacher=normalized_targets_at_teacher,
        invariant=("shift of each row",),
        live={"temperature": 1.5, "gamma": 0.5},
    ),
    Case(
        name="tkd-given",
        loss=TripletDistillation,
        draw=draw_triplets,
        oracle=triplet_oracle,
        default_name="tkd",
        arguments={"margin": 5.0},
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        at_teacher=triplet_at_teacher,
        live={"margin": 1.0},
    ),
    Case(
        name="tkd-mined",
        loss=TripletDistillation,
        draw=draw_mined,
        oracle=mined_oracle,
        default_name="tkd",
        arguments={"margin": 5.0, "seed": 3},
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        at_teacher=None,
        live={"margin": 1.0},
        batch=2,
    ),
    mined_case("semi_hard"),
    mined_case("hard"),
    mined_case("all"),
    Case(
        name="pairs-given",
        loss=PairDistillation,
        draw=draw_pairs,
        oracle=pair_oracle,
        default_name="pairs",
        arguments={"margin": 12.0},
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        at_teacher=pair_at_teacher,
        live={"margin": 8.0},
    ),
    Case(
        name="pairs-mined",
        loss=PairDistillation,
        draw=draw_mined,
        oracle=mined_pair_oracle,
        default_name="pairs",
        arguments={"margin": 12.0, "seed": 3},
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        at_teacher=None,
        live={"margin": 8.0},
        by_position="a row's place in the batch determines its coin and its partner",
    ),
    Case(
        name="sp",
        loss=SimilarityPreserving,
        draw=draw_map_and_vector,
        oracle=oracles.similarity_preserving,
        default_name="sp",
        invariant=("scale", "rotation"),
        same_width=False,
    ),
    relation_case("rkd_distance", RelationalDistance, oracles.relational_distance, draw_embeddings),
    relation_case("rkd_distance-maps", RelationalDistance, oracles.relational_distance, draw_maps),
    relation_case("rkd_angle", RelationalAngle, oracles.relational_angle, draw_embeddings),
    relation_case("rkd_angle-maps", RelationalAngle, oracles.relational_angle, draw_maps),
    Case(
        name="pkt",
        loss=ProbabilisticTransfer,
        draw=draw_embeddings,
        oracle=oracles.probabilistic_transfer,
        default_name="pkt",
        # The 1e-7 beside both probabilities moves the minimum by as much.
        rounding=1e-6,
        invariant=("scale", "scale of each row", "rotation"),
        same_width=False,
    ),
    Case(
        name="cc",
        loss=CorrelationCongruence,
        draw=draw_embeddings,
        oracle=oracles.correlation_congruence,
        default_name="cc",
        arguments={"gamma": 0.4, "order": 2},
        changed={"gamma": 0.8, "order": 3},
        invariant=("scale", "scale of each row", "rotation"),
        same_width=False,
        live={"gamma": 0.25},
    ),
    Case(
        name="at",
        loss=AttentionTransfer,
        draw=draw_two_maps,
        oracle=oracles.attention_transfer,
        default_name="at",
        invariant=("scale", "scale of each row", "rotation"),
        same_width=False,
    ),
    Case(
        name="fitnet",
        loss=Hint,
        draw=draw_map_and_vector,
        oracle=hint_oracle,
        default_name="fitnet",
        prepare=prepare_hint,
        at_teacher=None,
        same_width=False,
    ),
    Case(
        name="at-tokens",
        loss=AttentionTransfer,
        draw=draw_tokens_with_classes,
        oracle=oracles.attention_transfer,
        default_name="at",
        invariant=("scale", "scale of each row", "rotation"),
        same_width=False,
    ),
    Case(
        name="fitnet-tokens",
        loss=Hint,
        draw=draw_tokens,
        oracle=hint_oracle,
        default_name="fitnet",
        prepare=functools.partial(prepare_hint, shapes=TOKENS),
        at_teacher=None,
        same_width=False,
    ),
    Case(
        name="vid-tokens",
        loss=VariationalInformation,
        draw=draw_tokens,
        oracle=regressor_oracle,
        default_name="vid",
        changed={"start": 2.0},
        prepare=functools.partial(prepare_regressors, shapes=TOKENS),
        at_teacher=None,
        same_width=False,
        jumps={"student zero": ALL_KINKS},
    ),
    Case(
        name="vid",
        loss=VariationalInformation,
        draw=draw_map_and_vector,
        oracle=regressor_oracle,
        default_name="vid",
        # The start is the weights', which `prepare` sets.
        changed={"start": 2.0},
        prepare=prepare_regressors,
        at_teacher=None,
        same_width=False,
        jumps={"student zero": ALL_KINKS},
    ),
    Case(
        name="fsp",
        loss=FlowOfSolution,
        draw=draw_flows,
        oracle=oracles.flow_of_solution,
        default_name="fsp",
        same_width=False,
    ),
    Case(
        name="fsp-projected",
        loss=FlowOfSolution,
        draw=draw_two_maps,
        oracle=projected_flow_oracle,
        default_name="fsp",
        prepare=prepare_flow,
        at_teacher=None,
        same_width=False,
    ),
    Case(
        name="crd",
        loss=ContrastiveRepresentation,
        draw=draw_indexed,
        oracle=contrast_oracle,
        default_name="crd",
        arguments={"feature_size": 3, "negatives": 5, "temperature": 0.5, "seed": 3},
        changed={"feature_size": 3, "negatives": 5, "temperature": 0.5, "momentum": 0.25, "seed": 3},
        required={"labels": TRAINING_LABELS},
        prepare=prepare_contrast,
        at_teacher=None,
        same_width=False,
        live={"temperature": 0.25},
        by_position="a row's place in the batch determines its draws",
    ),
]


def losses_where(condition):
    return pytest.mark.parametrize("case", list(filter(condition, CASES)), ids=lambda case: case.name)


every_loss = losses_where(lambda case: True)
# One row of each class, for what is slow.
FIRST_ROWS = {case.loss: case for case in reversed(CASES)}.values()

# Arguments that every constructor takes, none at its default.
COMMON = {
    "teacher_layers": ["block", "logits"],
    "student_layers": ["stage", "logits"],
    "name": "of_its_own",
    "reduction": "mean_with_sample_weight",
    "dtype": "float64",
}

WEIGHTS = {
    "none": None,
    "mixed": [0.0, 1.0, 0.5, 2.0, 0.0, 3.0, 0.25, 1.0, 1.0, 0.0, 7.0, 0.125],
    "zeros": [0.0] * 12,
}


def same(x):
    return x


def saturated(x):
    """1e4, -1e4, and some zeros: ties among them."""
    return 1e4 * np.sign(np.round(x))


def one_row(x):
    return np.repeat(x[:1], len(x), axis=0)


def two_far_clusters(x):
    """Rows that differ by 100 times what they differ by from their neighbours."""
    return x + 100.0 * (np.arange(len(x)) % 2).reshape([-1] + [1] * (x.ndim - 1))


# name -> batch, classes, what becomes of the teacher's outputs, of the student's
EXTREMES = {
    "saturated": (3, 3, saturated, saturated),
    "identical rows": (4, 3, one_row, one_row),
    "teacher's rows identical": (4, 3, one_row, same),
    "student's rows identical": (4, 3, same, one_row),
    "all zero": (4, 3, np.zeros_like, np.zeros_like),
    "teacher zero": (3, 3, np.zeros_like, same),
    "student zero": (3, 3, same, np.zeros_like),
    "batch of one": (1, 4, same, same),
    "two classes": (3, 2, same, same),
    "one class": (3, 3, same, same),
    "two far clusters": (4, 3, two_far_clusters, two_far_clusters),
    "saturated alike": (3, 3, saturated, saturated),
}


def has_labels(case):
    y_true, _ = case.inputs()
    return isinstance(y_true, dict) and "labels" in y_true


def applicable(case, extreme):
    if extreme == "one class":
        return has_labels(case)
    return extreme != "saturated alike" or case.at_teacher is not None


def extreme_inputs(case, extreme):
    batch, classes, of_teacher, of_student = EXTREMES[extreme]
    y_true, y_pred = case.inputs(batch, classes, seed=3)
    y_true, y_pred = outputs_changed(of_teacher, y_true), outputs_changed(of_student, y_pred)
    if extreme == "one class":
        y_true = {**y_true, "labels": np.zeros_like(y_true["labels"])}
    return y_true, equal_to_teacher(y_true, y_pred) if extreme == "saturated alike" else y_pred


def equal_to_teacher(y_true, y_pred):
    teacher = y_true.get("logits", y_true.get("features")) if isinstance(y_true, dict) else y_true
    return {**y_pred, "positive": teacher} if isinstance(y_pred, dict) else teacher


# name -> (rng, shape) -> a function of an output. Each output of each model gets a function of its own.
CHANGES = {
    "shift of each row": lambda rng, shape: adding(10.0 * rng.normal(size=[shape[0]] + [1] * (len(shape) - 1))),
    "translation": lambda rng, shape: adding(10.0 * rng.normal(size=shape[1:])),
    "scale": lambda rng, shape: times(rng.uniform(1.5, 5.0)),
    "scale of each row": lambda rng, shape: times(rng.uniform(0.2, 5.0, size=[shape[0]] + [1] * (len(shape) - 1))),
    "rotation": lambda rng, shape: turning(np.linalg.qr(rng.normal(size=(shape[-1], shape[-1])))[0]),
}


def adding(number):
    return lambda x: x + number


def times(number):
    return lambda x: x * number


def turning(matrix):
    return lambda x: tf.tensordot(x, tf.constant(matrix), 1)


def is_float(x):
    return tf.as_dtype(x.dtype).is_floating


def outputs_changed(function, nest):
    """The nest with a function of each of its outputs; labels and the like stay."""
    return keras.tree.map_structure(lambda x: function(x) if is_float(x) else x, nest)


def outputs_of(nest):
    return [leaf for leaf in keras.tree.flatten(nest) if is_float(leaf)]


def each_output_changed(function, nest):
    """One nest for each output in it, with that one changed."""
    leaves = keras.tree.flatten(nest)
    for i, leaf in enumerate(leaves):
        if is_float(leaf):
            yield keras.tree.pack_sequence_as(nest, [*leaves[:i], function(leaf), *leaves[i + 1 :]])


def cast(nest, dtype):
    """Tensors of the given precision; what is not floating point (labels, step) keeps its dtype."""
    return keras.tree.map_structure(lambda x: tf.cast(x, dtype) if is_float(x) else tf.constant(x), nest)


def float64(nest):
    return keras.tree.map_structure(lambda x: np.array(tf.cast(x, "float64")) if is_float(x) else np.array(x), nest)


def value_and_gradient(loss, y_true, y_pred, weights=None):
    """The loss, and its gradient with respect to the student's outputs, nested as these are."""
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred, sample_weight=weights)
    # The gradient of rows that were picked comes in slices.
    return value, keras.tree.map_structure(tf.convert_to_tensor, tape.gradient(value, y_pred))


def assert_close(actual, expected, tolerance):
    """|actual - expected| <= tolerance * max(1, |expected|), entry by entry; a NaN is never close."""
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    excess = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
    assert np.all(excess <= tolerance), f"off by {np.max(excess)}: {actual} instead of {expected}"


def assert_nests_close(actual, expected, tolerance):
    keras.tree.assert_same_structure(actual, expected)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        assert_close(a, b, tolerance)


def slopes_of_oracle(case, y_true, y_pred, weights, h=1e-5):
    """Backward and forward differences of the weighted sum of the oracle's values, nested as `y_pred` is."""
    leaves = keras.tree.flatten(y_pred)
    backward, forward = [], []
    for i, leaf in enumerate(leaves):

        def total(x, i=i):
            moved = keras.tree.pack_sequence_as(y_pred, [*leaves[:i], x, *leaves[i + 1 :]])
            return float(np.dot(case.values(y_true, moved), weights))

        for slopes, found in zip((backward, forward), oracles.slopes(total, leaf, h), strict=True):
            slopes.append(found)
    return keras.tree.pack_sequence_as(y_pred, backward), keras.tree.pack_sequence_as(y_pred, forward)


@functools.cache
def weighted_sum(case, seed):
    """Inputs, unequal weights, and what the oracle makes of them: the weighted sum and its slope.

    Unequal weights show a gradient that leaks from one sample into another.
    """
    y_true, y_pred = case.inputs(batch=6, classes=5, seed=seed)
    weights = np.random.default_rng(seed).uniform(0.5, 2.0, 6)
    backward, forward = slopes_of_oracle(case, y_true, y_pred, weights)
    # Random outputs are away from kinks: the one-sided slopes differ by curvature alone.
    assert_nests_close(backward, forward, 1e-3)
    central = keras.tree.map_structure(lambda a, b: (a + b) / 2, backward, forward)
    return y_true, y_pred, weights, np.dot(case.values(y_true, y_pred), weights), central


def test_every_loss_is_in_the_table():
    public = [getattr(keras_tkd.losses, name) for name in keras_tkd.losses.__all__]
    losses = {loss for loss in public if inspect.isclass(loss) and issubclass(loss, DistillationLoss)}
    assert losses - {DistillationLoss} == {case.loss for case in CASES}


# Values and gradients


@every_loss
@pytest.mark.parametrize("seed", [0, 1])
def test_value_is_the_papers(case, seed):
    y_true, y_pred = case.inputs(seed=seed)
    expected = case.values(y_true, y_pred)
    assert_close(case.make(reduction=None)(y_true, y_pred), expected, 1e-10)
    assert_close(case.make()(y_true, y_pred), np.mean(expected), 1e-10)
    assert_close(case.make(dtype="float32", reduction=None)(y_true, y_pred), expected, 1e-5)


@every_loss
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_is_the_oracles_slope(case, seed):
    y_true, y_pred, weights, _, slope = weighted_sum(case, seed)
    _, gradient = value_and_gradient(case.make(reduction="sum"), y_true, cast(y_pred, "float64"), weights)
    assert_nests_close(gradient, slope, 1e-7)


@pytest.mark.parametrize(
    "case, extreme",
    [
        pytest.param(case, extreme, id=f"{case.name}-{extreme}")
        for case in CASES
        for extreme in EXTREMES
        if applicable(case, extreme)
    ],
)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-5), ("float32", 1e-4)])
def test_extreme_outputs(case, extreme, dtype, tolerance):
    """At a kink or a jump the gradient lies between the one-sided slopes; elsewhere these are as good as equal."""
    y_true, y_pred = extreme_inputs(case, extreme)
    expected = case.values(y_true, y_pred)
    loss = case.make(reduction=None, dtype=dtype)
    value, gradient = value_and_gradient(loss, cast(y_true, dtype), cast(y_pred, dtype))
    assert_close(value, expected, 1e-10 if dtype == "float64" else 1e-5)
    for leaf in keras.tree.flatten(gradient):
        assert np.all(np.isfinite(leaf))
    if extreme in case.jumps:
        return
    # Large values leave few digits to a difference over 1e-5.
    rounding = 8 * np.finfo("float64").eps * np.sum(np.abs(expected)) / 1e-5
    for g, a, b in zip(*map(keras.tree.flatten, (gradient, *extreme_slopes(case, extreme))), strict=True):
        low, high = np.minimum(a, b), np.maximum(a, b)
        slack = tolerance * np.maximum(1.0, np.maximum(abs(low), abs(high))) + rounding
        assert np.all((g >= low - slack) & (g <= high + slack)), f"{g} is not between {low} and {high}"


@functools.cache
def extreme_slopes(case, extreme):
    y_true, y_pred = extreme_inputs(case, extreme)
    return slopes_of_oracle(case, y_true, y_pred, np.ones(EXTREMES[extreme][0]))


@losses_where(lambda case: case.at_teacher)
def test_student_that_equals_its_teacher(case):
    y_true, y_pred = case.inputs(batch=5)
    y_pred = equal_to_teacher(y_true, y_pred)
    value, gradient = value_and_gradient(case.make(reduction=None), y_true, cast(y_pred, "float64"))
    if callable(case.at_teacher):
        assert_close(value, case.at_teacher(y_true, y_pred, **case.arguments), 1e-10)
        return
    assert_close(np.sum(value), 0.0, 5 * case.rounding)
    if case.at_teacher == "zero":
        assert_close(value, np.zeros(5), case.rounding)
    for leaf in keras.tree.flatten(gradient):
        assert_close(leaf, np.zeros(leaf.shape), case.rounding)


@every_loss
def test_a_nan_is_not_swallowed(case):
    """A loss that turns a NaN into a number lets a diverged run go on."""

    # Where partners are drawn, a row alone need not be anyone's.
    rows = slice(None) if case.by_position else 1

    def broken(output):
        output = np.array(output)
        output[rows, ..., -1] = np.nan
        return output

    y_true, y_pred = case.inputs(batch=case.batch)
    pairs = [(nest, y_pred) for nest in each_output_changed(broken, y_true)]
    pairs += [(y_true, nest) for nest in each_output_changed(broken, y_pred)]
    assert len(pairs) >= 2
    for pair in pairs:
        values = np.asarray(case.make(reduction=None)(*pair))
        assert np.isnan(values[1]), f"a NaN among the outputs gives the loss {values[1]}"


# Invariances


@every_loss
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_loss_and_what_does_not(case, change):
    rng = np.random.default_rng(1)
    y_true, y_pred = case.inputs(batch=case.batch)
    functions = [outputs_changed(lambda x: CHANGES[change](rng, x.shape), nest) for nest in (y_true, y_pred)]
    loss = case.make(reduction=None)

    def after(y_true, y_pred, sample_weight):
        changed = [
            keras.tree.map_structure(lambda f, x: f(x) if callable(f) else x, *pair)
            for pair in zip(functions, (y_true, y_pred), strict=True)
        ]
        return loss(*changed, sample_weight=sample_weight)

    y_true, y_pred = cast(y_true, "float64"), cast(y_pred, "float64")
    value, slope = value_and_gradient(loss, y_true, y_pred)
    # Slopes with respect to the outputs before the change, by the chain rule.
    value_after, slope_after = value_and_gradient(after, y_true, y_pred)
    if change in case.invariant:
        # A z-score has 1e-7 beside the standard deviation.
        tolerance = 1e-5 if case.name == "lskd" else 1e-10
        assert_close(value_after, value, tolerance)
        assert_nests_close(slope_after, slope, tolerance)
    else:
        # Guards the row: a loss that ignores its inputs is invariant to everything.
        assert np.max(np.abs(value_after - value)) > 1e-3


@losses_where(lambda case: not case.by_position)
def test_order_of_the_batch_does_not_matter(case):
    y_true, y_pred = case.inputs(batch=case.batch)
    order = np.random.default_rng(0).permutation(case.batch) if case.batch > 2 else np.array([1, 0])
    permuted = keras.tree.map_structure(lambda x: x[order] if np.ndim(x) else x, (y_true, y_pred))
    loss = case.make(reduction=None)
    before, slope = value_and_gradient(loss, y_true, cast(y_pred, "float64"))
    after, slope_after = value_and_gradient(loss, permuted[0], cast(permuted[1], "float64"))
    assert_close(after, np.asarray(before)[order], 1e-12)
    assert_nests_close(slope_after, keras.tree.map_structure(lambda x: np.asarray(x)[order], slope), 1e-12)
    assert_close(case.make()(*permuted), case.make()(y_true, y_pred), 1e-12)


# As Keras's own losses


@every_loss
@pytest.mark.parametrize("dtype, epsilon", [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_precision_outputs_have_a_float32_loss(case, dtype, epsilon):
    """What mixed precision hands over is rounded once, by the model; the loss rounds nothing further."""
    y_true, y_pred = (cast(nest, dtype) for nest in case.inputs())
    rounded_true, rounded_pred = (float64(nest) for nest in (y_true, y_pred))
    loss = case.make(reduction=None, dtype=None)
    value, gradient = value_and_gradient(loss, y_true, y_pred)
    assert value.dtype == "float32"
    assert_close(value, case.values(rounded_true, rounded_pred), 1e-5)
    in_float32, slope = value_and_gradient(loss, rounded_true, cast(rounded_pred, "float32"))
    assert np.array_equal(value, in_float32)
    # The gradient is float32's, rounded on its way back into the model.
    for a, b in zip(keras.tree.flatten(gradient), keras.tree.flatten(slope), strict=True):
        assert a.dtype == dtype
        # Of a row that several anchors picked, each share is rounded.
        slack = np.max(np.abs(b)) * epsilon if case.name == "pairs-mined" else 0.0
        assert np.all(np.abs(float64(a) - float64(tf.cast(b, dtype))) <= slack)


@every_loss
@pytest.mark.parametrize("weights", WEIGHTS)
def test_reductions_and_sample_weights(case, weights):
    weights = WEIGHTS[weights]
    y_true, y_pred = case.inputs()
    values = case.values(y_true, y_pred)
    given = None if weights is None else np.array(weights)
    for reduction in ("sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None):
        loss = case.make(reduction=reduction)
        expected = oracles.reduced(values, weights, reduction)
        assert_close(loss(y_true, y_pred, sample_weight=given), expected, 1e-10)
    default = case.make()(y_true, y_pred, sample_weight=given)
    assert_close(default, oracles.reduced(values, weights, "sum_over_batch_size"), 1e-10)


@every_loss
def test_sample_of_weight_zero_teaches_nothing(case):
    y_true, y_pred = case.inputs(batch=case.batch)
    weights = np.zeros(case.batch)
    _, gradient = value_and_gradient(case.make(), y_true, cast(y_pred, "float64"), weights)
    for leaf in keras.tree.flatten(gradient):
        assert np.array_equal(leaf, np.zeros(leaf.shape))


@every_loss
def test_default_name_is_the_methods(case):
    # Twice: Keras's automatic names are numbered.
    assert [case.new().name, case.new().name] == [case.default_name] * 2
    assert case.new().dtype == "float32"
    assert case.new().reduction == "sum_over_batch_size"


def constructor_parameters(loss):
    """By name, those included that `**arguments` hands on to the base class."""
    found = {}
    for base in loss.__mro__:
        own = dict(inspect.signature(base.__init__).parameters)
        rest = [name for name, parameter in own.items() if parameter.kind == parameter.VAR_KEYWORD]
        found = {**{name: own[name] for name in own if name not in ("self", *rest)}, **found}
        if not rest:
            return found


@every_loss
def test_config_round_trip(case):
    arguments = {**case.required, **case.changed, **COMMON}
    parameters = constructor_parameters(case.loss)
    assert set(arguments) == set(parameters), "the row's `changed` must name every argument"
    unchanged = [name for name, value in arguments.items() if value is parameters[name].default]
    unchanged += [name for name in case.changed if case.changed[name] == parameters[name].default]
    assert unchanged == []
    loss = case.new(**arguments)
    # Through JSON, as in a `.keras` file.
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    assert config["registered_name"] == f"keras_tkd>{case.loss.__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is case.loss
    if case.prepare:
        case.prepare(again)
    for name, value in arguments.items():
        assert np.array_equal(getattr(again, name), value), name
    assert set(loss.get_config()) == set(arguments)
    assert json.dumps(again.get_config()) == json.dumps(loss.get_config())
    y_true, y_pred = case.inputs(batch=case.batch)
    weights = np.linspace(0.0, 1.0, case.batch)
    assert np.array_equal(again(y_true, y_pred, weights), loss(y_true, y_pred, weights))


def assert_same_in_a_graph(case, **options):
    y_true, y_pred, weights, expected, slope = weighted_sum(case, seed=0)
    loss = case.make(reduction="sum")
    tensors = cast(y_true, "float64"), cast(y_pred, "float64"), tf.constant(weights)
    # Batches of unknown size, as `fit` has them.
    unknown = keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype), tensors
    )
    run = tf.function(lambda *pair: value_and_gradient(loss, *pair), input_signature=unknown, **options)
    value, gradient = run(*tensors)
    assert_close(value, expected, 1e-10)
    assert_nests_close(gradient, slope, 1e-7)


@every_loss
def test_same_value_and_gradient_in_a_graph(case):
    assert_same_in_a_graph(case)


@pytest.mark.parametrize("case", FIRST_ROWS, ids=lambda case: case.name)
def test_same_value_and_gradient_compiled_by_xla(case):
    assert_same_in_a_graph(case, jit_compile=True)


@every_loss
def test_all_that_is_not_live_cannot_be_set(case):
    # A step that is traced already would go on with the old value, without a word.
    loss, others = case.make(), {"name", "reduction", "dtype"}
    own = {*case.required, *case.changed, "teacher_layers", "student_layers"} - set(case.live) - others
    for attribute in own & set(vars(loss)):
        with pytest.raises(AttributeError, match=f"`{attribute}` of a {case.loss.__name__} cannot be set.*Make a new"):
            setattr(loss, attribute, object())
        setattr(loss, attribute, getattr(loss, attribute))
    assert own <= set(vars(loss)), "an argument is an attribute of the same name"


@every_loss
def test_live_numbers_act_without_retracing(case):
    live = [name for name in dir(case.loss) if isinstance(getattr(case.loss, name), Hyperparameter)]
    assert set(case.live) == set(live), "the row must name every live number"
    y_true, y_pred = case.inputs(seed=2)
    loss = case.make(reduction=None)
    traces = []

    @tf.function
    def run(y_true, y_pred):
        traces.append("a trace runs this line, a call of the graph does not")
        return loss(y_true, y_pred)

    tensors = cast(y_true, "float64"), cast(y_pred, "float64")
    assert_close(run(*tensors), case.values(y_true, y_pred), 1e-10)
    for attribute, other in case.live.items():
        first = case.arguments[attribute]
        for number in (other, 3, first):
            setattr(loss, attribute, number)
            assert getattr(loss, attribute) == number and type(getattr(loss, attribute)) is type(number)
            assert loss.get_config()[attribute] == number
            assert_close(run(*tensors), case.values(y_true, y_pred, **{attribute: number}), 1e-10)
    assert len(traces) == 1


# What is an error


@losses_where(lambda case: case.same_width)
def test_outputs_that_would_broadcast_are_an_error(case):
    y_true, y_pred = case.inputs()
    loss = case.make()
    narrow = [(nest, y_pred) for nest in each_output_changed(lambda x: x[..., :1], y_true)]
    narrow += [(y_true, nest) for nest in each_output_changed(lambda x: x[..., :1], y_pred)]
    assert len(narrow) >= 2
    for pair in narrow:
        with pytest.raises(ValueError, match=rf"'{case.default_name}' .*equal shape.*\(12, 1\)"):
            loss(*pair)


@every_loss
def test_one_row_of_the_teacher_is_not_everyones(case):
    y_true, y_pred = case.inputs()
    for short in each_output_changed(lambda x: x[:1], y_true):
        with pytest.raises(ValueError, match=r"equal (shape|size).*\(1, "):
            case.make()(short, y_pred)


@losses_where(has_labels)
def test_labels_that_would_broadcast_are_an_error(case):
    """One-hot labels, or one label for all."""
    y_true, y_pred = case.inputs()
    for labels in (np.eye(3, dtype="int64")[y_true["labels"] % 3], y_true["labels"][:1]):
        with pytest.raises(ValueError, match="labels|equal (shape|size)"):
            case.make()({**y_true, "labels": labels}, y_pred)


@every_loss
@pytest.mark.parametrize(
    "teacher_layers, student_layers",
    [(["a", "b"], ["a"]), (["a", "b"], None), (None, ["a", "b"]), ("a", ["a", "b"])],
)
def test_unequal_numbers_of_layers_are_an_error(case, teacher_layers, student_layers):
    with pytest.raises(ValueError, match="`teacher_layers` and `student_layers` must be of equal length"):
        case.new(teacher_layers=teacher_layers, student_layers=student_layers)


@every_loss
@pytest.mark.parametrize("argument", ["teacher_layers", "student_layers"])
@pytest.mark.parametrize("layers", [3, [], ["a", 3], [None], {"a": 1}])
def test_layers_that_are_no_names_are_an_error(case, argument, layers):
    with pytest.raises(ValueError, match=f"`{argument}` must be None"):
        case.new(**{argument: layers})


@every_loss
def test_unknown_reduction_is_an_error(case):
    with pytest.raises(ValueError, match="reduction=average"):
        case.new(reduction="average")


@every_loss
def test_empty_batch_has_no_values(case):
    """A replica without samples, as the last batch of an epoch may leave one."""
    y_true, y_pred = case.inputs(batch=0, classes=4)
    value, gradient = value_and_gradient(case.make(reduction=None), y_true, cast(y_pred, "float64"))
    assert value.shape == (0,)
    for leaf, output in zip(*map(keras.tree.flatten, (gradient, y_pred)), strict=True):
        assert leaf.shape == output.shape


# A loss of a user's own


class Difference(DistillationLoss):
    """What a user writes: one method."""

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(keras.ops.abs(student_outputs - teacher_outputs), axis=-1)


TEACHER, STUDENT = [[0.0, 0.0], [2.0, 4.0]], [[1.0, 3.0], [2.0, 0.0]]  # differences of 2 and 2 in the mean


def test_one_method_makes_a_loss():
    assert np.array_equal(Difference(reduction=None)(TEACHER, STUDENT), [2.0, 2.0])
    assert float(Difference()(TEACHER, STUDENT, [3.0, 0.0])) == 3.0
    # A name as Keras gives it: the class has none.
    assert Difference().name.startswith("difference")


def test_a_call_is_told_whether_it_trains_if_it_asks():
    class Told(DistillationLoss):
        def call(self, y_true, y_pred, training=False):
            return keras.ops.mean(y_pred, axis=-1) + (10.0 if training else 0.0)

    assert float(Told()(TEACHER, STUDENT)) == 1.5
    assert float(Told()(TEACHER, STUDENT, training=True)) == 11.5
    # One that does not ask is not.
    assert float(Difference()(TEACHER, STUDENT, training=True)) == 2.0


def test_values_are_told_whether_they_train_if_they_ask():
    """As `call` is: whole numbers reach them as they came, and nothing is handed over that they do not take."""

    class Silent(DistillationLoss):
        def values(self, y_true, y_pred):
            assert y_true["labels"].dtype == "int64"
            return keras.ops.mean(y_pred, axis=-1)

    class Told(DistillationLoss):
        def values(self, y_true, y_pred, training=False):
            return keras.ops.mean(y_pred, axis=-1) + (10.0 if training else 0.0)

    y_true, student = {"labels": np.array([0, 1], "int64")}, np.array(STUDENT, "float32")
    assert float(Silent()(y_true, student, training=True)) == 1.5
    assert float(Told()(y_true, student, training=True)) == 11.5


def test_one_number_per_batch_cannot_be_weighted():
    class OneNumber(Difference):
        def call(self, y_true, y_pred):
            return keras.ops.mean(super().call(y_true, y_pred))

    loss = OneNumber(name="one_number")
    assert float(loss(TEACHER, STUDENT)) == 2.0
    with pytest.raises(ValueError, match="'one_number' gives one number per batch.*cannot be weighted"):
        loss(TEACHER, STUDENT, sample_weight=[1.0, 2.0])


def test_several_values_per_sample_are_weighted_by_as_many_alone():
    class PerClass(DistillationLoss):
        def call(self, y_true, y_pred):
            return keras.ops.abs(y_true - y_pred)

    loss, given = PerClass(name="per_class"), (np.zeros((2, 2)), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert float(loss(*given)) == 2.5
    # A row of them for each sample: (1 + 2 + 3 * (3 + 4)) / 4. In one row they would be those of the classes.
    assert float(loss(*given, sample_weight=np.array([[1.0], [3.0]]))) == 6.0
    for weights in ([1.0, 3.0], tf.constant([1.0, 3.0])):
        for run in (loss, tf.function(loss)):
            with pytest.raises(ValueError, match=r"'per_class' gives several.*\(2, 2\).*\(2,\).*ops.mean"):
                run(*given, sample_weight=weights)
    # A last axis of one is none: (1 * 1 + 3 * 3) / 2.
    assert float(loss(np.zeros((2, 1)), np.array([[1.0], [3.0]]), sample_weight=[1.0, 3.0])) == 5.0


@pytest.mark.parametrize("loss", [Difference, LogitRegression])
def test_rows_that_a_layer_masked_do_not_count(loss):
    """As in Keras's own losses; Masking marks a row of which every number is the mask's."""
    student = keras.Sequential([keras.Input((2,)), keras.layers.Masking(0.0), keras.layers.Dense(1, use_bias=False)])
    student.set_weights([np.array([[1.0], [1.0]])])
    outputs = student(np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 2.0]]))
    # Outputs 0 (masked), 3 and 2 against 5, 2, 2: differences of 1 and 0, squares too.
    teacher = np.array([[5.0], [2.0], [2.0]])
    assert float(loss()(teacher, outputs)) == 0.5
    assert np.array_equal(loss(reduction=None)(teacher, outputs), [0.0, 1.0, 0.0])
    assert np.array_equal(loss(reduction=None)(teacher, outputs, np.array([1.0, 3.0, 1.0])), [0.0, 3.0, 0.0])


def test_layers_of_a_loss_are_those_added():
    class Scaled(Difference):
        owns_layers = True

        def build(self, teacher_shapes, student_shapes):
            for width in (3, 4):
                layer = keras.layers.Dense(width)
                assert self.add_layer(layer) is layer

    loss = Scaled()
    assert loss.layers == [] and loss.owns_layers and not Difference.owns_layers
    loss.build((None, 2), (None, 2))
    assert [layer.units for layer in loss.layers] == [3, 4]
    with pytest.raises(ValueError, match="in its class: `owns_layers = True`. Received: layer 'dense_of_one'"):
        Difference().add_layer(keras.layers.Dense(1, name="dense_of_one"))


@losses_where(lambda case: case.prepare)
def test_losses_with_layers_say_so(case):
    assert case.loss.owns_layers and case.new().layers
