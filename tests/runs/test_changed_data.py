"""Pictures that change between runs: what was measured on others is not compared with what is measured on these."""

import json

import pytest
import tensorflow as tf

from keras_tkd.config import DistillConfig
from keras_tkd.runs import commands, compare, stages
from keras_tkd.runs.inputs import load_distillation_inputs
from keras_tkd.utils.files import save_model


def write_picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(tf.fill((8, 8, 1), tf.cast(shade, tf.uint8))).numpy())


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A folder of pictures of two classes; models of it, which are trained in no time."""
    for part in ("train", "test"):
        for name, shade in (("cat", 50), ("dog", 150)):
            for number in range(4):
                write_picture(tmp_path / "pets" / part / name / f"{number}.png", shade + number)

    def end_at_once(run, stage, splits, trained, *, title, files, config=None, **more):
        for path, model in files.items():
            save_model(model, path)
        stage.finish([{"val_accuracy": 0.5}], 1.0, files)

    monkeypatch.setattr(stages, "fit_stage", end_at_once)
    return tmp_path / "pets"


def configure(pets, **more):
    models = {"student_model": "digits_student", "teacher_model": "digits_teacher"}
    budget = {"epochs": 1, "batch_size": 4, "learning_rate": 0.05}
    return DistillConfig(dataset=str(pets), **models, **budget, **more)


def test_seeds_of_a_comparison_have_the_same_data(pets, tmp_path):
    config, folder, picture = configure(pets), tmp_path / "c", pets / "train" / "cat" / "0.png"
    compare(config, folder, ["kd"], [0])
    record = folder / "comparison.json"
    content, before = json.loads(record.read_text()), picture.read_bytes()
    write_picture(picture, 250)
    # A file of an earlier version says nothing of the data, and the runs that it lists do.
    older = {name: value for name, value in content.items() if name != "data"}
    for written in (content, older):
        record.write_text(json.dumps(written))
        rule = "must have the same data. Received: images of train that have changed since"
        with pytest.raises(ValueError, match=f"{rule}.*{folder}.*choose another --workdir"):
            compare(config, folder, ["kd"], [0, 1])
        assert json.loads(record.read_text()) == written
        assert not (folder / "baseline" / "seed1").exists()
    picture.write_bytes(before)
    comparison = compare(config, folder, ["kd"], [0, 1])
    assert comparison.seeds == (0, 1) and comparison.data == content["data"]
    assert len(comparison.runs) == 5 and not any(run.error for run in comparison.runs)


def test_a_baseline_is_of_the_data_of_the_run(pets, tmp_path):
    commands.distill(configure(pets, method="baseline"), tmp_path / "alone")
    config = configure(pets, method="kd", baseline=str(tmp_path / "alone")).resolved()
    assert load_distillation_inputs(config).baseline.test_accuracy is not None
    write_picture(pets / "test" / "dog" / "3.png", 250)
    rule = "`baseline` must be of the data of this run. Received: baseline="
    with pytest.raises(ValueError, match=f"{rule}.*alone.*: images of test have changed.*--baseline=train"):
        load_distillation_inputs(config)
    # Of a run that says nothing of its data, nothing is known.
    (tmp_path / "alone" / "checkpoints" / "teacher.json").unlink()
    assert load_distillation_inputs(config).baseline is not None
