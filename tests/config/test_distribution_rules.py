"""What several devices cannot keep is refused before any work."""

import pytest

from keras_tkd.config import DistillConfig, TeacherTrainingConfig


def test_the_same_bytes_on_any_number_of_cores_are_promised_on_one_device_alone():
    assert TeacherTrainingConfig(deterministic=True).distribution == "none"
    for distribution in ("mirrored", "multi_worker"):
        with pytest.raises(ValueError, match="deterministic=True, distribution='" + distribution):
            TeacherTrainingConfig(deterministic=True, distribution=distribution)


def test_workers_write_checkpoints_by_steps_and_not_by_their_clocks():
    assert DistillConfig(checkpoint_minutes=5.0, distribution="mirrored").checkpoint_minutes == 5.0
    assert DistillConfig(checkpoint_steps=5, distribution="multi_worker").checkpoint_steps == 5
    with pytest.raises(ValueError, match="checkpoint_minutes=5.0, distribution='multi_worker'"):
        DistillConfig(checkpoint_minutes=5.0, distribution="multi_worker")
