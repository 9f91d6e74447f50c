"""The scripts as a user runs them: in processes of their own, or forks where how a process begins does not matter."""

import importlib
import importlib.util
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest
from script_forks import ScriptForks

from keras_tkd import data
from keras_tkd.methods import METHODS
from keras_tkd.runs import reporting

ROOT = pathlib.Path(__file__).parents[2]
FLAGFILES = sorted((ROOT / "flags").rglob("*.flags"))
# Those of a budget are given after another flagfile, which need not have a schedule of the same kind.
BUDGETS = [path for path in FLAGFILES if path.stem.startswith("budget_")]
FLAGFILES = [path for path in FLAGFILES if path not in BUDGETS]
UNDER_BUDGETS = [(budget, budget.with_name(f"{name}.flags")) for budget in BUDGETS for name in (*METHODS, "teacher")]
# What those have that are not named after a method.
OTHERS = {
    "combined": "losses=('kd",
    "ensemble": "teacher_average='losses'",
    "four_classes": "classes=('airplane', 'automobile', 'bird', 'cat')",
    "patient": "mixup=1.0",
    "small_set": "train_fraction=0.1",
    "small_set_kd_low": "losses=('kd",
    "small_set_kd_semi_hard": "losses=('kd",
    "small_set_kd_tkd": "losses=('kd",
    "small_set_tkd_hard": "miner='hard'",
    "small_set_tkd_semi_hard": "miner='semi_hard'",
    "tkd_kd_tuned": "losses=('tkd",
}
QUICK = ["--epochs=2", "--batch_size=128"]


def run(script, *arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


@pytest.fixture(scope="module")
def forks():
    with ScriptForks() as forks:
        yield forks


def test_train_teacher_distill_evaluate(tmp_path):
    flags = ROOT / "flags" / "digits"
    teacher = run("train_teacher", f"--flagfile={flags}/teacher.flags", *QUICK, "--workdir=teacher", cwd=tmp_path)
    assert teacher.returncode == 0, teacher.stderr
    arguments = [f"--flagfile={flags}/tkd.flags", *QUICK, "--teacher_path=teacher", "--workdir=run"]
    distilled = run("distill", *arguments, cwd=tmp_path)
    assert distilled.returncode == 0, distilled.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for words in (
        "student alone",
        "distilled student",
        "tensorboard --logdir=run/logs",
        "run/student.keras",
        f"{100 * results['student']['test_accuracy']:.2f} %",
        "Report    run/report.html",
    ):
        assert words in distilled.stdout
    report = (tmp_path / "run" / "report.html").read_text()
    assert "tkd: the positive is the nearer" in report and "student alone: the positive" not in report
    # Calm: nothing of TensorFlow's start-up, no warning.
    assert teacher.stderr == distilled.stderr == ""
    measured = run("evaluate", "--model_path=run/student.keras", "--teacher_path=teacher", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    measured = json.loads(measured.stdout)
    assert measured["test_accuracy"] == results["student"]["test_accuracy"]
    assert measured["agreement"] == results["student"]["agreement"]
    again = run("distill", "--flagfile=run/flags.flags", "--workdir=run", cwd=tmp_path)
    assert again.returncode == 0 and "Finished already" in again.stdout and "distilled student" in again.stdout


READ = """
import os, sys
sys.path.insert(0, "scripts")
import run_flags
from absl import flags
from keras_tkd import config
for class_name, paths in zip(sys.argv[1::2], sys.argv[2::2]):
    # A process for each file: flags are defined once in a process.
    if os.fork():
        os.wait()
        continue
    config_class = getattr(config, class_name)
    run_flags.define(config_class)
    arguments = ["read", *("--flagfile=" + path for path in paths.split(os.pathsep))]
    if class_name != "ExportConfig":
        run_flags.define_workdir()
        arguments.append("--workdir=runs/x")
    flags.FLAGS(arguments)
    print(paths, run_flags.read(config_class), flush=True)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    os._exit(0)
"""


def is_teachers(path):
    return path.stem.endswith("teacher")


def is_exports(path):
    return path.stem == "export"


def find_script(path):
    return "export" if is_exports(path) else "train_teacher" if is_teachers(path) else "distill"


CONFIGS = {"export": "ExportConfig", "train_teacher": "TeacherTrainingConfig", "distill": "DistillConfig"}


@pytest.fixture(scope="module")
def configurations():
    """What the scripts read from each flagfile, as text."""
    named = [(CONFIGS[find_script(path)], str(path)) for path in FLAGFILES]
    named += [(CONFIGS[find_script(path)], f"{path}{os.pathsep}{budget}") for budget, path in UNDER_BUDGETS]
    command = [sys.executable, "-c", READ, *(word for pair in named for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("path", FLAGFILES, ids=[f"{path.parent.name}/{path.stem}" for path in FLAGFILES])
def test_every_flagfile_is_a_configuration(path, configurations):
    assert f"dataset='{path.parent.name}'" in configurations[str(path)]
    if find_script(path) == "distill":
        # A method's name, perhaps with words for what is different there.
        words = path.stem.split("_") + [path.stem]
        named = next((f"method='{name}'" for name in sorted(METHODS, key=len, reverse=True) if name in words), None)
        assert OTHERS.get(path.stem, named) in configurations[str(path)]
        assert path.stem.startswith("open_set_") == ("open_set_fraction=None" not in configurations[str(path)])
    header = path.read_text().splitlines()
    command = f"#   python scripts/{find_script(path)}.py --flagfile={path.relative_to(ROOT)}"
    assert header[0].startswith("# ") and any(line.startswith(command) for line in header)
    assert any(line.startswith("# Expected") for line in header)


@pytest.mark.parametrize(("budget", "path"), UNDER_BUDGETS, ids=[path.stem for _, path in UNDER_BUDGETS])
def test_every_budget_is_one_of_every_method(budget, path, configurations):
    said = configurations[f"{path}{os.pathsep}{budget}"]
    lines = [line[2:].split("=") for line in budget.read_text().splitlines() if line.startswith("--")]
    for name, value in lines:
        assert f"{name}=()" in said if value == "" else re.search(f"\\b{name}='?{value}(\\.0)?'?[,)]", said), name


def test_every_method_has_its_flagfiles():
    for folder in ("digits", "cifar10"):
        assert {path.stem for path in (ROOT / "flags" / folder).glob("*.flags")} >= {"teacher", *METHODS}


@pytest.mark.parametrize("script", ["train_teacher", "distill", "compare", "tune", "evaluate", "export"])
def test_help_imports_no_tensorflow(script):
    command = [sys.executable, "-X", "importtime", f"scripts/{script}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert "--dataset" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported and not imported & {"tensorflow", "keras"}


def test_without_its_extra_a_report_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_flags = importlib.import_module("run_flags")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vl_convert" else found(name))
    run_flags.show_report(tmp_path)
    assert capsys.readouterr().out == (
        "Report    not drawn: A report needs vl-convert-python, not installed here. Install the extra: "
        'pip install "keras_tkd[report]"\n'
    )


def test_a_report_that_cannot_be_written_is_no_failure_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_flags = importlib.import_module("run_flags")

    def refuse(workdir):
        raise OSError(f"{workdir}/report.html cannot be written: Read-only file system")

    monkeypatch.setattr(reporting, "write_report", refuse)
    run_flags.show_report(tmp_path)
    said = f"Report    not drawn: {tmp_path}/report.html cannot be written: Read-only file system\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_onednn_is_on_unless_the_user_said_otherwise(given, expected, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_flags = importlib.import_module("run_flags")
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    monkeypatch.setattr(os, "environ", environment | given)
    assert run_flags.import_commands().distill
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w", "--method=tkdd"], "tkd"),
        (["--workdir=w", "--method=kd", "--margin=3"], "does not read `margin`"),
        # At their defaults, too.
        (["--workdir=w", "--method=baseline", "--teacher_model=digits_teacher"], "does not read `teacher_model`"),
        (["--workdir=w", "--method=baseline", "--baseline=train"], "does not read `baseline`"),
        (
            ["--workdir=w", "--method=kd", "--teacher_path=a", "--teacher_average=losses"],
            "`teacher_average` is read with",
        ),
        (["--workdir=w", "--teacher_path=a,b", "--teacher_weights=1,x"], "`teacher_average` must say"),
        (["--workdir=w", "--teacher_path=a", "--teacher_weights="], "does not read `teacher_weights`"),
        (["--workdir=w", "--method=kd", "--temperature=0"], "`temperature` must be > 0"),
        (["--workdir=w", "--method=kd", "--temperature=inf"], "`temperature` must be a finite number"),
        (["--workdir=w", "--method=tkd", "--margin=-1"], "`margin` must be >= 0"),
        (
            ["--workdir=w", "--method=tkd", "--distillation_loss_weights=-1"],
            "`distillation_loss_weights` must be 1 number >= 0",
        ),
        (["--workdir=w", "--distillation_weights=1"], "Did you mean: distillation_loss_weights"),
        (["--workdir=w", "--losses=kd,sp", "--method=tkd"], "`losses` are listed in place of a `method`"),
        (["--workdir=w", "--losses=kd,sp:3000", "--temperature=2"], "in the list: kd@temperature=2:0.5"),
        (["--workdir=w", "--losses=kd@margin=2:1"], "'kd' knows the arguments temperature"),
        (["--workdir=w", "temperature=9"], "stray words: temperature=9"),
        (["--workdir=w", "--learning_rat=1"], "learning_rat"),
        (["--workdir=w", "--schedule_epochs=1,x", "--schedule=step"], "schedule_epochs"),
        ([], "workdir"),
    ],
)
def test_bad_flags_end_with_one_sentence(arguments, message, tmp_path, forks):
    done = forks.run("distill", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not os.listdir(tmp_path)


def test_errors_of_the_run_end_with_one_sentence(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "student.keras").write_text("somebody's")
    done = run("distill", "--workdir=w", cwd=tmp_path)
    assert done.returncode != 0 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert (tmp_path / "w" / "student.keras").read_text() == "somebody's"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("script", "module"),
    [*((script, "absl") for script in ("train_teacher", "distill", "evaluate", "demo")), ("distill", "tensorflow")],
)
def test_a_signal_while_a_script_imports_ends_it_with_one_line(script, module, number, tmp_path):
    (tmp_path / f"{module}.py").write_text(f"import signal, time\nsignal.raise_signal({number:d})\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--workdir=run"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
        # Tests that run in the background of a shell hand on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 128 + number and not done.stderr, done.stderr
    assert done.stdout == f"\nInterrupted ({number.name}), before anything began.\n"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    code = """
import signal, sys
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.SIG_IGN)
import early_signals
signal.raise_signal(signal.SIGINT)
early_signals.hand_over(SIGINT=signal.default_int_handler, SIGTERM=print)
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGTERM)
"""
    command = [sys.executable, "-c", code, str(ROOT / "scripts")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("15 ") and not done.stderr, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["__del__", "weakref"])
def test_a_signal_in_a_place_whose_errors_are_ignored_is_not_lost(number, place):
    """Such as a `__del__` of TensorFlow's: what a handler raises there is printed, and the program goes on."""
    code = """
import signal, sys, time, weakref
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)
import early_signals

class Termination(KeyboardInterrupt):
    signal = signal.SIGTERM

def end(number, frame):
    raise Termination

early_signals.hand_over(SIGINT=signal.default_int_handler, SIGTERM=end)

def send(*_):
    signal.raise_signal(int(sys.argv[2]))

class Thing:
    if sys.argv[3] == "__del__":
        __del__ = send

thing = Thing()
reference = weakref.ref(thing, send) if sys.argv[3] == "weakref" else None
try:
    del thing
    print("goes on")
    time.sleep(60)
except KeyboardInterrupt as error:
    print(type(error).__name__)

class Faulty:
    def __del__(self):
        raise ValueError("of another kind")

Faulty()
"""
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), str(int(number)), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    raised = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Termination"}[number]
    assert done.returncode == 0 and done.stdout == f"goes on\n{raised}\n", done.stderr
    # All that Python ignores besides is said as ever, and of the signal nothing.
    assert "ValueError: of another kind" in done.stderr and raised not in done.stderr


def test_a_run_that_is_asked_to_end_says_how_to_go_on_and_another_is_refused_meanwhile(tmp_path):
    flags = ["--method=baseline", "--epochs=5000", "--workdir=a run"]
    command = [sys.executable, "-u", str(ROOT / "scripts" / "distill.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        # Training has begun: its state is written at the end of each epoch.
        while not list((tmp_path / "a run").rglob("[!.]*.npz")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        second = run("distill", *flags, cwd=tmp_path)
        assert second.returncode == 1 and f"a run is in use: process {process.pid} on" in second.stderr
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + 15
    assert "Interrupted (SIGTERM)" in output and "run the same command again" in output
    assert "Traceback" not in output + second.stderr
    assert "--workdir='a run'" in (tmp_path / "a run" / "flags.flags").read_text().splitlines()[0]
    assert not list((tmp_path / "a run").rglob(".*"))


def read_arrays(path):
    """The bytes of each array in a .keras file, by name."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()].tobytes()} if hasattr(item, "shape") else {}))
    return arrays


def test_runs_at_once_are_interrupted_and_end_as_one_after_another(tmp_path):
    """A comparison: SIGTERM reaches the runs in processes of their own, and all is as if nothing had happened."""
    flags = [f"--flagfile={ROOT}/flags/digits/kd.flags", "--methods=kd,sp", "--seeds=0", "--deterministic"]
    flags += ["--epochs=2", "--teacher_epochs=2", "--train_fraction=0.3", "--teacher_cache=workdir"]
    flags += ["--tensorboard=off", "--check=off"]  # what has tests of its own, twelve times over
    arguments = [*flags, "--parallel=2", "--workdir=both"]
    command = [sys.executable, "-u", str(ROOT / "scripts" / "compare.py"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        # Teacher and baseline begin together: each of them has written where it is.
        while len(list((tmp_path / "both").glob("*/**/flags.flags"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    # TensorFlow itself writes lines about what it does for determinism.
    assert process.returncode == 128 + 15 and "Traceback" not in errors, errors
    assert "Interrupted (SIGTERM)" in output and "run the same command again" in output
    record = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert {run["status"] for run in record["runs"]} == {"waiting"}
    both = run("compare", *arguments, cwd=tmp_path)
    assert both.returncode == 0 and "Traceback" not in both.stderr, both.stderr
    one = run("compare", *flags, "--workdir=one", cwd=tmp_path)
    assert one.returncode == 0 and "Traceback" not in one.stderr, one.stderr
    records = [json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("both", "one")]
    for record in records:
        for each in record["runs"]:
            assert each.pop("seconds") > 0
        assert [each["method"] for each in record["runs"]] == ["teacher", "baseline", "kd", "sp"]
    assert records[0] == records[1]
    # Every number of the files, the optimizer's too; its name counts those that a process made.
    for each in records[0]["runs"][1:]:
        there, here = (read_arrays(tmp_path / name / each["path"] / "student.keras") for name in ("both", "one"))
        assert len(there) >= 6 and there == here
    for words in ("student alone", "kd", "sp", "verdict", "one/comparison.json", "one/table.md"):
        assert words in one.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w"], "methods"),
        (["--workdir=w", "--methods="], "`methods` must name one"),
        (["--workdir=w", "--methods=tkdd"], "Did you mean 'tkd'"),
        (["--workdir=w", "--methods=sp", "--seeds=0,x"], "--seeds: invalid literal"),
        (["--workdir=w", "--methods=sp", "--parallel=0"], "`parallel` must be"),
        (["--workdir=w", "--methods=sp", "--margin=3"], "takes no `margin`"),
        # What a flagfile's own method does not read, one of those that are compared may.
        (
            [
                "--flagfile=flags/digits/kd.flags",
                "--workdir=w",
                "--methods=kd,tkd",
                "--negatives=in_batch",
                "--parallel=0",
            ],
            "`parallel` must be",
        ),
        (
            [
                "--flagfile=flags/digits/baseline.flags",
                "--workdir=w",
                "--methods=kd",
                "--teacher_path=t",
                "--parallel=0",
            ],
            "`parallel` must be",
        ),
        # A teacher that one method would train by that flagfile, and another is given.
        (
            ["--flagfile=flags/digits/kd.flags", "--workdir=w", "--methods=kd,dml", "--teacher_path=t"],
            "` is passed over where `teacher_path` is given, and dml reads it",
        ),
        (
            ["--flagfile=flags/digits/kd.flags", "--workdir=w", "--methods=kd,sp", "--teacher_path=t", "--parallel=0"],
            "`parallel` must be",
        ),
        # Nothing is said of tkd, the default of a single run.
        (["--workdir=w", "--methods=kd", "--mixup=0.2", "--parallel=0"], "`parallel` must be"),
        (["--workdir=w", "--methods=dkd,kd", "--mixup=0.2", "--parallel=0"], "`parallel` must be"),
        (["--workdir=w", "--methods=dkd", "--mixup=0.2"], "DecoupledTargets is of images of one class each"),
    ],
)
def test_bad_flags_of_a_comparison_end_with_one_sentence(arguments, message, tmp_path, forks):
    arguments = [argument.replace("=flags/", f"={ROOT}/flags/") for argument in arguments]
    done = forks.run("compare", *arguments, cwd=tmp_path)
    assert done.returncode != 0 and message in done.stderr + done.stdout and "Traceback" not in done.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods=kd,tkd", "--space=margin=3,temperatur=1..8"], "`space` must name what is tuned"),
        (["--methods=kd", "--seeds=0,x"], "--seeds: invalid literal"),
    ],
)
def test_bad_flags_of_a_tuning_end_with_one_sentence(arguments, message, tmp_path):
    done = run("tune", "--workdir=w", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not os.listdir(tmp_path)


def save_nearest(folder):
    """Classifiers without training: the class whose mean image is nearest, |x - m|^2 = |x|^2 - 2 (m x - |m|^2 / 2)."""
    splits = data.load("digits")
    images = splits.train_images.reshape(-1, 64) / 255
    means = np.array([images[splits.train_labels == label].mean(0) for label in range(10)])
    for name, lift in (("plain", 0), ("lifted", 1e4)):
        # Lifted, no class changes; but the steps of int8 are too large to tell the classes apart.
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model.set_weights([means.T, lift - (means**2).sum(1) / 2])
        model.save(folder / f"{name}.keras")


def test_export(tmp_path, forks):
    """Of files, which cost no training: one that passes, and one that loses too much."""
    save_nearest(tmp_path)
    flags = ["--formats=saved_model,litert_float32,onnx", "--max_drop=0"]
    passed = run("export", "--source=plain.keras", "--output=out", *flags, cwd=tmp_path)
    assert passed.returncode == 0 and passed.stderr == "", passed.stderr
    for words in ("student (Keras)", "saved_model", "litert_float32", "onnx", "by one thread", "Files     out"):
        assert words in passed.stdout
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["passed"] and [file["threads"] for file in record["files"]] == [1, 1, 1]
    assert record["student"]["test_accuracy"] > 0.8
    again = forks.run("export", "--source=plain.keras", "--output=out", *flags, cwd=tmp_path)
    assert again.returncode == 1 and "Error: out holds an export already: export.json, labels.txt" in again.stderr
    flags = ["--formats=litert_int8", "--max_drop=0.001", "--existing=overwrite", "--calibration_images=20"]
    failed = forks.run("export", "--source=lifted.keras", "--output=out", *flags, cwd=tmp_path)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert failed.returncode == 1 and not record["passed"]
    (file,) = record["files"]
    assert "Error: A file may lose 0.001 of the test accuracy at most" in failed.stderr
    assert f"litert_int8 {file['test_accuracy']:.4f} (a drop of {file['drop']:.4f})" in failed.stderr
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["export.json", "labels.txt", "model_int8.tflite"]
