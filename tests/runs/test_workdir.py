"""The folder of a run: what belongs to which experiment, and files that are whole or not there."""

import json
import os

import keras
import numpy as np
import pytest

from keras_tkd.runs.records import Stage
from keras_tkd.runs.workdir import Workdir
from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.files import atomic_write, save_model

FLAGS = ["--dataset=digits", "--margin=5.0", "--seed=0"]
OTHERS = ["--dataset=digits", "--margin=4.0", "--seed=0"]


def tree(folder):
    """Every file below a folder with its content, every folder with None."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished experiment, with a stranger's files in it."""
    workdir = Workdir(tmp_path / "run", FLAGS)
    workdir.begin("header")
    for name in ("teacher.keras", "baseline.keras", "student.keras", "split.json"):
        (workdir.path / name).write_text(name)
    for folder in (workdir.logs("student"), workdir.checkpoints("student")):
        folder.mkdir(parents=True)
        (folder / "1").write_text("1")
    workdir.write_results({"accuracy": 0.5})
    (workdir.path / "notes.txt").write_text("mine")
    (workdir.path / "figures").mkdir()
    (workdir.path / "figures" / "curve.png").write_text("mine too")
    return workdir.path


STRANGERS = {"notes.txt": b"mine", "figures": None, "figures/curve.png": b"mine too"}


def test_a_new_folder_is_made_when_the_run_begins(tmp_path):
    workdir = Workdir(tmp_path / "runs" / "new", FLAGS)
    assert tree(tmp_path) == {} and workdir.read_finished_results() is None
    workdir.begin()
    assert set(tree(tmp_path / "runs" / "new")) == {"flags.flags"}


@pytest.mark.parametrize("existing", ["refuse", "continue"])
def test_a_folder_of_strangers_files_is_taken(tmp_path, existing):
    (tmp_path / "notes.txt").write_text("mine")
    Workdir(tmp_path, FLAGS, existing).begin()
    assert set(tree(tmp_path)) == {"notes.txt", "flags.flags"}


@pytest.mark.parametrize("existing", ["refuse", "continue"])
def test_the_same_experiment_is_taken_up(finished, existing):
    before = tree(finished)
    workdir = Workdir(finished, FLAGS, existing)
    assert workdir.read_finished_results()["accuracy"] == 0.5
    workdir.begin("header")
    assert tree(finished) == before


NEW = {"deterministic": False, "test_fraction": 0.2}


@pytest.mark.parametrize("held", [FLAGS, [*FLAGS, "--test_fraction=0.2"], [*FLAGS, "--deterministic=False"]])
def test_a_flag_that_is_newer_than_the_folder_has_its_default_there(held, tmp_path):
    earlier = Workdir(tmp_path, held)
    earlier.begin()
    earlier.write_results({"accuracy": 0.5})
    same = Workdir(tmp_path, [*FLAGS, "--deterministic=False"], defaults=NEW)
    assert same.read_finished_results()["accuracy"] == 0.5
    other = [*FLAGS, "--deterministic=True"]
    with pytest.raises(ValueError, match="another experiment: .*here --deterministic=True"):
        Workdir(tmp_path, other, defaults=NEW)
    assert Workdir(tmp_path, other, "continue", defaults=NEW).read_finished_results() is None


def test_a_default_beside_another_value_is_another_experiment(tmp_path):
    workdir = Workdir(tmp_path, [*FLAGS, "--test_fraction=0.3"])
    workdir.begin()
    workdir.write_results({})
    with pytest.raises(ValueError, match="there --test_fraction=0.3, here --test_fraction=0.2"):
        Workdir(tmp_path, [*FLAGS, "--test_fraction=0.2"], defaults=NEW)


@pytest.mark.parametrize("value", [False, True])
def test_a_setting_that_is_newer_than_a_record_has_its_default_there(value, tmp_path):
    workdir = Workdir(tmp_path, FLAGS)
    (tmp_path / "student.keras").write_text("weights")
    Stage(workdir, "student", {"epochs": 3}).finish([], 1.0, [tmp_path / "student.keras"])
    newer = Stage(workdir, "student", {"epochs": 3, "deterministic": value}, NEW | {"epochs": 9})
    assert newer.finished is not value


@pytest.mark.parametrize(
    "flags, words",
    [
        (OTHERS, ["--margin=5.0", "--margin=4.0"]),
        (FLAGS[:2], ["--seed=0"]),
        ([*FLAGS, "--epochs=3"], ["--epochs=3"]),
    ],
)
def test_another_experiment_is_refused_and_nothing_changes(finished, flags, words):
    before = tree(finished)
    with pytest.raises(ValueError) as error:
        Workdir(finished, flags)
    assert all(word in str(error.value) for word in [*words, str(finished), "overwrite", "continue"])
    assert "--dataset=digits" not in str(error.value)
    assert tree(finished) == before


def test_files_of_ours_without_their_flags_are_refused(tmp_path):
    (tmp_path / "student.keras").write_text("whose?")
    with pytest.raises(ValueError, match="student.keras"):
        Workdir(tmp_path, FLAGS)
    assert tree(tmp_path) == {"student.keras": b"whose?"}


def test_overwrite_removes_our_files_only_when_the_run_begins(finished):
    before = tree(finished)
    workdir = Workdir(finished, OTHERS, "overwrite")
    assert workdir.read_finished_results() is None
    assert tree(finished) == before
    workdir.begin()
    assert tree(finished) == STRANGERS | {"flags.flags": "\n".join([*OTHERS, ""]).encode()}


def test_results_written_after_overwriting_are_this_experiments(finished):
    workdir = Workdir(finished, OTHERS, "overwrite")
    workdir.begin()
    workdir.write_results({"accuracy": 0.25})
    assert workdir.read_finished_results()["accuracy"] == 0.25


def test_continue_keeps_everything_and_its_results_are_not_this_experiments(finished):
    before = tree(finished)
    workdir = Workdir(finished, OTHERS, "continue")
    assert tree(finished) == before
    assert workdir.read_finished_results() is None
    workdir.begin()
    workdir.write_results({"accuracy": 0.25})
    assert workdir.read_finished_results()["accuracy"] == 0.25
    assert Workdir(finished, OTHERS).read_finished_results()["accuracy"] == 0.25


def test_unknown_existing_is_named(tmp_path):
    with pytest.raises(ValueError, match="existing='replace'"):
        Workdir(tmp_path / "run", FLAGS, "replace")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("existing", ["refuse", "overwrite"])
def test_a_file_is_no_folder(tmp_path, existing, below):
    file = tmp_path / "run"
    file.write_text("a file")
    with pytest.raises((ValueError, OSError), match=str(file)):
        Workdir(file / "run" if below else file, FLAGS, existing).begin()
    assert tree(tmp_path) == {"run": b"a file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        Workdir(tmp_path / "run", FLAGS).begin()


@pytest.mark.parametrize("header", ["one line", "two\nlines", ""])
def test_the_flagfile_is_a_header_and_one_flag_per_line(tmp_path, header):
    workdir = Workdir(tmp_path, FLAGS)
    workdir.begin(header)
    lines = (tmp_path / "flags.flags").read_text().splitlines()
    assert lines == [f"# {line}" for line in header.splitlines()] + FLAGS
    Workdir(tmp_path, FLAGS)


def test_results_are_json_with_the_flags(tmp_path):
    Workdir(tmp_path, FLAGS).write_results({"student": {"test_accuracy": 0.5}, "baseline": None})
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"student": {"test_accuracy": 0.5}, "baseline": None, "flags": FLAGS, "files": {}}


HISTORY = [{"loss": 2.0, "val_accuracy": 0.25}, {"loss": 1.0, "val_accuracy": 0.5}]
SETTINGS = {"epochs": 2, "schedule_epochs": (1, 2), "learning_rate": 0.1, "layers": None}


def finish(stage, content="model"):
    stage.model_path.write_text(content)
    stage.finish(HISTORY, 3.0, [stage.model_path])
    return stage


def test_a_stage_that_is_done_counts_for_equal_settings(tmp_path):
    workdir = Workdir(tmp_path, FLAGS)
    stage = Stage(workdir, "student", SETTINGS)
    assert (stage.history, stage.seconds, stage.finished) == ([], 0.0, False)
    finish(stage)
    again = Stage(workdir, "student", dict(reversed(SETTINGS.items())))
    for done in (stage, again):
        assert (done.history, done.seconds, done.finished) == (HISTORY, 3.0, True)
    for name, settings in (("baseline", SETTINGS), ("student", SETTINGS | {"learning_rate": 0.2})):
        other = Stage(workdir, name, settings)
        assert (other.history, other.seconds, other.finished) == ([], 0.0, False)


def test_to_look_at_a_stage_removes_nothing(tmp_path):
    workdir = Workdir(tmp_path, FLAGS)
    for name in ("teacher", "student"):
        stage = finish(Stage(workdir, name, SETTINGS))
        for folder in (stage.logs, stage.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "1").write_text("1")
    before = tree(tmp_path)
    changed = Stage(workdir, "student", SETTINGS | {"learning_rate": 0.2})
    assert tree(tmp_path) == before
    changed.remove_training()
    assert not changed.logs.exists() and not changed.checkpoints.exists()
    # The other stage keeps what it has.
    teacher = Stage(workdir, "teacher", SETTINGS)
    assert teacher.finished and (teacher.logs / "1").exists() and (teacher.checkpoints / "1").exists()


def test_a_stage_whose_model_is_missing_is_done_again_and_says_so(tmp_path, capsys):
    workdir = Workdir(tmp_path, FLAGS)
    finish(Stage(workdir, "student", SETTINGS)).model_path.unlink()
    again = Stage(workdir, "student", SETTINGS)
    assert (again.history, again.seconds, again.finished) == ([], 0.0, False)
    assert f"{again.model_path} is missing: it is made again" in capsys.readouterr().out


def test_a_stage_whose_model_was_changed_is_not_overwritten(tmp_path):
    workdir = Workdir(tmp_path, FLAGS)
    stage = finish(Stage(workdir, "student", SETTINGS))
    stage.model_path.write_text("mode1")
    with pytest.raises(ValueError, match=f"{stage.model_path} is not the file that the run wrote.*remove it"):
        Stage(workdir, "student", SETTINGS)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"null", b"{}"])
def test_a_damaged_record_is_named_and_the_training_done_again(content, tmp_path, capsys):
    workdir = Workdir(tmp_path, FLAGS)
    stage = finish(Stage(workdir, "student", SETTINGS))
    record = stage.checkpoints / "record.json"
    record.write_bytes(content)
    assert not Stage(workdir, "student", SETTINGS).finished
    if content != b"{}":
        assert f"{record} is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]"])
def test_damaged_results_are_named_and_not_used(content, finished, capsys):
    (finished / "results.json").write_bytes(content)
    assert Workdir(finished, FLAGS).read_finished_results() is None
    assert f"{finished / 'results.json'} is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("change", [{"files": {}}, {"files": None}, {"files": {"baseline.keras": "ab"}}])
def test_results_without_the_checksum_of_their_model_are_not_used(role, change, finished, capsys):
    path = finished / "results.json"
    results = json.loads(path.read_text()) | {"version": 2, role: {"parameters": 7}}
    path.write_text(json.dumps(results))
    assert Workdir(finished, FLAGS).read_finished_results() is not None
    path.write_text(json.dumps(results | change))
    assert Workdir(finished, FLAGS).read_finished_results() is None
    del results["files"]
    path.write_text(json.dumps(results))
    assert Workdir(finished, FLAGS).read_finished_results() is None
    assert capsys.readouterr().out.count(f"{path} has no checksum of {role}.keras: what it said is measured again") == 2


def test_results_of_before_there_were_checksums_need_their_model(finished, capsys):
    path = finished / "results.json"
    path.write_text(json.dumps({"flags": FLAGS, "student": {"parameters": 7}}))
    assert Workdir(finished, FLAGS).read_finished_results() is not None
    (finished / "student.keras").unlink()
    assert Workdir(finished, FLAGS).read_finished_results() is None
    assert f"{finished / 'student.keras'} is missing" in capsys.readouterr().out


def test_a_damaged_record_of_what_the_run_was_given_is_named(finished):
    (finished / "checkpoints" / "teacher.json").write_text("{")
    with pytest.raises(ValueError, match="teacher.json is damaged.*put it back.*--existing=overwrite"):
        Workdir(finished, FLAGS).begin(teacher="aa")


def test_results_without_their_models_are_not_used(finished, capsys):
    (finished / "student.keras").unlink()
    assert Workdir(finished, FLAGS).read_finished_results() is None
    assert f"{finished / 'student.keras'} is missing" in capsys.readouterr().out


def test_a_model_that_was_changed_after_the_run_is_named(finished):
    (finished / "student.keras").write_text("student.kera5")
    with pytest.raises(ValueError, match=f"{finished / 'student.keras'} is not the file that the run wrote"):
        Workdir(finished, FLAGS).read_finished_results()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "folder") for name in ("logs", "checkpoints", "teacher_cache", "generations", "logs/student")),
        *((name, "folder") for name in ("checkpoints/baseline", "generations/1", "checkpoints/generations/1/student")),
        *((name, "folder") for name in ("teacher_cache/held_out", "teacher_cache/anchor_2/train")),
        *((name, "file") for name in ("student.keras", "results.json", "split.json", "flags.flags", ".lock")),
        *((name, "file") for name in ("checkpoints/teacher.json", "checkpoints/teacher/record.json")),
        *((name, "file") for name in ("generations/2/student.keras", "checkpoints/generations/1/student/record.json")),
    ],
)
@pytest.mark.parametrize("existing", ["refuse", "continue", "overwrite"])
def test_a_file_for_a_folder_or_the_other_way_round_is_named_at_once(name, kind, existing, tmp_path):
    path = tmp_path / name
    if kind == "file":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no folder")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"{path} must be a {kind} of the run's own.*move it away, or.*--workdir"):
        Workdir(tmp_path, FLAGS, existing)
    assert tree(tmp_path) == before


def test_a_link_to_nowhere_is_no_folder(tmp_path):
    (tmp_path / "logs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="logs must be a folder of the run's own"):
        Workdir(tmp_path, FLAGS)


def test_a_damaged_flagfile_is_named_and_nothing_changes(finished):
    (finished / "flags.flags").write_bytes(b"--seed=\xff\xfe")
    before = tree(finished)
    with pytest.raises(ValueError, match=f"{finished / 'flags.flags'} is damaged.*overwrite"):
        Workdir(finished, FLAGS)
    assert tree(finished) == before


@pytest.mark.parametrize("name", ["logs", "generations", "checkpoints", "teacher_cache"])
def test_a_folder_that_was_never_a_runs_is_not_overwritten(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"never a run's folder.*{name}.*remove them yourself"):
        Workdir(tmp_path, FLAGS, "overwrite")
    with pytest.raises(ValueError, match=f"files {name} without flags.flags"):
        Workdir(tmp_path, FLAGS)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("existing", ["refuse", "continue", "overwrite"])
@pytest.mark.parametrize("name", ["comparison.json", "tuning.json"])
def test_the_folder_of_many_runs_is_not_that_of_one(name, existing, tmp_path):
    """Its own files would be this run's, and the comparison be refused from then on."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"must be a run's own folder. Received: .*which is a {name[:-5]}'s"):
        Workdir(tmp_path, FLAGS, existing)
    assert tree(tmp_path) == {name: b"{}"}


def test_states_of_trainings_that_are_done_do_not_stay(finished):
    """A process that is killed between the record of a training and the removal of its states leaves these."""
    workdir = Workdir(finished, FLAGS)
    for name in ("student", "student/best", "teacher"):
        CheckpointFiles(workdir.checkpoints(name)).write(1, 0, [np.zeros(1)], {})
    workdir.checkpoints("student").joinpath("record.json").write_text("{}")
    workdir.write_results({})
    left = [str(path.relative_to(finished / "checkpoints")) for path in (finished / "checkpoints").rglob("*.npz")]
    # The teacher's training is not done.
    assert left == ["teacher/epoch-000001-step-000000000.npz"]


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ValueError, match="`workdir` must name a folder. Received: workdir=''"):
        Workdir("", FLAGS)


def test_flags_without_anything_trained_are_no_experiment(tmp_path):
    """What an error left behind that came before the first epoch was done."""
    Workdir(tmp_path, OTHERS).begin()
    (tmp_path / "logs" / "student").mkdir(parents=True)
    (tmp_path / "logs" / "student" / "events").write_text("")
    (tmp_path / "checkpoints").mkdir()
    Workdir(tmp_path, FLAGS).begin()
    assert (tmp_path / "flags.flags").read_text().splitlines() == FLAGS


def test_flags_that_decide_nothing_may_differ(finished):
    flags = [*FLAGS, "--checkpoint_steps=5"]
    with pytest.raises(ValueError, match="another experiment"):
        Workdir(finished, flags)
    Workdir(finished, flags, free=["checkpoint_steps"])


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    first, second = Workdir(tmp_path / "run", FLAGS), Workdir(tmp_path / "run", FLAGS)
    first.hold()
    for refused in (second.hold, lambda: Workdir(tmp_path / "run", FLAGS)):
        with pytest.raises(BlockingIOError, match=f"in use: process {os.getpid()}"):
            refused()
    first.release()
    second.hold()
    second.release()
    assert tree(tmp_path / "run") == {}


def test_what_another_process_made_meanwhile_is_seen(tmp_path):
    workdir = Workdir(tmp_path, FLAGS)
    Workdir(tmp_path, OTHERS).begin()
    (tmp_path / "student.keras").write_text("of the other")
    with pytest.raises(ValueError, match="another experiment"):
        workdir.hold()
    workdir.release()


def test_another_teacher_than_the_run_began_with_is_refused(finished):
    def begin(teacher, existing="refuse"):
        Workdir(finished, FLAGS, existing).begin(teacher=teacher)

    begin("aa")
    begin("aa")
    before = tree(finished)
    with pytest.raises(ValueError, match="began with another teacher.*--teacher_path.*--existing=continue"):
        begin("bb")
    assert tree(finished) == before
    begin("bb", "continue")
    begin("bb")
    begin("cc", "overwrite")
    begin("cc")


def test_a_teacher_of_the_same_weights_and_other_layers_is_refused(finished):
    def begin(teacher, layers, existing="refuse"):
        Workdir(finished, FLAGS, existing).begin(teacher=teacher, layers=layers)

    # An earlier version did not know of layers.
    Workdir(finished, FLAGS).begin(teacher="aa")
    begin("aa", "11")
    before = tree(finished)
    # What is trained by it would not be done again for that: its weights are what is compared there.
    for existing in ("refuse", "continue"):
        with pytest.raises(ValueError, match="another teacher: the layers of --teacher_path have.*existing=overwrite"):
            begin("aa", "22", existing)
    assert tree(finished) == before
    # Another model is trained from anew, whatever its layers.
    begin("bb", "22", "continue")
    begin("bb", "22")


def test_other_data_than_the_run_began_with_are_refused(finished):
    def begin(existing="refuse", flags=(), **data):
        Workdir(finished, FLAGS, existing).begin(data={"flags": list(flags)} | data)

    begin(images="aa", labels="bb")
    begin(images="aa", labels="bb")
    before = tree(finished)
    for existing in ("refuse", "continue"):
        with pytest.raises(ValueError, match="began with other data: images have changed since. Put them back"):
            begin(existing, images="cc", labels="bb")
    assert tree(finished) == before
    # Other data by other flags are trained on anew.
    begin("continue", ["--image_size=9"], images="cc", labels="bb")
    begin("refuse", ["--image_size=9"], images="cc", labels="bb")
    begin("overwrite", ["--image_size=9"], images="dd", labels="bb")


def test_what_killed_processes_left_is_removed(finished):
    own = finished / "generations" / "1" / ".unfinished-123-student.keras"
    mine = finished / "figures" / ".unfinished-123-mine"
    for path in (own, mine, finished / ".unfinished-123-student.keras"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    Workdir(finished, FLAGS).begin()
    assert [path.name for path in finished.rglob(".unfinished*")] == [mine.name]


def test_a_whole_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "model.keras"
    with atomic_write(path) as unfinished:
        unfinished.write_text("whole")
        assert unfinished.suffix == ".keras" and not path.exists()
    assert tree(tmp_path) == {"new": None, "new/folder": None, "new/folder/model.keras": b"whole"}
    with atomic_write(path) as unfinished:
        unfinished.write_text("another")
        assert path.read_text() == "whole"
    assert path.read_text() == "another"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("written", [None, "ha"])
def test_an_interrupted_file_leaves_the_old_one_and_nothing_else(tmp_path, error, old, written):
    path = tmp_path / "results.json"
    if old:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as unfinished:
        if written:
            unfinished.write_text(written)
        raise error
    assert tree(tmp_path) == ({"results.json": b"old"} if old else {})


def test_models_are_saved_whole(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    path = save_model(model, tmp_path / "student.keras")
    assert path == tmp_path / "student.keras" and set(tree(tmp_path)) == {"student.keras"}
    x = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(keras.saving.load_model(path)(x), model(x))

    class Failing:
        variables, compiled = (), False

        def save(self, path):
            with open(path, "w") as file:
                file.write("half of it")
            raise OSError("disk full")

    before = tree(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        save_model(Failing(), path)
    assert tree(tmp_path) == before


def test_what_says_that_files_are_a_runs_is_removed_last(finished, monkeypatch):
    def fail(path):
        raise InterruptedError

    monkeypatch.setattr("shutil.rmtree", fail)
    with pytest.raises(InterruptedError):
        Workdir(finished, OTHERS, "overwrite").begin()
    monkeypatch.undo()
    Workdir(finished, OTHERS, "overwrite").begin()
    assert set(tree(finished)) == {"flags.flags", *STRANGERS}


def test_of_logs_that_lie_elsewhere_the_link_is_removed(finished, tmp_path):
    (finished / "logs").rename(tmp_path / "scratch")
    (finished / "logs").symlink_to(tmp_path / "scratch")
    Workdir(finished, OTHERS, "overwrite").begin()
    assert set(tree(finished)) == {"flags.flags", *STRANGERS} and (tmp_path / "scratch" / "student" / "1").exists()


@pytest.mark.parametrize("entry", [{"flags": 5}, {"flags": [1]}, {"files": ["student.keras"]}, {"files": 5}])
def test_results_with_an_entry_of_another_kind_are_made_again(entry, finished, capsys):
    path = finished / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    assert Workdir(finished, FLAGS).read_finished_results() is None
    (name,) = entry
    assert f"{path} is damaged: its entry '{name}'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "entry", [{"settings": [1]}, {"files": ["a"]}, {"history": 5}, {"history": [5]}, {"seconds": "x"}]
)
def test_a_record_with_an_entry_of_another_kind_is_made_again(entry, tmp_path, capsys):
    workdir = Workdir(tmp_path, FLAGS)
    (tmp_path / "student.keras").write_text("weights")
    Stage(workdir, "student", {"epochs": 3}).finish([{"loss": 1.0}], 1.0, [tmp_path / "student.keras"])
    assert Stage(workdir, "student", {"epochs": 3}).finished
    path = tmp_path / "checkpoints" / "student" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    assert not Stage(workdir, "student", {"epochs": 3}).finished
    assert f"{path} is damaged: its entry '{next(iter(entry))}'" in capsys.readouterr().out


@pytest.mark.parametrize("change", [(b"0.75", b"0.15"), (b"val_accuracy", b"val_accurbcy"), (b"2.5", b"2.6")])
def test_a_record_in_which_one_byte_is_another_is_made_again(change, tmp_path, capsys):
    workdir = Workdir(tmp_path, FLAGS)
    (tmp_path / "student.keras").write_text("weights")
    stage = Stage(workdir, "student", {"epochs": 2})
    stage.finish([{"val_accuracy": 0.5}, {"val_accuracy": 0.75}], 2.5, [tmp_path / "student.keras"])
    found = Stage(workdir, "student", {"epochs": 2})
    assert found.finished and found.history == stage.history and found.seconds == 2.5
    path = tmp_path / "checkpoints" / "student" / "record.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(*change, 1))
    assert not Stage(workdir, "student", {"epochs": 2}).finished
    assert f"{path} is damaged: its checksum is another. The training is done again" in capsys.readouterr().out
    # Those of earlier versions have none.
    record = json.loads(content)
    del record["crc32"]
    path.write_text(json.dumps(record))
    assert Stage(workdir, "student", {"epochs": 2}).finished


def test_a_blank_name_is_no_folder():
    with pytest.raises(ValueError, match="`workdir` must name a folder"):
        Workdir(" ", FLAGS)
