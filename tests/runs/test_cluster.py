"""What a run knows of the workers that train it; their exchange stands in for several processes."""

import json
import types

import pytest
import tensorflow as tf

from keras_tkd.config import DistillConfig
from keras_tkd.runs import cluster, run
from keras_tkd.runs.cluster import Cluster
from keras_tkd.runs.inputs import load_distillation_inputs

NAMES = ["worker 0 at a", "worker 1 at b"]


class Workers(Cluster):
    """One of two workers, the other of which says what the test has it say."""

    def __init__(self, index, said=None):
        super().__init__(None, NAMES, index)
        self.said = said

    def exchange(self, text):
        said = text if self.said is None else self.said
        return [text, said] if self.is_chief else [said, text]


def test_one_process_is_a_cluster_of_its_own(tmp_path):
    alone = cluster.connect("none")
    assert (alone.share, alone.is_chief, alone.strategy) == (None, True, None)
    assert alone.claim_folder(str(tmp_path)) == str(tmp_path)
    assert alone.exchange("x") == ["x"]
    batches = tf.data.Dataset.range(3)
    assert alone.distribute(batches) is batches
    with alone.scope():
        assert not tf.distribute.has_strategy()


def test_devices_of_this_machine_are_named(monkeypatch, capsys):
    worker_devices = "/job:localhost/replica:0/task:0/device:GPU:0", "/job:localhost/replica:0/task:0/device:GPU:1"
    strategy = types.SimpleNamespace(extended=types.SimpleNamespace(worker_devices=worker_devices))
    monkeypatch.setattr(cluster, "make_strategy", lambda name: strategy if name == "mirrored" else None)
    assert cluster.connect.__wrapped__("mirrored").strategy is strategy
    assert capsys.readouterr().out == "Devices: 2, GPU:0, GPU:1\n"
    cluster.connect.__wrapped__("none")
    assert capsys.readouterr().out == ""


def test_what_workers_differ_in_is_named_and_nothing_else():
    mine = {"flags": ["--epochs=3", "--seed=1"], "data": {"train": "abc", "test": "def"}}
    theirs = {"flags": ["--epochs=3", "--seed=2"], "data": {"train": "abc", "test": "xyz"}}
    Workers(0, json.dumps(mine)).agree(mine)
    for worker, facts, said in (
        (Workers(0, json.dumps(theirs)), mine, theirs),
        (Workers(1, json.dumps(mine)), theirs, mine),
    ):
        assert said != facts
        with pytest.raises(ValueError, match="All workers must be started with the same flags") as error:
            worker.agree(facts)
        message = str(error.value)
        assert "worker 0 at a and on worker 1 at b: flags ['--seed=1'] and ['--seed=2']" in message
        assert "data {'test': 'def'} and {'test': 'xyz'}" in message and "epochs" not in message


class Differing(Cluster):
    """Worker 0, beside one that says the same but for some facts."""

    def __init__(self, **facts):
        super().__init__(None, NAMES, 0)
        self.facts = facts

    def exchange(self, text):
        return [text, json.dumps(json.loads(text) | self.facts)]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"--existing": "overwrite"}, "--existing 'refuse' and 'overwrite'"),
        ({"script": "train_teacher"}, "script 'distill' and 'train_teacher'"),
        ({"versions": {"keras": "0.1"}}, r"versions {.*} and {'keras': '0.1'}"),
        ({"flags": ["--method=sp"]}, r"flags \[.*'--method=kd'.*\] and \['--method=sp'\]"),
    ],
)
def test_other_commands_are_told_before_anything_else(tmp_path, monkeypatch, facts, said):
    """What else workers say to one another depends on them: they would wait for each other for good."""
    monkeypatch.setattr(run, "connect", lambda _: Differing(**facts))
    with pytest.raises(ValueError, match=f"worker 0 at a and on worker 1 at b: {said}. Mend"):
        run.open_run("distill", DistillConfig(method="kd"), tmp_path / "run")


def test_other_images_are_told_before_anything_is_computed_of_them():
    with pytest.raises(ValueError, match="data {.*'images of test'.*} and {}. Mend"):
        load_distillation_inputs(DistillConfig(method="kd").resolved(), workers=Differing(data={}))


def test_other_workers_have_a_copy_of_what_a_run_goes_on_from(tmp_path):
    for name in ("flags.flags", "checkpoints/student/record.json", "student.keras", "logs/x", "teacher_cache/y", "own"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert Workers(0).claim_folder(tmp_path) == tmp_path
    worker = Workers(1)
    copy = worker.claim_folder(tmp_path)
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert found == {"flags.flags", "checkpoints/student/record.json", "student.keras"}
    worker.end()
    assert not copy.exists() and (tmp_path / "student.keras").exists()


def test_workers_that_see_another_folder_are_told(tmp_path):
    (tmp_path / "flags.flags").write_text("--epochs=3")
    with pytest.raises(ValueError, match="which all workers must see.*flags.flags"):
        Workers(0, json.dumps({"the files in --workdir, which all workers must see,": {}})).claim_folder(tmp_path)


class FourDevices:
    num_replicas_in_sync = 4


def test_a_batch_with_fewer_images_than_devices_is_refused():
    workers = Cluster(FourDevices, ["w"] * 4, 0)
    workers.check_batches(12, 8)  # batches of 8 and 4
    with pytest.raises(ValueError, match="11 training images, batch_size=8, and so a batch of 3 for 4 devices"):
        workers.check_batches(11, 8)
    # In one process TensorFlow gives the devices 2, 2 and 1 of five images, and the last one none.
    mirrored = Cluster(FourDevices)
    mirrored.check_batches(12, 8)
    with pytest.raises(ValueError, match="a batch of 5 for 4 devices"):
        mirrored.check_batches(13, 8)
    workers.check_batches(13, 8)
    cluster.connect("none").check_batches(9, 8)
