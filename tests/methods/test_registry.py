"""Each method's losses and published weights, and what may be set in their place."""

import inspect

import pytest

from keras_tkd import losses
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.methods import METHODS

# From the papers: weight of the loss on the labels, layers, and per term: class, weight, what the paper sets.
TRIPLETS = ("TripletDistillation", 2.0, {"margin": 5.0})
PUBLISHED = {
    "baseline": (1.0, (), []),
    "kd": (0.1, (), [("SoftTargets", 0.9, {"temperature": 4.0, "standardize": False})]),
    "lskd": (0.1, (), [("SoftTargets", 9.0, {"temperature": 2.0, "standardize": True, "name": "lskd"})]),
    "logits": (1.0, (), [("LogitRegression", 0.1, {})]),
    "tkd": (1.0, (), [TRIPLETS]),
    "tkd_soft": (1.0, (), [("SoftTargets", 1.0, {"temperature": 1.0, "standardize": False}), TRIPLETS]),
    "pairs": (1.0, (), [("PairDistillation", 0.1, {"margin": 5.0})]),
    "sp": (1.0, ("features",), [("SimilarityPreserving", 3000.0, {})]),
    "rkd": (1.0, ("embedding",), [("RelationalDistance", 25.0, {}), ("RelationalAngle", 50.0, {})]),
    "pkt": (1.0, ("embedding",), [("ProbabilisticTransfer", 30000.0, {})]),
    "cc": (1.0, ("embedding",), [("CorrelationCongruence", 100.0, {"gamma": 0.4, "order": 2})]),
    "at": (1.0, ("stage1", "stage2", "stage3"), [("AttentionTransfer", 1000.0, {})]),
    "fitnet": (1.0, ("stage2",), [("Hint", 100.0, {})]),
    "vid": (1.0, ("stage2",), [("VariationalInformation", 1.0, {"start": 5.0})]),
    "fsp": (1.0, ("stage1", "stage2"), [("FlowOfSolution", 50.0, {})]),
    "crd": (
        1.0,
        ("embedding",),
        [
            (
                "ContrastiveRepresentation",
                0.8,
                {"feature_size": 128, "negatives": 16384, "temperature": 0.07, "momentum": 0.5},
            )
        ],
    ),
    "hard": (0.5, (), [("HardTargets", 0.5, {})]),
    "dkd": (1.0, (), [("DecoupledTargets", 1.0, {"temperature": 4.0, "alpha": 1.0, "beta": 8.0})]),
    "dist": (1.0, (), [("DIST", 2.0, {"temperature": 4.0, "inter_weight": 1.0, "intra_weight": 1.0})]),
    "nkd": (1.0, (), [("NormalizedTargets", 1.0, {"temperature": 1.0, "gamma": 1.5})]),
    "dml": (1.0, (), [("SoftTargets", 1.0, {"temperature": 1.0, "standardize": False})]),
    "trikd": (1.0, (), [("SoftTargets", 1.0, {"temperature": 1.0, "standardize": False})]),
}
SAMPLES = [0, 1, 1, 2]  # labels of a training set


def settings(loss, *names):
    return {name: getattr(loss, name) for name in names}


def test_all_methods_are_described():
    assert set(METHODS) == set(PUBLISHED)
    for method in METHODS.values():
        assert method.summary.endswith(".") and "\n" not in method.summary


@pytest.mark.parametrize("method", METHODS)
def test_published_values(method):
    student_loss_weight, layers, terms = PUBLISHED[method]
    assert METHODS[method].student_loss_weight == student_loss_weight
    assert METHODS[method].layers == layers
    assert METHODS[method].warmup_epochs == (20 if method == "dkd" else 0)
    made, weights = make_losses(method, labels=SAMPLES)
    assert weights == [weight for _, weight, _ in terms]
    assert [type(loss) for loss in made] == [getattr(losses, name) for name, _, _ in terms]
    for loss, (_, _, arguments) in zip(made, terms, strict=True):
        assert isinstance(loss, losses.DistillationLoss)
        assert settings(loss, *arguments) == arguments
        read = {0: None, 1: layers[0] if layers else None}.get(len(layers), list(layers))
        assert loss.teacher_layers == loss.student_layers == read


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_reads(method):
    softened = ("kd", "lskd", "tkd_soft", "dkd", "dist", "nkd", "dml", "trikd")
    assert METHODS[method].reads("temperature") == (method in softened)
    mined = method in ("tkd", "tkd_soft", "pairs")
    assert {METHODS[method].reads(name) for name in ("margin", "miner", "negative_classes")} == {mined}
    extra_images = {"tkd": {"negatives"}, "tkd_soft": {"negatives"}, "pairs": {"partners"}}
    assert METHODS[method].extra_images == extra_images.get(method, set())


def test_teachers_that_learn_with_the_student():
    online = {name: method.online for name, method in METHODS.items() if method.online}
    assert {name: teacher.anchored for name, teacher in online.items()} == {"dml": False, "trikd": True}
    for teacher in online.values():
        assert (teacher.teacher_loss_weight, teacher.anchor_weight, teacher.peer_weight) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_are_documented(method):
    """What it computes from what, who found it, and each deviation: a method without them is not done."""
    for term in METHODS[method].terms:
        documentation = inspect.getdoc(getattr(losses, term.loss))
        # Without the indentation, which Python takes off by itself from 3.13 on.
        for part in ("\nArgs:\n", "\nCall", "\nReference: ", " = ", "(batch, "):
            assert part in documentation, (term.loss, part)


def test_labels_reach_the_losses_that_need_them():
    (loss,), _ = make_losses("crd", labels=SAMPLES, seed=4)
    assert (loss.labels, loss.seed) == (SAMPLES, 4)
    with pytest.raises(ValueError, match="'crd' needs the `labels`"):
        make_losses("crd")


def test_values_in_place_of_the_published_ones():
    given = {"temperature": 2.0, "margin": 0.0, "distillation_loss_weights": (0.0, 7.0), "seed": 11}
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
        ("tkd", {"distillation_loss_weights": (1.0, 2.0)}, r"'tkd'.*TripletDistillation.*\(1.0, 2.0\)"),
        ("tkd_soft", {"distillation_loss_weights": [1.0]}, r"'tkd_soft'.*SoftTargets.*TripletDistillation.*\[1.0\]"),
        ("kd", {"distillation_loss_weights": []}, r"'kd'.*SoftTargets.*\[\]"),
    ],
)
def test_errors(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_losses(method, **arguments)


def test_which_losses_are_of_images_of_one_class():
    terms = [term for method in METHODS.values() for term in method.terms]
    for term in terms:
        # Those of triplets and pairs are, unless they tell classes apart by the teacher.
        takes = getattr(losses, term.loss).takes_one_class
        assert (takes is True) == term.one_class and isinstance(takes, property) == bool(term.extra_images), term.loss
    assert {term.loss for term in terms if term.one_class} >= {"DecoupledTargets", "ContrastiveRepresentation"}
