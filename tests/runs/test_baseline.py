"""The student alone out of another run: which of its files, and whether that is the one that its results are about."""

import hashlib
import json

import pytest

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import format_flags
from keras_tkd.reports.schema import Results, StudentResult
from keras_tkd.runs.baseline import describe_other_training, find_baseline_file


@pytest.fixture
def alone(tmp_path):
    """A finished run of the student alone."""
    student = StudentResult(test_accuracy=0.5, parameters=1)
    results = Results(method="baseline", dataset="digits", seed=0, epochs=1, test_samples=4, student=student).to_dict()
    (tmp_path / "student.keras").write_bytes(b"model")
    files = {"student.keras": hashlib.sha256(b"model").hexdigest()}
    (tmp_path / "results.json").write_text(json.dumps(results | {"files": files}))
    return tmp_path


def test_a_model_that_its_results_are_not_about_is_refused(alone):
    config = DistillConfig(baseline=str(alone))
    assert find_baseline_file(config) == alone / "student.keras"
    (alone / "student.keras").write_bytes(b"modem")
    with pytest.raises(ValueError, match=f"{alone}/student.keras is not the file that the run wrote"):
        find_baseline_file(config, needed=False)


def test_results_of_before_there_were_checksums_are_believed(alone):
    results = json.loads((alone / "results.json").read_text())
    del results["files"]
    (alone / "results.json").write_text(json.dumps(results))
    (alone / "student.keras").write_bytes(b"modem")
    assert find_baseline_file(DistillConfig(baseline=str(alone))) == alone / "student.keras"


def test_that_it_was_trained_otherwise_is_said(alone):
    """A rate of its own is no reason to refuse it; a setting that the run does not read is none to speak of."""
    config = DistillConfig(baseline=str(alone), learning_rate=0.05, clip_norm=1.0)
    results = json.loads((alone / "results.json").read_text())
    told = [f"--{name}={value}" for name, value in (("learning_rate", 0.1), ("optimizer", "sgd"), ("momentum", 0.9))]
    (alone / "results.json").write_text(json.dumps(results | {"flags": told}))
    (sentence,) = describe_other_training(config)
    assert sentence == (
        f"The student alone in {alone} was trained otherwise: learning_rate 0.1 there, 0.05 here, "
        "clip_norm None there, 1.0 here"
    )
    (alone / "results.json").write_text(json.dumps(results | {"flags": [*told[1:], *format_flags(config)]}))
    for same in (config, DistillConfig(baseline="train"), DistillConfig(method="baseline"), TeacherTrainingConfig()):
        assert describe_other_training(same) == []


def test_without_a_file_there_is_none_unless_it_is_needed(alone):
    (alone / "student.keras").unlink()
    config = DistillConfig(baseline=str(alone))
    assert find_baseline_file(config, needed=False) is None
    with pytest.raises(ValueError, match="holds its file. Received: baseline=.*without student.keras"):
        find_baseline_file(config)
