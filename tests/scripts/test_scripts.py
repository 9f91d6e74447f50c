"""The scripts as a user runs them: in processes of their own."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from keras_tkd.methods import METHODS

ROOT = pathlib.Path(__file__).parents[2]
# Those of a budget are given after another flagfile.
FLAGFILES = sorted(path for path in (ROOT / "flags").rglob("*.flags") if not path.stem.startswith("budget_"))
# What those have that are not named after a method.
OTHERS = {
    "combined": "losses=('kd",
    "ensemble": "teacher_average='losses'",
    "four_classes": "classes=('airplane', 'automobile', 'bird', 'cat')",
}
QUICK = ["--epochs=2", "--batch_size=128"]


def run(script, *arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


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
    ):
        assert words in distilled.stdout
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
for class_name, path in zip(sys.argv[1::2], sys.argv[2::2]):
    # A process for each file: flags are defined once in a process.
    if os.fork():
        os.wait()
        continue
    config_class = getattr(config, class_name)
    run_flags.define(config_class)
    run_flags.define_workdir()
    flags.FLAGS(["read", "--flagfile=" + path, "--workdir=runs/x"])
    print(path, run_flags.read(config_class), flush=True)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    os._exit(0)
"""


def is_teachers(path):
    return path.stem.endswith("teacher")


@pytest.fixture(scope="module")
def configurations():
    """What the scripts read from each flagfile, as text."""
    named = [("TeacherTrainingConfig" if is_teachers(path) else "DistillConfig", str(path)) for path in FLAGFILES]
    command = [sys.executable, "-c", READ, *(word for pair in named for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("path", FLAGFILES, ids=[f"{path.parent.name}/{path.stem}" for path in FLAGFILES])
def test_every_flagfile_is_a_configuration(path, configurations):
    assert f"dataset='{path.parent.name}'" in configurations[str(path)]
    teacher = is_teachers(path)
    if not teacher:
        # A method's name, perhaps with words for what is different there.
        words = path.stem.split("_") + [path.stem]
        named = next((f"method='{name}'" for name in sorted(METHODS, key=len, reverse=True) if name in words), None)
        assert OTHERS.get(path.stem, named) in configurations[str(path)]
        assert path.stem.startswith("open_set_") == ("open_set_fraction=None" not in configurations[str(path)])
    header = path.read_text().splitlines()
    command = f"#   python scripts/{'train_teacher' if teacher else 'distill'}.py --flagfile={path.relative_to(ROOT)}"
    assert header[0].startswith("# ") and any(line.startswith(command) for line in header)
    assert any(line.startswith("# Expected") for line in header)


def test_every_method_has_its_flagfiles():
    for folder in ("digits", "cifar10"):
        assert {path.stem for path in (ROOT / "flags" / folder).glob("*.flags")} >= {"teacher", *METHODS}


@pytest.mark.parametrize("script", ["train_teacher", "distill", "evaluate"])
def test_help_imports_no_tensorflow(script):
    command = [sys.executable, "-X", "importtime", f"scripts/{script}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert "--dataset" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported and not imported & {"tensorflow", "keras"}


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
def test_bad_flags_end_with_one_sentence(arguments, message, tmp_path):
    done = run("distill", *arguments, cwd=tmp_path)
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
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False
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


def test_a_run_that_is_asked_to_end_says_how_to_go_on_and_another_is_refused_meanwhile(tmp_path):
    flags = ["--method=baseline", "--epochs=5000", "--workdir=a run"]
    command = [sys.executable, "-u", str(ROOT / "scripts" / "distill.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        # Training has begun: its state is written at the end of each epoch.
        while not list((tmp_path / "a run").rglob("*.npz")):
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
