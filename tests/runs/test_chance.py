"""A training that does not leave chance ends early, and nothing else does."""

import json
import re
import types

import numpy as np
import pytest

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.runs import commands
from keras_tkd.runs.chance import StopAtChance, count_first_epochs, is_at_chance

# Four classes of 100 training and of 25 held-out images. By two standard errors guesses reach 29.3 % of the former,
# 0.25 + 2 sqrt(0.25 0.75 / 400), and 33.7 % of the latter.
TRAIN, HELD_OUT = np.repeat(range(4), 100), np.repeat(range(4), 25)
GUESSED, KNOWN, BY_LUCK = 0.25, 0.5, 0.29


def history(*accuracies, teacher=None):
    epochs = [{"accuracy": trained, "val_accuracy": held_out} for trained, held_out in accuracies]
    return [epoch | (teacher or {}) for epoch in epochs]


def stop(epochs, train=TRAIN, config=None, run_config=None, **settings):
    """Looks at a training of ten epochs, of 50 steps each, after so many of them."""
    config = config or TeacherTrainingConfig(epochs=10, batch_size=len(train) // 50, learning_rate=0.2, **settings)
    splits = types.SimpleNamespace(train_labels=train, held_out=(None, HELD_OUT))
    backup = types.SimpleNamespace(history=epochs)
    StopAtChance("Teacher", config, splits, backup, run_config or config).on_epoch_end(len(epochs) - 1)


def test_a_model_that_only_guesses_is_stopped_after_its_first_epochs():
    guesses = (GUESSED, GUESSED)
    stop(history(guesses, guesses))
    with pytest.raises(ValueError, match="Teacher: after 3 epochs .150 steps. it still answers at chance") as error:
        stop(history(guesses, guesses, (BY_LUCK, 0.33)))
    for words in (
        "29.00% on training images and 33.00%",
        "here 0.2; try 0.02",
        "the other 7 epochs",
        "--at_chance=warn",
    ):
        assert words in str(error.value)
    # One that went on, and never left chance.
    with pytest.raises(ValueError, match="after 9 epochs"):
        stop(history(*[guesses] * 9))


@pytest.mark.parametrize(
    "epochs",
    [
        # It learns the training images, or has once known something, or ends anyway.
        history((GUESSED, GUESSED), (GUESSED, GUESSED), (KNOWN, GUESSED)),
        history((KNOWN, GUESSED), (GUESSED, GUESSED), (GUESSED, GUESSED)),
        history((KNOWN, KNOWN), *[(GUESSED, GUESSED)] * 8),
        history((GUESSED, GUESSED), (GUESSED, GUESSED), (GUESSED, KNOWN)),
        history(*[(GUESSED, GUESSED)] * 10),
        # Metrics of somebody's own.
        [{"loss": 1.0}] * 3,
    ],
)
def test_others_are_not(epochs):
    stop(epochs)


def test_what_a_model_knew_in_the_steps_before_it_collapsed_spares_it_one_epoch_alone():
    collapsed = history((KNOWN, GUESSED), (GUESSED, GUESSED), (GUESSED, GUESSED))
    stop(collapsed)
    with pytest.raises(ValueError, match="after 4 epochs"):
        stop(collapsed + history((GUESSED, GUESSED)))


def test_a_teacher_that_learns_with_its_student_is_stopped_too():
    collapsed = {"teacher_accuracy": GUESSED, "val_teacher_accuracy": GUESSED}
    with pytest.raises(ValueError, match="the teacher that learns with it still answers at chance"):
        stop(history(*[(KNOWN, KNOWN)] * 3, teacher=collapsed))
    stop(history(*[(KNOWN, KNOWN)] * 3, teacher=collapsed | {"teacher_accuracy": KNOWN}))


@pytest.mark.parametrize("own_rate", [0.05, None])
def test_the_flag_that_sets_the_rate_is_named(own_rate):
    """In a run that distils, a teacher has a rate of its own, or else the student's, by another flag."""
    run = DistillConfig(method="dml", epochs=10, batch_size=8, learning_rate=0.2, teacher_learning_rate=own_rate)
    guesses, knows = history(*[(GUESSED, GUESSED)] * 3), history(*[(KNOWN, KNOWN)] * 3)
    collapsed = {"teacher_accuracy": GUESSED, "val_teacher_accuracy": GUESSED}
    of_teacher = {0.05: "Lower --teacher_learning_rate (here 0.05; try 0.005) or", None: "(here 0.2; try 0.02) or"}[
        own_rate
    ]
    for epochs, config, words in (
        (guesses, run, "Lower --learning_rate (here 0.2; try 0.02), lower --distillation_loss_weights"),
        ([epoch | collapsed for epoch in knows], run, of_teacher),
        (guesses, run.teacher, of_teacher),
    ):
        with pytest.raises(ValueError, match=re.escape(words)) as error:
            stop(epochs, config=config, run_config=run)
        assert ("--teacher_learning_rate" in str(error.value)) == (words == of_teacher)


def test_a_class_of_more_than_half_of_the_images_may_be_named_for_long():
    stop(history(*[(0.52, 0.25)] * 3), train=np.repeat([0, 1, 2, 3], [208, 64, 64, 64]))
    with pytest.raises(ValueError, match="at chance"):
        stop(history(*[(0.48, 0.25)] * 3), train=np.repeat([0, 1, 2, 3], [192, 69, 69, 70]))


def test_with_balanced_class_weights_accuracies_do_not_say_who_guesses():
    """Classes of 47, 18, 18 and 17 %: recalls of 0, 0, 0.9 and 0.4 are 0.325 on average, and right on 23 % of images.

    0.18 * 0.9 + 0.17 * 0.4 = 0.23. Guesses have recalls of 0.25 on average, and are right on up to 47 %.
    """
    train, epochs = np.repeat(range(4), [188, 72, 72, 68]), history(*[(0.23, 0.23)] * 3)
    stop(epochs, train=train, class_weight="balanced")
    with pytest.raises(ValueError, match="at chance"):
        stop(epochs, train=train)
    assert not is_at_chance(0.23, train, TeacherTrainingConfig(class_weight="balanced"))
    assert is_at_chance(0.23, train, TeacherTrainingConfig())


def test_it_is_off_where_that_is_asked_for():
    stop(history(*[(GUESSED, GUESSED)] * 3), at_chance="warn")


@pytest.mark.parametrize(("samples", "epochs"), [(128, 25), (3_200, 3), (1_056, 4), (50_000, 3)])
def test_the_first_epochs_are_a_hundred_steps_and_three_at_least(samples, epochs):
    assert count_first_epochs(samples, TeacherTrainingConfig(batch_size=32)) == epochs


def test_a_run_that_was_stopped_keeps_its_state_and_goes_on_where_that_is_asked_for(tmp_path):
    settings = {"teacher_model": "digits_student", "epochs": 4, "batch_size": 32, "learning_rate": 1e-20}
    stopping = TeacherTrainingConfig(**settings)
    for _ in range(2):
        # The second time nothing is trained any more: it says after how many epochs it ended.
        with pytest.raises(ValueError, match="Teacher.* after 3 epochs .135 steps. it still answers at chance"):
            commands.train_teacher(stopping, tmp_path)
        assert not (tmp_path / "teacher.keras").exists() and not (tmp_path / "results.json").exists()
    results = commands.train_teacher(TeacherTrainingConfig(**settings, at_chance="warn"), tmp_path)
    assert results["teacher"]["at_chance"] is True and results["teacher"]["epochs"] == 4
    history = json.loads((tmp_path / "checkpoints" / "teacher" / "record.json").read_text())["history"]
    assert len(history) == 4
