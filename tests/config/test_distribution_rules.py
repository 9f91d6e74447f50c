"""What several devices cannot keep is refused before any work."""

import pytest

from keras_tkd import losses
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.methods import METHODS


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


def test_losses_of_a_share_are_for_several_devices_and_for_what_keeps_no_samples():
    assert DistillConfig(method="sp", distribution="mirrored", gather="local").gather == "local"
    with pytest.raises(ValueError, match="`gather` is for several devices, and is not read with distribution='none'"):
        DistillConfig(method="sp", gather="local")
    for settings in ({"method": "crd"}, {"losses": ("kd:1", "crd:0.1")}):
        with pytest.raises(ValueError, match="memory bank of all samples.*Received: gather='local'"):
            DistillConfig(distribution="multi_worker", gather="local", **settings)


def test_the_losses_that_must_see_the_whole_batch_are_those_that_the_rule_knows():
    keeping = {name for name, method in METHODS.items() for term in method.terms if "labels" in term.needs}
    told = {
        name
        for name, method in METHODS.items()
        for term in method.terms
        if getattr(losses, term.loss).keeps_samples is not False
    }
    assert keeping == told == {"crd"}
