"""The student alone out of another run: which of its files, and whether that is the one that its results are about."""

import hashlib
import json

import pytest

from keras_tkd.config import DistillConfig
from keras_tkd.reports.schema import Results, StudentResult
from keras_tkd.runs.baseline import find_baseline_file


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


def test_without_a_file_there_is_none_unless_it_is_needed(alone):
    (alone / "student.keras").unlink()
    config = DistillConfig(baseline=str(alone))
    assert find_baseline_file(config, needed=False) is None
    with pytest.raises(ValueError, match="holds its file. Received: baseline=.*without student.keras"):
        find_baseline_file(config)
