"""Of images of several classes: what is of images of one class each is refused with one sentence, before any work."""

import pytest

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.methods import METHODS, combine

SEVERAL = {"dataset": "pictures", "labels": "labels.csv", "task": "multi_label"}
# By what they read: logits by a softmax, the label, others of the label's class, or a teacher that learns too.
OF_ONE_CLASS = "lskd hard logits tkd tkd_soft pairs crd dkd dist nkd dml trikd".split()
OF_LAYERS = "sp rkd pkt cc at fitnet vid fsp".split()


def test_every_method_is_one_of_these():
    assert {"baseline", "kd", *OF_ONE_CLASS, *OF_LAYERS} == set(METHODS)


@pytest.mark.parametrize("method", OF_ONE_CLASS)
def test_methods_of_images_of_one_class(method):
    with pytest.raises(ValueError, match=rf"of images of one class each.*take kd.*method='{method}'"):
        DistillConfig(**SEVERAL, method=method)


@pytest.mark.parametrize("method", ["baseline", *OF_LAYERS])
def test_losses_of_layers_stay_as_they_are(method):
    assert DistillConfig(**SEVERAL, method=method).recipe == METHODS[method]


def test_kd_takes_its_binary_form():
    (term,) = DistillConfig(**SEVERAL, method="kd").recipe.terms
    assert (term.loss, term.weight, term.arguments) == ("BinarySoftTargets", 0.9, {"temperature": 4.0})
    assert DistillConfig(**SEVERAL, method="kd", temperature=2.0).resolved().temperature == 2.0
    listed = DistillConfig(**SEVERAL, losses=("kd@temperature=2:0.5", "sp")).recipe
    assert [term.loss for term in listed.terms] == ["BinarySoftTargets", "SimilarityPreserving"]
    assert [term.loss for term in combine("kd").terms] == ["SoftTargets"]


def test_one_of_several_losses():
    with pytest.raises(ValueError, match=r"^DecoupledTargets is of images of one class.*losses=\('kd', 'dkd'\)"):
        DistillConfig(**SEVERAL, losses=("kd", "dkd"))


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"labels": None}, "from a table: `labels`, with | between them"),
        ({"classes": ("a", "b")}, "`classes` chooses classes of which an image has one"),
        ({"open_set_fraction": 0.5}, "`open_set_fraction` chooses classes of which"),
        ({"class_weight": "balanced"}, "`class_weight` goes by the one class of an image"),
        ({"label_smoothing": 0.1}, "`label_smoothing` spreads one label over all classes"),
        ({"teacher_path": ("a", "b"), "teacher_average": "probabilities"}, "averaged by `teacher_average=logits`"),
        (
            {"teacher_path": ("a", "b"), "teacher_average": "logits", "teacher_weights": ("entropy",)},
            "with numbers for `teacher_weights`",
        ),
    ],
)
def test_settings_that_go_by_one_class(given, rule):
    with pytest.raises(ValueError, match="multi_label") as found:
        DistillConfig(**SEVERAL | {"method": "kd"} | given)
    assert rule in str(found.value)


def test_teachers_that_are_averaged_by_their_logits_are_taken():
    given = {"teacher_path": ("a", "b"), "teacher_average": "logits", "teacher_weights": ("1", "2")}
    assert DistillConfig(**SEVERAL, method="kd", **given).teacher_weights == (1, 2)


def test_outputs_alone_are_taken():
    assert DistillConfig(**SEVERAL, method="kd", teacher_outputs="a.npz").recipe.terms[0].loss == "BinarySoftTargets"


def test_mixed_images_and_the_training_of_a_teacher_are_taken():
    assert DistillConfig(**SEVERAL, method="kd", mixup=0.2, cutmix=1.0).teacher.multi_label
    assert TeacherTrainingConfig(**SEVERAL).multi_label


def test_digits_have_one_class_each():
    with pytest.raises(ValueError, match="`task` is for folders of images: `digits` are built in"):
        TeacherTrainingConfig(task="multi_label")
