"""What holds for every loss. A new loss is one more row of `CASES`.

Expected values come from `oracles.py`: float64, written from the papers, sharing no code with the library.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

from keras_tkd.losses import LogitRegression, SoftTargets, TripletDistillation
from keras_tkd.miners import random_other_class

STEP = 7


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss, with all that the properties below need to know about it.

    Attributes:
        name: id of the row.
        loss: the class.
        arguments: constructor arguments of the row; the oracle gets them too.
        oracle: `(y_true, y_pred, **arguments)` -> one float64 value per sample.
        pack: `(teacher, student, negative)`, three arrays of logits -> `(y_true, y_pred)`.
        default_name: the method's name.
        changed: every argument of the constructor that is the loss's own, none at its default.
        zero_at_teacher: whether loss and gradient vanish where the student equals the teacher.
        invariant: changes of a sample's logits that change nothing: "shift", "scale".
        live: (attribute, another value for it), or None.
        batch: rows, where the rows may not choose their partners at random.
    """

    name: str
    loss: type
    arguments: dict
    oracle: Callable
    pack: Callable
    default_name: str
    changed: dict
    zero_at_teacher: bool = False
    invariant: tuple = ()
    live: tuple | None = None
    batch: int = 12

    def make(self, **more):
        return self.loss(**{"dtype": "float64", **self.arguments, **more})

    def inputs(self, batch=12, classes=6, seed=0):
        return self.pack(*(4.0 * np.random.default_rng(seed).normal(size=(3, batch, classes))))

    def values(self, y_true, y_pred, **more):
        return self.oracle(y_true, y_pred, **{**self.arguments, **more})


def pack_pair(teacher, student, negative):
    return teacher, student


def pack_triplet(teacher, student, negative):
    return teacher, {"positive": student, "negative": negative}


def pack_batch(teacher, student, negative):
    """Three classes, so that each anchor chooses; in a batch of two there is nothing to choose."""
    labels = np.arange(len(teacher)) % 3
    return {"logits": teacher, "labels": labels, "step": np.int64(STEP)}, student


def soft_targets_oracle(y_true, y_pred, temperature, standardize=False):
    return oracles.soft_targets(y_true, y_pred, temperature, standardize)


def triplet_oracle(y_true, y_pred, margin):
    return oracles.triplet(y_true, y_pred["positive"], y_pred["negative"], margin)


def mined_oracle(y_true, y_pred, margin, seed):
    """The choice of negatives is the miner's, whose own tests are elsewhere."""
    index, valid = random_other_class(tf.constant(y_true["labels"]), [seed, int(y_true["step"])])
    negative = [y_pred[i] for i in index.numpy()]
    return oracles.triplet(y_true["logits"], y_pred, negative, margin) * valid.numpy()


def soft_targets_case(name, arguments, other_temperature, invariant):
    return Case(
        name=name,
        loss=SoftTargets,
        arguments=arguments,
        oracle=soft_targets_oracle,
        pack=pack_pair,
        default_name="kd",
        changed={"temperature": 2.5, "standardize": True},
        zero_at_teacher=True,
        invariant=invariant,
        live=("temperature", other_temperature),
    )


CASES = [
    soft_targets_case("kd-T1", {"temperature": 1.0}, 3.0, ("shift",)),
    soft_targets_case("kd-T4", {"temperature": 4.0}, 1.5, ("shift",)),
    soft_targets_case("kd-T0.5", {"temperature": 0.5}, 2.0, ("shift",)),
    soft_targets_case("lskd", {"temperature": 2.0, "standardize": True}, 1.0, ("shift", "scale")),
    Case(
        name="logits",
        loss=LogitRegression,
        arguments={},
        oracle=oracles.logit_regression,
        pack=pack_pair,
        default_name="logits",
        changed={},
        zero_at_teacher=True,
    ),
    Case(
        name="tkd-given",
        loss=TripletDistillation,
        arguments={"margin": 5.0},
        oracle=triplet_oracle,
        pack=pack_triplet,
        default_name="tkd",
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        live=("margin", 1.0),
    ),
    Case(
        name="tkd-mined",
        loss=TripletDistillation,
        arguments={"margin": 5.0, "seed": 3},
        oracle=mined_oracle,
        pack=pack_batch,
        default_name="tkd",
        changed={"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3},
        live=("margin", 1.0),
        batch=2,
    ),
]


def losses_where(condition):
    return pytest.mark.parametrize("case", list(filter(condition, CASES)), ids=lambda case: case.name)


every_loss = losses_where(lambda case: True)

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


def rows(*patterns):
    return np.array(patterns, "float64")


# name -> teacher, student, negative
EXTREMES = {
    "saturated": (
        rows([1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e4, 1e4, -1e4]),
        rows([-1e4, 1e4, 0], [1e4, 1e4, -1e4], [0, 1e4, 0]),
        rows([0, -1e4, 0], [1e4, -1e4, -1e4], [1e4, 1e4, -1e4]),
    ),
    "saturated alike": 3 * (rows([1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e4, 1e4, -1e4]),),
    "opposed": (rows([40, 0, 0], [0, 40, 0]), rows([0, 40, 0], [40, 0, 0]), rows([0, 0, 40], [0, 0, 40])),
    "identical rows": (rows(*5 * [[1, 3, -2]]), rows(*5 * [[2, 2, 0]]), rows(*5 * [[0, -1, 1]])),
    "all zero": 3 * (np.zeros((4, 3)),),
    "teacher zero": (
        np.zeros((3, 3)),
        rows([1, 2, 4], [0, 0, 1], [5, -5, 0]),
        rows([3, 0, 0], [1, 0, 0], [0, 9, 0]),
    ),
    "batch of one": (rows([1, -2, 0.5, 3]), rows([0, 1, 2, -1]), rows([1, 1, 0, 2])),
    "two classes": (
        rows([2, -1], [0, 3], [1, 0]),
        rows([0, 1], [0.5, 2], [-1, -4]),
        rows([6, 1], [2, -3], [0, 1]),
    ),
}


def is_float(x):
    return np.issubdtype(np.asarray(x).dtype, np.floating)


def cast(nest, dtype):
    """Tensors of the given precision; what is not floating point (labels, step) keeps its dtype."""
    return keras.tree.map_structure(lambda x: tf.cast(x, dtype) if is_float(x) else tf.constant(x), nest)


def float64(nest):
    return keras.tree.map_structure(lambda x: np.array(tf.cast(x, "float64")), nest)


def value_and_gradient(loss, y_true, y_pred, weights=None):
    """The loss, and its gradient with respect to the student's outputs, nested as these are."""
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred, sample_weight=weights)
    return value, tape.gradient(value, y_pred)


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
    y_true, y_pred = case.inputs(batch=6, classes=5, seed=seed)
    # Unequal weights show a gradient that leaks from one sample into another.
    weights = np.random.default_rng(seed).uniform(0.5, 2.0, 6)
    _, gradient = value_and_gradient(case.make(reduction="sum"), y_true, cast(y_pred, "float64"), weights)
    backward, forward = slopes_of_oracle(case, y_true, y_pred, weights)
    # Random logits are away from kinks: the one-sided slopes differ by curvature alone.
    assert_nests_close(backward, forward, 1e-3)
    central = keras.tree.map_structure(lambda a, b: (a + b) / 2, backward, forward)
    assert_nests_close(gradient, central, 1e-7)


@every_loss
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-5), ("float32", 1e-4)])
def test_extreme_logits(case, extreme, dtype, tolerance):
    """At a kink the gradient lies between the one-sided slopes; elsewhere these are as good as equal."""
    y_true, y_pred = case.pack(*EXTREMES[extreme])
    expected = case.values(y_true, y_pred)
    loss = case.make(reduction=None, dtype=dtype)
    value, gradient = value_and_gradient(loss, cast(y_true, dtype), cast(y_pred, dtype))
    assert_close(value, expected, 1e-10 if dtype == "float64" else 1e-5)
    backward, forward = slopes_of_oracle(case, y_true, y_pred, np.ones(len(expected)))
    for g, a, b in zip(*map(keras.tree.flatten, (gradient, backward, forward)), strict=True):
        low, high = np.minimum(a, b), np.maximum(a, b)
        slack = tolerance * np.maximum(1.0, np.maximum(abs(low), abs(high)))
        assert np.all((g >= low - slack) & (g <= high + slack)), f"{g} is not between {low} and {high}"


@losses_where(lambda case: case.zero_at_teacher)
def test_student_that_equals_its_teacher_has_nothing_to_learn(case):
    logits = np.random.default_rng(0).normal(size=(5, 6))
    y_true, y_pred = case.pack(logits, logits, logits)
    value, gradient = value_and_gradient(case.make(reduction=None), y_true, cast(y_pred, "float64"))
    assert_close(value, np.zeros(5), 1e-14)
    assert_close(gradient, np.zeros((5, 6)), 1e-14)


@every_loss
def test_a_nan_is_not_swallowed(case):
    """A loss that turns a NaN into a number lets a diverged run go on."""
    y_true, y_pred = case.inputs(batch=case.batch)
    for role in ("teacher", "student"):
        broken_true, broken_pred = keras.tree.map_structure(np.array, (y_true, y_pred))
        broken = broken_true if role == "teacher" else broken_pred
        broken = broken.get("logits", broken.get("positive")) if isinstance(broken, dict) else broken
        broken[1, 2] = np.nan
        values = np.asarray(case.make(reduction=None)(broken_true, broken_pred))
        assert np.isnan(values[1]), f"NaN in the {role}'s outputs gives the loss {values[1]}"


# Invariances


@losses_where(lambda case: "shift" in case.invariant)
def test_shift_of_a_samples_logits_changes_nothing(case):
    rng = np.random.default_rng(0)
    y_true, y_pred = case.inputs()
    shifts = rng.normal(scale=10.0, size=(2, 12, 1))
    loss = case.make(reduction=None)
    before, slope = value_and_gradient(loss, y_true, cast(y_pred, "float64"))
    after, slope_after = value_and_gradient(loss, y_true + shifts[0], cast(y_pred + shifts[1], "float64"))
    assert_close(after, before, 1e-10)
    assert_close(slope_after, slope, 1e-10)


@losses_where(lambda case: "scale" in case.invariant)
def test_scale_of_a_samples_logits_changes_nothing(case):
    rng = np.random.default_rng(0)
    y_true, y_pred = case.inputs()
    scales = rng.uniform(0.2, 5.0, size=(2, 12, 1))
    loss = case.make(reduction=None)
    before, slope = value_and_gradient(loss, y_true, cast(y_pred, "float64"))
    after, slope_after = value_and_gradient(loss, y_true * scales[0], cast(y_pred * scales[1], "float64"))
    # Exact but for the 1e-7 beside a standard deviation of about 1 to 20.
    assert_close(after, before, 1e-5)
    # Logits s times as large have a slope s times as small.
    assert_close(slope_after * scales[1], slope, 1e-5)


@losses_where(lambda case: "scale" not in case.invariant)
def test_scale_matters_to_the_others(case):
    """Guards the test above: a loss that ignores its inputs is invariant to everything."""
    y_true, y_pred = case.inputs(batch=case.batch)
    twice = keras.tree.map_structure(lambda x: 2.0 * x, y_pred)
    loss = case.make(reduction="sum")
    assert abs(float(loss(y_true, twice)) - float(loss(y_true, y_pred))) > 0.1


@every_loss
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
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_outputs_have_a_float32_loss(case, dtype):
    """What mixed precision hands over is rounded once, by the model; the loss rounds nothing further."""
    y_true, y_pred = (cast(nest, dtype) for nest in case.inputs())
    rounded_true, rounded_pred = (float64(nest) for nest in (y_true, y_pred))
    loss = case.loss(**case.arguments, reduction=None)
    value, gradient = value_and_gradient(loss, y_true, y_pred)
    assert value.dtype == "float32"
    assert_close(value, case.values(rounded_true, rounded_pred), 1e-5)
    in_float32, slope = value_and_gradient(loss, rounded_true, cast(rounded_pred, "float32"))
    assert np.array_equal(value, in_float32)
    # The gradient is float32's, rounded on its way back into the model.
    for a, b in zip(keras.tree.flatten(gradient), keras.tree.flatten(slope), strict=True):
        assert a.dtype == dtype
        assert np.array_equal(float64(a), float64(tf.cast(b, dtype)))


@every_loss
@pytest.mark.parametrize("weights", WEIGHTS)
def test_reductions_and_sample_weights(case, weights):
    weights = WEIGHTS[weights]
    y_true, y_pred = case.inputs()
    values = case.values(y_true, y_pred)
    for reduction in ("sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None):
        loss = case.make(reduction=reduction)
        expected = oracles.reduced(values, weights, reduction)
        given = None if weights is None else np.array(weights)
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
    assert [case.loss().name, case.loss().name] == [case.default_name] * 2
    assert case.loss().dtype == "float32"
    assert case.loss().reduction == "sum_over_batch_size"


@every_loss
def test_config_round_trip(case):
    arguments = {**case.changed, **COMMON}
    parameters = dict(inspect.signature(case.loss.__init__).parameters)
    del parameters["self"]
    assert set(arguments) == set(parameters), "the row's `changed` must name every argument"
    unchanged = [name for name, value in arguments.items() if value == parameters[name].default]
    assert unchanged == []
    loss = case.loss(**arguments)
    # Through JSON, as in a `.keras` file.
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    assert config["registered_name"] == f"keras_tkd>{case.loss.__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is case.loss
    for name, value in arguments.items():
        assert getattr(again, name) == value, name
    assert again.get_config() == loss.get_config() == arguments
    y_true, y_pred = case.inputs(batch=case.batch)
    weights = np.linspace(0.0, 1.0, case.batch)
    assert np.array_equal(again(y_true, y_pred, weights), loss(y_true, y_pred, weights))


@every_loss
@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
def test_same_value_and_gradient_in_every_mode(case, mode):
    y_true, y_pred = case.inputs()
    loss = case.make(reduction="sum")

    def run(y_true, y_pred):
        return value_and_gradient(loss, y_true, y_pred)

    y_true, y_pred = cast(y_true, "float64"), cast(y_pred, "float64")
    if mode == "function":
        # Batches of unknown size, as `fit` has them.
        unknown = keras.tree.map_structure(
            lambda x: tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype), (y_true, y_pred)
        )
        run = tf.function(run, input_signature=unknown)
    if mode == "jit":
        run = tf.function(run, jit_compile=True)
    value, gradient = run(y_true, y_pred)
    y_true, y_pred = (keras.tree.map_structure(lambda x: x.numpy(), nest) for nest in (y_true, y_pred))
    values = case.values(y_true, y_pred)
    assert_close(value, np.sum(values), 1e-10)
    backward, forward = slopes_of_oracle(case, y_true, y_pred, np.ones(len(values)))
    central = keras.tree.map_structure(lambda a, b: (a + b) / 2, backward, forward)
    assert_nests_close(gradient, central, 1e-7)


@losses_where(lambda case: case.live)
def test_live_number_acts_without_retracing(case):
    attribute, other = case.live
    y_true, y_pred = case.inputs(seed=2)
    loss = case.make(reduction=None)
    traces = []

    @tf.function
    def run(y_true, y_pred):
        traces.append("a trace runs this line, a call of the graph does not")
        return loss(y_true, y_pred)

    tensors = cast(y_true, "float64"), cast(y_pred, "float64")
    first = case.arguments[attribute]
    for number in (first, other, 3, first):
        setattr(loss, attribute, number)
        assert getattr(loss, attribute) == number and type(getattr(loss, attribute)) is type(number)
        assert loss.get_config()[attribute] == number
        assert_close(run(*tensors), case.values(y_true, y_pred, **{attribute: number}), 1e-10)
    assert len(traces) == 1


# What is an error


@every_loss
def test_outputs_that_would_broadcast_are_an_error(case):
    y_true, y_pred = case.inputs()
    loss = case.make()
    nests = (y_true, y_pred)
    leaves = keras.tree.flatten(nests)
    logits = [i for i, leaf in enumerate(leaves) if np.ndim(leaf) == 2]
    assert len(logits) >= 2
    for i in logits:
        narrow = keras.tree.pack_sequence_as(nests, [x[:, :1] if i == j else x for j, x in enumerate(leaves)])
        with pytest.raises(ValueError, match=rf"'{case.default_name}' .*equal shape.*\(12, 1\)"):
            loss(*narrow)


@every_loss
def test_one_row_of_the_teacher_is_not_everyones(case):
    y_true, y_pred = case.inputs()
    short = {**y_true, "logits": y_true["logits"][:1]} if isinstance(y_true, dict) else y_true[:1]
    with pytest.raises(ValueError, match=r"equal shape.*\(1, 6\)"):
        case.make()(short, y_pred)


@every_loss
@pytest.mark.parametrize(
    "teacher_layers, student_layers",
    [(["a", "b"], ["a"]), (["a", "b"], None), (None, ["a", "b"]), ("a", ["a", "b"])],
)
def test_unequal_numbers_of_layers_are_an_error(case, teacher_layers, student_layers):
    with pytest.raises(ValueError, match="`teacher_layers` and `student_layers` must be of equal length"):
        case.loss(teacher_layers=teacher_layers, student_layers=student_layers)


@every_loss
@pytest.mark.parametrize("argument", ["teacher_layers", "student_layers"])
@pytest.mark.parametrize("layers", [3, [], ["a", 3], [None], {"a": 1}])
def test_layers_that_are_no_names_are_an_error(case, argument, layers):
    with pytest.raises(ValueError, match=f"`{argument}` must be None"):
        case.loss(**{argument: layers})


@every_loss
def test_unknown_reduction_is_an_error(case):
    with pytest.raises(ValueError, match="reduction=average"):
        case.loss(reduction="average")


@every_loss
def test_empty_batch_has_no_values(case):
    """A replica without samples, as the last batch of an epoch may leave one."""
    y_true, y_pred = case.pack(*np.zeros((3, 0, 4)))
    value, gradient = value_and_gradient(case.make(reduction=None), y_true, cast(y_pred, "float64"))
    assert value.shape == (0,)
    assert {leaf.shape for leaf in keras.tree.flatten(gradient)} == {(0, 4)}
