"""Each method's losses and published weights, and what may be set in their place."""

import pytest

from keras_tkd import losses
from keras_tkd.methods import METHODS, make_losses

# From the papers: weight of the loss on the labels, and per term: class, weight, what the paper sets.
PUBLISHED = {
    "baseline": (1.0, []),
    "kd": (0.1, [("SoftTargets", 0.9, {"temperature": 4.0, "standardize": False})]),
    "logits": (1.0, [("LogitRegression", 0.1, {})]),
    "tkd": (1.0, [("TripletDistillation", 2.0, {"margin": 5.0})]),
    "tkd_soft": (
        1.0,
        [
            ("SoftTargets", 1.0, {"temperature": 1.0, "standardize": False}),
            ("TripletDistillation", 2.0, {"margin": 5.0}),
        ],
    ),
}


def settings(loss, *names):
    return {name: getattr(loss, name) for name in names}


def test_all_methods_are_described():
    assert set(METHODS) == set(PUBLISHED)
    for method in METHODS.values():
        assert method.summary.endswith(".") and "\n" not in method.summary


@pytest.mark.parametrize("method", METHODS)
def test_published_values(method):
    student_loss_weight, terms = PUBLISHED[method]
    assert METHODS[method].student_loss_weight == student_loss_weight
    made, weights = make_losses(method)
    assert weights == [weight for _, weight, _ in terms]
    assert [type(loss) for loss in made] == [getattr(losses, name) for name, _, _ in terms]
    for loss, (_, _, arguments) in zip(made, terms, strict=True):
        assert isinstance(loss, losses.DistillationLoss)
        assert settings(loss, *arguments) == arguments


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_reads(method):
    triplet = method in ("tkd", "tkd_soft")
    assert METHODS[method].reads("temperature") == (method in ("kd", "tkd_soft"))
    assert METHODS[method].reads("margin") == METHODS[method].uses_negatives == triplet


def test_values_in_place_of_the_published_ones():
    given = {"temperature": 2.0, "margin": 0.0, "weights": (0.0, 7.0), "seed": 11}
    (soft, triplet), weights = make_losses("tkd_soft", **given)
    assert settings(soft, "temperature") == {"temperature": 2.0}
    assert settings(triplet, "margin", "seed") == {"margin": 0.0, "seed": 11}
    assert weights == [0.0, 7.0]
    # Nothing of it stays with the method.
    (soft, triplet), weights = make_losses("tkd_soft")
    assert settings(soft, "temperature") == {"temperature": 1.0}
    assert settings(triplet, "margin", "seed") == {"margin": 5.0, "seed": 0}
    assert weights == [1.0, 2.0]


@pytest.mark.parametrize("layers", [("stage1", "stage2"), (["stage1", "stage3"], ["stage1", "stage2"])])
def test_layers_reach_every_loss(layers):
    for loss in make_losses("tkd_soft", teacher_layers=layers[0], student_layers=layers[1])[0]:
        assert (loss.teacher_layers, loss.student_layers) == layers


@pytest.mark.parametrize(
    "method, arguments, message",
    [
        ("kd", {"margin": 1.0}, "'kd'.*`margin`.*margin=1.0"),
        ("tkd", {"temperature": 2.0}, "'tkd'.*`temperature`.*temperature=2.0"),
        ("logits", {"temperature": 0.0}, "'logits'.*`temperature`.*temperature=0.0"),
        ("baseline", {"margin": 1.0}, "'baseline'.*`margin`.*margin=1.0"),
        ("tkd", {"weights": (1.0, 2.0)}, r"'tkd'.*TripletDistillation.*\(1.0, 2.0\)"),
        ("tkd_soft", {"weights": [1.0]}, r"'tkd_soft'.*SoftTargets.*TripletDistillation.*\[1.0\]"),
        ("kd", {"weights": []}, r"'kd'.*SoftTargets.*\[\]"),
    ],
)
def test_errors(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_losses(method, **arguments)
