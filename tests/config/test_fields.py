"""What each setting decides and when it is read: what its field says, beside tables of what the settings mean."""

import dataclasses
import re

import pytest

from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.config.fields import COMPARED, DISTILLED, FREE, TRAINED, check, collect_settings, list_deciding, option

# Whether a change of the setting makes stale: a model trained on the labels (T), a distilled student (D); and whether a
# baseline of another run must share it (C).
#
# Images: everything hangs on them. So it does on how long and from which start is trained; a learning rate is chosen
# for each training, and students of different ones are compared. A student's architecture is recorded with each
# training on the labels, beside these. The teacher, the method and its numbers concern the distilled student alone.
# Verification by another layer trains nothing again, and its scores are not comparable.
STALE = {
    "dataset": "TDC",
    "data_dir": "",
    "classes": "TDC",
    "image_size": "TDC",
    "test_fraction": "TDC",
    "split_seed": "TDC",
    "open_set_fraction": "TDC",
    "shuffle_window": "TDC",
    "decoded_cache": "",
    "max_pixels": "",
    "nested": "TDC",
    "labels": "TDC",
    "task": "TDC",
    "skip_bad_images": "TDC",
    "embedding_layer": "C",
    "validation_fraction": "TDC",
    "train_fraction": "TDC",
    "augmentation": "TDC",
    "mixup": "TDC",
    "cutmix": "TDC",
    "epochs": "TDC",
    "batch_size": "TDC",
    "early_stopping_patience": "TDC",
    "select": "TDC",
    "learning_rate": "TD",
    "learning_rate_warmup_epochs": "TD",
    "optimizer": "TD",
    "momentum": "TD",
    "schedule": "TD",
    "schedule_epochs": "TD",
    "schedule_factor": "TD",
    "weight_decay": "TD",
    "clip_norm": "TD",
    "label_smoothing": "TD",
    "class_weight": "TD",
    "precision": "TD",
    "seed": "TDC",
    "deterministic": "TD",
    "distribution": "TD",
    "checkpoint_steps": "",
    "checkpoint_minutes": "",
    "at_chance": "",
    "tensorboard": "",
    "profile_steps": "",
    "student_model": "DC",
    "student_model_weights": "DC",
    "teacher_model": "D",
    "teacher_model_weights": "D",
    "teacher_path": "D",
    "teacher_preprocessing": "D",
    "teacher_image_size": "D",
    "teacher_average": "D",
    "teacher_weights": "D",
    "teacher_classes": "D",
    "teacher_output": "D",
    "teacher_head": "D",
    "teacher_outputs": "D",
    "trust_teacher_code": "",
    "custom_objects": "TD",
    "teacher_embedding_layer": "",
    "teacher_epochs": "D",
    "teacher_learning_rate": "D",
    "teacher_weight_decay": "D",
    "method": "D",
    "losses": "D",
    "temperature": "D",
    "margin": "D",
    "student_loss_weight": "D",
    "distillation_loss_weights": "D",
    "warmup_epochs": "D",
    "teacher_layers": "D",
    "student_layers": "D",
    "gather": "D",
    "negatives": "D",
    "miner": "D",
    "negative_classes": "D",
    "teacher_training": "D",
    "anchor": "D",
    "generations": "",
    "teacher_loss_weight": "D",
    "anchor_weight": "D",
    "peer_weight": "D",
    "student_term_reaches_teacher": "D",
    "teacher_cache": "D",
    "teacher_views": "D",
    "teacher_cache_dtype": "D",
    "baseline": "",
    "check": "",
}


@pytest.mark.parametrize(("letter", "words"), [("T", TRAINED), ("D", DISTILLED), ("C", COMPARED)])
def test_what_each_setting_decides(letter, words):
    assert STALE.keys() == {field.name for field in dataclasses.fields(DistillConfig)}
    assert set(list_deciding(DistillConfig, words)) == {name for name, letters in STALE.items() if letter in letters}
    own = {field.name for field in dataclasses.fields(TeacherTrainingConfig)}
    assert set(list_deciding(TeacherTrainingConfig, words)) == {name for name in own if letter in STALE[name]}


def test_images_are_those_settings_that_decide_data():
    images = {"dataset", "classes", "image_size", "test_fraction", "split_seed", "open_set_fraction"}
    images |= {"shuffle_window", "validation_fraction", "train_fraction", "augmentation"}
    images |= {"nested", "labels", "task", "skip_bad_images"}
    images |= {"mixup", "cutmix"}
    assert set(list_deciding(DistillConfig, ("data",))) == images


def test_a_setting_that_says_nothing_decides_everything():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class WithNew(DistillConfig):
        new: float = option(0.0, "A setting.")

    for words in (TRAINED, DISTILLED, COMPARED):
        assert collect_settings(WithNew(new=1.0), words) == collect_settings(WithNew(), words) | {"new": 1.0}


def test_a_run_that_goes_on_may_show_more_or_less():
    assert {"tensorboard", "profile_steps"} <= set(list_deciding(DistillConfig, FREE))


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="`decides` must be one of data, .*nothing. Received: decides='student_model'"):
        option(0.0, "A setting.", decides="student_model")


def test_settings_are_the_values_of_the_fields():
    config = DistillConfig(method="kd", temperature=2.0, schedule="step", schedule_epochs=(1, 2), generations=None)
    values = collect_settings(config, DISTILLED)
    assert values["temperature"] == 2.0 and values["schedule_epochs"] == (1, 2) and values["margin"] is None
    assert values.keys() == {name for name, letters in STALE.items() if "D" in letters}


@pytest.mark.parametrize(("cache", "kept"), [("off", False), ("auto", False), ("workdir", True), ("runs/cache", True)])
def test_of_the_cache_it_counts_that_there_is_one(cache, kept):
    """Its outputs differ from a step's in their last bits, or are rounded, wherever it is."""
    assert collect_settings(DistillConfig(teacher_cache=cache), DISTILLED)["teacher_cache"] is kept


SEVERAL = {"teacher_average", "teacher_weights"}
ANCHORED = {"anchor_weight", "generations"}
ONLINE = {"teacher_loss_weight", "peer_weight", "student_term_reaches_teacher"}
GIVEN = {"teacher_path", "teacher_preprocessing", "teacher_classes", "teacher_output", "trust_teacher_code"}
GIVEN |= {"teacher_head", "teacher_outputs", "teacher_image_size"}
TRAINED_FIRST = {"teacher_epochs", "teacher_layers", "student_layers"}
CACHE = {"teacher_cache", "teacher_views", "teacher_cache_dtype"}
DRAWN = {"negatives", "negative_classes"}
OF_ANY_TEACHER = {"teacher_model", "teacher_learning_rate", "teacher_weight_decay", "teacher_embedding_layer"}
OF_ANY_TEACHER |= {"student_loss_weight", "distillation_loss_weights", "warmup_epochs", "baseline", "check"}
# By default: digits, which come with a split of their own; no open set; a cosine; a teacher that is trained first.
OF_FOLDERS = {"nested", "labels", "task", "skip_bad_images", "decoded_cache"}
PLAIN = {"data_dir", "max_pixels", "test_fraction", "embedding_layer", "schedule_factor"} | OF_FOLDERS
# Models of this package, which start from no weights of others.
OF_TRAININGS = {"schedule_factor", "teacher_model_weights", "student_model_weights"}
PLAIN |= {"teacher_model_weights"}
# By default no images are held out to choose by.
BY_VALIDATION = {"early_stopping_patience", "select"}
PLAIN, OF_TRAININGS = PLAIN | BY_VALIDATION, OF_TRAININGS | BY_VALIDATION
CLOSED = PLAIN | {"teacher_embedding_layer", "student_model_weights"}
OF_A_MEASURED_TEACHER = {"teacher_preprocessing", "teacher_classes", "teacher_output", "trust_teacher_code"}
OF_A_GIVEN_TEACHER = OF_A_MEASURED_TEACHER | {"teacher_head"}
OF_ITS_TRAINING = {"teacher_model", "teacher_epochs", "teacher_learning_rate", "teacher_weight_decay"}
OFFLINE = SEVERAL | ANCHORED | ONLINE | {"anchor"} | CLOSED | OF_A_GIVEN_TEACHER | {"gather"}
# On one device, as by default, nothing is gathered.
TRAINED_FIRST = TRAINED_FIRST | {"gather"}
TWO = {"teacher_path": ("a", "b"), "teacher_average": "losses"}
OF_ONE_METHOD = {"temperature", "margin", "miner", "teacher_training"}
OF_ITS_OWN = {"method", "temperature", "margin", "miner", "teacher_layers", "student_layers"}
OF_ITS_OWN |= {"distillation_loss_weights"}


@pytest.mark.parametrize(
    ("config", "irrelevant"),
    [
        (TeacherTrainingConfig(), PLAIN),
        (
            TeacherTrainingConfig(
                dataset="pets",
                schedule="step",
                schedule_epochs=(2,),
                open_set_fraction=0.5,
                validation_fraction=0.1,
                teacher_model="keras_applications/VGG16",
            ),
            set(),
        ),
        (
            EvaluateConfig(model_path="m"),
            SEVERAL | CLOSED - OF_TRAININGS | OF_A_MEASURED_TEACHER | {"teacher_outputs", "teacher_image_size"},
        ),
        (EvaluateConfig(model_path="m", **TWO), CLOSED - OF_TRAININGS | {"teacher_outputs"}),
        (EvaluateConfig(model_path="m", **TWO, dataset="pets", open_set_fraction=0.5), {"teacher_outputs"}),
        (
            DistillConfig(method="baseline"),
            OFFLINE | GIVEN | TRAINED_FIRST | CACHE | DRAWN | OF_ANY_TEACHER | OF_ONE_METHOD,
        ),
        (DistillConfig(method="kd"), OFFLINE | DRAWN | {"margin", "miner", "teacher_training"}),
        (
            DistillConfig(method="kd", **TWO),
            (OFFLINE | DRAWN | {"margin", "miner", "teacher_training"}) - SEVERAL - OF_A_GIVEN_TEACHER
            | OF_ITS_TRAINING,
        ),
        (
            DistillConfig(method="kd", teacher_outputs="a.npz"),
            (OFFLINE | DRAWN | {"margin", "miner", "teacher_training"}) - {"teacher_classes"}
            | OF_ITS_TRAINING
            | {"teacher_cache", "teacher_cache_dtype", "teacher_image_size"},
        ),
        (
            DistillConfig(method="kd", teacher_cache="off"),
            OFFLINE | DRAWN | {"margin", "miner", "teacher_training", "teacher_cache_dtype"},
        ),
        (DistillConfig(method="sp"), OFFLINE | DRAWN | OF_ONE_METHOD),
        (DistillConfig(method="tkd"), OFFLINE | {"temperature", "miner", "teacher_training"}),
        (DistillConfig(method="tkd", negatives="in_batch"), OFFLINE | {"temperature", "teacher_training"}),
        (DistillConfig(method="trikd"), CLOSED | SEVERAL | GIVEN | TRAINED_FIRST | DRAWN | {"margin", "miner"}),
        (
            DistillConfig(method="trikd", anchor="none"),
            CLOSED | SEVERAL | GIVEN | TRAINED_FIRST | DRAWN | ANCHORED | CACHE | {"margin", "miner"},
        ),
        (DistillConfig(method="trikd", teacher_training="offline"), OFFLINE | DRAWN | {"margin", "miner"}),
        (
            DistillConfig(method="dml"),
            CLOSED | SEVERAL | GIVEN | TRAINED_FIRST | DRAWN | ANCHORED | CACHE | {"margin", "miner", "anchor"},
        ),
        (DistillConfig(losses=("kd", "sp")), OFFLINE | DRAWN | OF_ITS_OWN | {"teacher_training"}),
        (DistillConfig(losses=("tkd",), negatives="in_batch"), OFFLINE | OF_ITS_OWN | {"teacher_training"}),
    ],
)
def test_what_a_run_does_not_read(config, irrelevant):
    assert set(config.irrelevant_fields) == irrelevant
    assert len(config.irrelevant_fields) == len(irrelevant)
    of_a_folder = dataclasses.replace(config, dataset="photos")
    assert set(of_a_folder.irrelevant_fields) == irrelevant - {"data_dir", "test_fraction", "max_pixels"} - OF_FOLDERS


@pytest.mark.parametrize(
    ("config", "name", "why"),
    [
        (DistillConfig(method="kd"), "margin", "Method 'kd' does not read `margin`"),
        (DistillConfig(losses=("kd",)), "margin", "each loss has its own `margin`, in the list: kd@temperature=2:0.5"),
        (DistillConfig(losses=("kd",)), "distillation_loss_weights", "in the list: kd:0.5"),
        (DistillConfig(losses=("kd",)), "method", "`losses` are listed in place of a `method`"),
        (DistillConfig(losses=("kd",)), "negatives", "A run of these `losses` does not read `negatives`"),
        (TeacherTrainingConfig(), "nested", "`nested` is for folders of images: `digits` are built in"),
        (TeacherTrainingConfig(dataset="p", labels="t"), "nested", "`nested` is not read where `labels` is given"),
        (TeacherTrainingConfig(), "max_pixels", "`max_pixels` bounds the images of folders: `digits` are built in"),
        (EvaluateConfig(model_path="m"), "teacher_weights", "This run does not read `teacher_weights`"),
        (EvaluateConfig(model_path="m"), "embedding_layer", "`embedding_layer` goes with `open_set_fraction`"),
        (TeacherTrainingConfig(), "test_fraction", "`test_fraction` is not read with `digits`, which are built in"),
        (TeacherTrainingConfig(), "schedule_factor", "`schedule_factor` is read with schedule='step' only"),
        (DistillConfig(**TWO), "teacher_epochs", "`teacher_epochs` is not read where `teacher_path` is given"),
        (
            DistillConfig(teacher_outputs="a.npz"),
            "teacher_epochs",
            "`teacher_epochs` is not read where `teacher_outputs` is given",
        ),
        (DistillConfig(teacher_cache="off"), "teacher_cache_dtype", "is not read with teacher_cache='off'"),
        (DistillConfig(), "teacher_head", "`teacher_head` goes with `teacher_path`"),
    ],
)
def test_why_a_setting_is_not_read(config, name, why):
    assert why in config.explain_refusal(name)


def test_a_rule_says_what_it_received():
    with pytest.raises(ValueError, match="`epochs` must be odd. Received: epochs=30, seed=0"):
        check(False, "`epochs` must be odd", TeacherTrainingConfig(), "epochs", "seed")


# Settings whose help speaks of files that are no input of the run, or of which the run reads no content by itself.
NO_INPUTS = {
    "data_dir": "tensorflow-datasets finds them there; the data's own hashes tell",
    "decoded_cache": "made of the data set's files, and compared with them",
    "teacher_cache": "made of the teacher, and compared with it",
    "trust_teacher_code": "allows what is in a file",
    "teacher_output": "one of a model's outputs",
    "custom_objects": "modules of Python",
    "nested": "which files of the data set",
    "skip_bad_images": "which files of the data set",
    "test_fraction": "where no folder says it",
    "max_pixels": "which files of the data set",
    "shuffle_window": "how the data set's files are read",
    "teacher_preprocessing": "how a teacher is to be run",
    "teacher_classes": "which outputs of a teacher",
}


@pytest.mark.parametrize("cls", [DistillConfig, TeacherTrainingConfig])
def test_settings_that_name_files_say_so(cls):
    """A run compares the files that it is given with those that it began with, and does not remove them."""
    speaking = {
        field.name
        for field in dataclasses.fields(cls)
        if re.search(r"\b([Ff]iles?|[Ff]olders?|workdir)\b", field.metadata["help"])
    }
    named = {field.name for field in dataclasses.fields(cls) if field.metadata["names_file"]}
    assert named <= speaking and speaking - named <= NO_INPUTS.keys()
