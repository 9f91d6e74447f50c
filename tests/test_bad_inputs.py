"""What users get wrong: each is one sentence with rule, value and fix, before any work; and nothing changes.

One table for each way in: flags of the scripts, configurations with their files, arguments of the library. A row is
what is given, and the words that the error must have.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TeacherCache, TeacherEnsemble, TriKD, data, losses, methods, miners, models, teachers
from keras_tkd.callbacks import BackupState, TerminateOnNonFinite, WarmUp
from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.runs import commands, stages
from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.files import save_model

ROOT = pathlib.Path(__file__).parents[1]
HUGE = "9999999999999999999999999"
ERRORS = (ValueError, OSError, FloatingPointError)  # what the scripts show as one sentence


def digest(folder):
    """Every path below a folder, with the hash of a file's bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def check_sentence(message, words):
    for word in words:
        assert word in message, message
    for never in ("Traceback", "in user code", "object at 0x"):
        assert never not in message, message


# Flags.

# Script, what is typed (`{here}` is a folder), words of the error.
FLAGS = [
    ("export", "--output=o", "`source` is needed, a run's folder or a .keras file", "source=None"),
    ("export", "--source=s", "`output` is needed, a folder to write to", "output=None"),
    ("export", "--source=s --output=o --formats=tflite", "`formats` must be one of saved_model", "'tflite'"),
    ("export", "--source=s --output=o --formats=onnx,onnx", "`formats` must name different ones", "onnx"),
    ("export", "--source=s --output=o --max_drop=1.5", "`max_drop` must be a share of the images", "1.5"),
    ("export", "--source=s --output=o --max_drop=nan", "`max_drop` must be a finite number", "nan"),
    ("export", "--source=s --output=o --calibration_images=0", "`calibration_images` must be >= 1", "0"),
    ("export", "--source=s --output=o --calibration_seed=-1", "`calibration_seed` must be in [0, 2^30)", "-1"),
    (
        "export",
        "--source=s --output=o --formats=onnx --int8_interface=int8",
        "`int8_interface` goes with the format litert_int8",
        "'int8'",
    ),
    ("export", "--source=s --output=o --formats=onnx --calibration_seed=0", "goes with the format litert_int8", "0"),
    ("export", "--source=s --output=o --preprocessing=none", "--preprocessing=none", "outside"),
    ("export", "--source=s --output=o --existing=continue", "--existing=continue", "overwrite"),
    ("distill", f"--batch_size={HUGE}", "`batch_size` must be a whole number", HUGE),
    ("distill", f"--epochs={HUGE}", "`epochs` must be a whole number", HUGE),
    ("distill", f"--seed=-{HUGE}", "`seed` must be a whole number", HUGE),
    ("distill", f"--image_size={HUGE}", "`image_size` must be a whole number", HUGE),
    ("distill", f"--schedule=step --schedule_epochs={HUGE}", "`schedule_epochs` must be", "whole number", HUGE),
    ("distill", "--batch_size=0", "`batch_size` must be >= 1", "batch_size=0"),
    ("distill", "--batch_size=1.5", "--batch_size=1.5", "int"),
    ("distill", "--epochs=ten", "--epochs=ten", "int"),
    ("distill", "--epochs=-3", "`epochs` must be >= 1", "epochs=-3"),
    ("distill", "--learning_rate=0", "`learning_rate` must be > 0", "learning_rate=0.0"),
    ("distill", "--learning_rate=nan", "`learning_rate` must be a finite number", "nan"),
    ("distill", "--learning_rate=1e300", "`learning_rate` must be a finite number", "at most 3.4e38", "1e+300"),
    ("distill", "--learning_rate=1e-300", "`learning_rate` must be a finite number, 0 or of 1.2e-38", "1e-300"),
    ("distill", "--method=kd --temperature=1e-300", "`temperature` must be a finite number, 0 or", "1e-300"),
    ("distill", "--losses=kd@temperature=1e-300", "`temperature` must be a number that float32 holds", "1e-300"),
    ("distill", "--losses=kd:1e-300", "`weight` must be a number that float32 holds", "'kd:1e-300'"),
    ("distill", "--losses=kd:1e300", "`weight` must be a number that float32 holds", "'kd:1e300'"),
    (
        "distill",
        "--teacher_path=a,b --teacher_average=losses --teacher_weights=1,1e-300",
        "2 numbers >= 0",
        "1e-300",
    ),
    ("distill", "--weight_decay=inf", "`weight_decay` must be a finite number", "weight_decay=inf"),
    ("distill", "--weight_decay=-0.1", "`weight_decay` must be >= 0", "-0.1"),
    ("distill", "--teacher_weight_decay=inf", "`teacher_weight_decay` must be a finite number", "inf"),
    ("distill", "--teacher_learning_rate=-inf", "`teacher_learning_rate` must be a finite number", "-inf"),
    ("distill", "--momentum=1", "`momentum` must be < 1", "momentum=1.0"),
    ("distill", "--method=kd --temperature=nan", "`temperature` must be a finite number", "nan"),
    ("distill", "--method=kd --temperature=-1", "`temperature` must be > 0", "-1.0"),
    ("distill", "--method=tkd --margin=inf", "`margin` must be a finite number", "inf"),
    ("distill", "--student_loss_weight=-1", "`student_loss_weight` must be >= 0", "-1.0"),
    ("distill", "--distillation_loss_weights=1,x", "--distillation_loss_weights", "'x'"),
    ("distill", "--distillation_loss_weights=nan", "`distillation_loss_weights` must be", "finite", "nan"),
    ("distill", "--distillation_loss_weights=1,2", "must be 1 number >= 0 for method 'tkd'", "(1.0, 2.0)"),
    ("distill", "--warmup_epochs=-1", "`warmup_epochs` must be >= 0", "-1"),
    ("distill", "--checkpoint_steps=0", "`checkpoint_steps` must be > 0", "checkpoint_steps=0"),
    ("distill", "--checkpoint_minutes=nan", "`checkpoint_minutes` must be a finite number", "nan"),
    ("distill", "--seed=1073741824", "`seed` must be in [0, 2^30)", "1073741824"),
    ("distill", "--split_seed=-1", "`split_seed` must be in [0, 2^30)", "-1"),
    ("distill", "--validation_fraction=1", "`validation_fraction` must be in [0, 1)", "1.0"),
    ("distill", "--train_fraction=0", "`train_fraction` must be in (0, 1]", "0.0"),
    ("distill", "--dataset=pets --test_fraction=1", "`test_fraction` must be between 0 and 1", "1.0"),
    ("distill", "--test_fraction=0.3", "`test_fraction` is not read with `digits`", "built in", "0.3"),
    ("distill", "--test_fraction=0.2", "`test_fraction` is not read with `digits`", "0.2"),
    ("distill", "--data_dir=/", "`data_dir` is not read with `digits`", "data_dir='/'"),
    ("distill", "--open_set_fraction=2", "`open_set_fraction` must be above 0 and at most 1", "2.0"),
    ("distill", "--open_set_fraction=1", "less than 1, or there is nothing to train on", "1.0"),
    ("distill", "--embedding_layer=pool", "`embedding_layer` goes with `open_set_fraction`", "'pool'"),
    ("distill", "--teacher_embedding_layer=pool", "`teacher_embedding_layer` goes with `open_set_fraction`", "'pool'"),
    ("distill", "--shuffle_window=100", "`shuffle_window` streams data sets of tensorflow-datasets", "100"),
    ("distill", "--dataset=cifar10 --shuffle_window=0", "`shuffle_window` must be >= 1", "shuffle_window=0"),
    ("distill", "--dataset=cifar10 --batch_size=128 --shuffle_window=64", "must be a batch or more", "batch_size=128"),
    ("distill", "--classes=3", "`classes` must be at least two", "('3',)"),
    ("distill", "--classes=3,3", "`classes` must be at least two, none twice", "('3', '3')"),
    ("distill", "--image_size=0", "`image_size` must be >= 1", "image_size=0"),
    ("distill", "--dataset=pets --max_pixels=0", "`max_pixels` must be >= 1", "max_pixels=0"),
    ("distill", "--max_pixels=64", "`max_pixels` bounds the images of folders", "built in", "64"),
    ("distill", "--nested", "`nested` is for folders of images", "built in", "True"),
    ("distill", "--dataset=pets --labels=t.csv --nested", "`nested` is not read where `labels` is given", "True"),
    ("distill", "--labels=t.csv", "`labels` is for folders of images", "built in", "t.csv"),
    ("distill", "--dataset=pets --labels=", "`labels` must be the path of a table", "''"),
    ("distill", "--decoded_cache=decoded", "`decoded_cache` is for folders of images", "built in", "'decoded'"),
    ("train_teacher", "--skip_bad_images", "`skip_bad_images` is for folders of images", "built in", "True"),
    ("distill", "--check=loud", "--check=loud", "strict"),
    ("distill", "--method=baseline --check=strict", "does not read `check`", "'strict'"),
    ("distill", "--deterministic=maybe", "--deterministic=maybe", "bool"),
    ("train_teacher", "--check=warn", "Unknown command line flag 'check'"),
    ("distill", "--augmentation=flip", "--augmentation=flip", "crop_flip"),
    ("distill", "--augmentation=crop+cutout@sise=1", "'cutout' of `augmentation` has the arguments size", "sise"),
    ("distill", "--augmentation=", "`augmentation` must be one of none, crop", "augmentation=''"),
    ("distill", "--mixup=0", "`mixup` must be > 0; leave it out", "mixup=0.0"),
    ("distill", "--method=tkd --cutmix=1", "make images of two classes", "TripletDistillation", "cutmix=1.0"),
    ("train_teacher", "--cutmix=nan", "`cutmix` must be a finite number", "nan"),
    ("distill", "--precision=float16", "--precision=float16", "mixed_float16"),
    ("distill", "--method=tdk", "--method=tdk", "tkd"),
    ("distill", "--losses=kd:x", "`losses` must be a list of `method`", "'kd:x'"),
    ("distill", "--losses=kd:1e999", "takes a weight >= 0", "'kd:1e999'"),
    ("distill", "--losses=kd@temperature=0", "`temperature` must be a number > 0", "'kd@temperature=0'"),
    ("distill", "--losses=trikd", "A method of `losses` must be one of", "'trikd'"),
    ("distill", "--losses=kd --method=kd", "`losses` are listed in place of a `method`", "'kd'"),
    ("distill", "--schedule_factor=0.5", "`schedule_factor` is read with schedule='step' only", "0.5"),
    ("distill", "--schedule_factor=0.1", "`schedule_factor` is read with schedule='step' only", "0.1"),
    ("distill", "--schedule_epochs=3", "`schedule_epochs` is read with schedule='step' only", "(3,)"),
    ("distill", "--schedule=step", "`schedule_epochs` must be rising epochs", "()"),
    ("distill", "--schedule=step --schedule_epochs=3,2", "`schedule_epochs` must be rising epochs", "(3, 2)"),
    ("distill", "--teacher_path=a --teacher_epochs=3", "not read where `teacher_path` is given", "teacher_epochs=3"),
    (
        "distill",
        "--teacher_path=a --teacher_learning_rate=1",
        "not read where `teacher_path`",
        "teacher_learning_rate=1",
    ),
    ("distill", "--teacher_path=a --teacher_weight_decay=0", "not read where `teacher_path`", "teacher_weight_decay=0"),
    ("distill", "--teacher_path=a --teacher_model=digits_teacher", "not read where `teacher_path`", "'digits_teacher'"),
    ("distill", "--teacher_preprocessing=unit", "`teacher_preprocessing` goes with `teacher_path`", "unit"),
    ("distill", "--teacher_preprocessing=none", "`teacher_preprocessing` goes with `teacher_path`", "none"),
    ("distill", "--teacher_path=a --teacher_preprocessing=keras", "`teacher_preprocessing` must be one of", "'keras'"),
    ("distill", "--teacher_classes=1,2", "`teacher_classes` goes with `teacher_path`", "('1', '2')"),
    (
        "distill",
        "--teacher_outputs=a.npz --teacher_path=b",
        "`teacher_outputs` stand in for a model: give them, or `teacher_path`",
        "a.npz",
    ),
    (
        "distill",
        "--teacher_outputs=a.npz --method=trikd",
        "this run's teacher learns together with the student",
        "--teacher_training=offline",
    ),
    ("distill", "--teacher_outputs=a.npz --method=dml", "learns together with the student", "a.npz"),
    ("distill", "--teacher_outputs=a.npz --method=baseline", "does not read `teacher_outputs`", "a.npz"),
    ("distill", "--teacher_outputs=a.npz --augmentation=crop", "must be for K views", "teacher_views=K", "'crop'"),
    (
        "distill",
        "--teacher_outputs=a.npz --augmentation=crop --teacher_views=2 --negative_classes=teacher",
        "`negative_classes=teacher` needs the classes that the teacher names for the images as they are",
        "Draw them by labels",
    ),
    ("distill", "--teacher_outputs=a.npz --teacher_cache=off", "is for a teacher that is run", "'off'"),
    ("distill", "--teacher_outputs=a.npz --teacher_epochs=3", "not read where `teacher_outputs` is given", "3"),
    ("distill", "--teacher_outputs=a.npz --teacher_preprocessing=unit", "goes with `teacher_path`", "unit"),
    (
        "distill",
        "--teacher_outputs=a.npz --open_set_fraction=0.5 --teacher_embedding_layer=a",
        "does not read `teacher_embedding_layer`",
        "'a'",
    ),
    ("evaluate", "--model_path=m.keras --teacher_outputs=a.npz", "here the teacher itself is run", "--teacher_path"),
    ("export", "--source=s --output=o --teacher_outputs=a.npz", "here the teacher itself is run", "a.npz"),
    ("distill", "--teacher_path=a --teacher_average=logits", "read with several teachers only", "'logits'"),
    ("distill", "--teacher_path=a,b", "`teacher_average` must say what is averaged", "None"),
    ("distill", "--teacher_path=a,a --teacher_average=logits", "must name different files", "('a', 'a')"),
    ("distill", "--teacher_path=a,b --teacher_average=losses --teacher_weights=1,2,3", "2 numbers >= 0", "3.0"),
    ("distill", "--teacher_path=a,b --teacher_average=losses --teacher_weights=1,inf", "2 numbers >= 0", "inf"),
    (
        "distill",
        "--teacher_path=a,b --teacher_average=logits --teacher_weights=confidence",
        "must be losses",
        "'logits'",
    ),
    ("distill", "--teacher_cache=off --teacher_cache_dtype=float16", "not read with teacher_cache='off'", "'float16'"),
    ("distill", "--teacher_cache=", "`teacher_cache` must be 'auto', 'off', 'workdir' or a folder", "''"),
    ("distill", "--teacher_cache=workdir --augmentation=crop", "only where `teacher_views` says how many", "'workdir'"),
    ("distill", "--teacher_views=2", "`teacher_views` must be 1, or not given, without augmentation", "2"),
    ("distill", "--teacher_layers=a --student_layers=b,c", "must be of equal length", "('b', 'c')"),
    ("distill", "--miner=hard", "does not read `miner`", "'hard'"),
    ("distill", "--method=kd --negatives=drawn", "Method 'kd' does not read `negatives`", "'drawn'"),
    ("distill", "--method=kd --generations=2", "Method 'kd' does not read `generations`", "2"),
    ("distill", "--method=dml --anchor=none", "Method 'dml' does not read `anchor`", "'none'"),
    ("distill", "--method=kd --teacher_training=offline", "Method 'kd' does not read `teacher_training`", "'offline'"),
    ("distill", "--method=kd --student_term_reaches_teacher", "does not read `student_term_reaches_teacher`", "True"),
    ("distill", "--method=baseline --baseline=none", "Method 'baseline' does not read `baseline`", "'none'"),
    ("distill", "--existing=ask", "--existing=ask", "overwrite"),
    ("distill", "--learning_rat=1", "learning_rat", "learning_rate"),
    ("distill", "epochs=3", "all settings are flags (--name=value)", "epochs=3"),
    ("train_teacher", "--method=kd", "Unknown command line flag 'method'"),
    ("train_teacher", "--weight_decay=-inf", "`weight_decay` must be a finite number", "-inf"),
    ("train_teacher", "--test_fraction=0.5", "`test_fraction` is not read with `digits`", "0.5"),
    ("evaluate", "", "`model_path` is needed, a .keras file", "None"),
    ("evaluate", "--model_path=m --teacher_preprocessing=unit", "goes with `teacher_path`", "unit"),
    (
        "evaluate",
        "--model_path=m --open_set_fraction=0.5 --teacher_embedding_layer=pool",
        "does not read `teacher_embedding_layer`",
        "'pool'",
    ),
    ("evaluate", "--model_path=m --image_size=-1", "`image_size` must be >= 1", "image_size=-1"),
    # What an unset variable of a shell leaves.
    *[
        ("distill", f"{more} --{name}=".strip(), f"`{name}` must", "leave it out for its default", f"{name}=")
        for name, more in {
            "dataset": "",
            "data_dir": "--dataset=cifar10",
            "classes": "",
            "embedding_layer": "--open_set_fraction=0.5",
            "losses": "",
            "student_model": "",
            "teacher_model": "",
            "teacher_path": "",
            "teacher_layers": "--method=sp",
            "student_layers": "--method=sp",
            "teacher_classes": "--teacher_path=a",
            "teacher_weights": "--teacher_path=a,b --teacher_average=losses",
            "schedule_epochs": "",
            "baseline": "",
        }.items()
    ],
    ("train_teacher", "--classes=", "`classes` must hold a value", "leave it out for its default", "--classes="),
    (
        "evaluate",
        "--model_path=m --teacher_path=",
        "`teacher_path` must hold a value",
        "leave it out",
        "--teacher_path=",
    ),
    ("distill", "--distillation_loss_weights=", "must be 1 number >= 0 for method 'tkd'", "weights=()"),
    ("distill", "--method=", "--method=", "value should be one of"),
    ("distill", "--classes=3,,4", "`classes` must be text that a flagfile can hold: not empty", "('3', '', '4')"),
    ("distill", "--teacher_path=a, --teacher_average=losses", "`teacher_path` must be text", "not empty", "('a', '')"),
    ("distill", "--flagfile={here}/lists.flags --losses=", "`losses` must hold a value or more", "--losses="),
    # Names that flags.flags could not hold.
    ("distill", "--dataset=b\udcff", "`dataset` must be text", "in UTF-8", r"'b\udcff'"),
    ("distill", "--teacher_path=b\udcff", "`teacher_path` must be text", "in UTF-8", r"'b\udcff'"),
    # Flagfiles.
    ("distill", "--flagfile={here}/missing.flags", "must be a text file", "missing.flags", "No such file"),
    ("distill", "--flagfile=", "must be a text file", "''", "No such file"),
    ("distill", "--flagfile={here}", "must be a text file", "{here}", "directory"),
    ("distill", "--flagfile={here}/binary.flags", "must be a text file", "binary.flags", "codec can't decode"),
    ("distill", "--flagfile {here}/binary.flags", "must be a text file", "binary.flags", "codec can't decode"),
    ("distill", "--flagfile={here}/utf16.flags", "must be a text file", "utf16.flags", "codec can't decode"),
    ("distill", "--flagfile={here}/zeros.flags", "must be a text file", "zeros.flags", "no text"),
    ("distill", "--flagfile={here}/marked.flags", "must be a text file", "marked.flags", "byte order mark"),
    ("distill", "--flagfile={here}/itself.flags", "A flagfile must not hold itself", "itself.flags"),
    ("distill", "--flagfile={here}/one.flags", "must not hold itself", "one.flags in", "another.flags"),
    ("distill", "--flagfile={here}/nested.flags", "must be a text file", "nowhere.flags", "No such file"),
    ("distill", "--flagfile={here}/words.flags", "all settings are flags (--name=value)", "epochs = 3"),
    ("distill", "--flagfile={here}/unknown.flags", "learning_rat", "learning_rate"),
    ("distill", "--flagfile={here}/value.flags", "--epochs=3.5", "int"),
    ("distill", "--flagfile={here}/unread.flags", "Method 'kd' does not read `margin`", "5.0"),
]
FLAGFILES = {
    "binary.flags": bytes(range(256)),
    "utf16.flags": "--epochs=3\n".encode("utf-16"),
    "zeros.flags": b"--epochs=3\n\0\0\0\0",
    "marked.flags": "\ufeff--epochs=3\n".encode(),
    "itself.flags": b"--epochs=3\n--flagfile={here}/itself.flags\n",
    "one.flags": b"--flagfile={here}/another.flags\n",
    "another.flags": b"--flagfile={here}/one.flags\n",
    "nested.flags": b"--flagfile={here}/nowhere.flags\n",
    "words.flags": b"epochs = 3\n",
    "unknown.flags": b"--learning_rat=3\n",
    "value.flags": b"--epochs=3.5\n",
    "lists.flags": b"--losses=kd,sp\n",
    "unread.flags": b"--method=kd\n--margin=5\n",
}
# The scripts themselves, each in a fork of a process without TensorFlow, which costs seconds.
FORKS = """
import json, os, runpy, sys
scripts, rows = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, scripts)
import run_flags
for number, (script, arguments) in enumerate(rows):
    child = os.fork()
    if not child:
        output = os.open(f"{number}.out", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.argv = [script + ".py", *arguments]
        code = 0
        try:
            runpy.run_path(os.path.join(scripts, script + ".py"), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, flush=True)
            code = 1 if isinstance(end.code, str) else end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 2
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(100 if {"tensorflow", "keras"} & set(sys.modules) else code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, open(f"{number}.out").read()]), flush=True)
    os.unlink(f"{number}.out")
"""


@pytest.fixture(scope="module")
def flag_errors(tmp_path_factory):
    """Exit code and output of each row of `FLAGS`, all in one folder; and the folder, with its digest before."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    for name, content in FLAGFILES.items():
        (here / name).write_bytes(content.replace(b"{here}", str(here).encode()))
    before = digest(here)
    rows = []
    for script, typed, *_ in FLAGS:
        workdir = [] if script in ("evaluate", "export") else [f"--workdir={here}/run"]
        rows.append((script, [*typed.replace("{here}", str(here)).split(), *workdir]))
    # An argument of several words is one row's alone.
    command = [sys.executable, "-c", FORKS, str(ROOT / "scripts"), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=there, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return here, before, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(FLAGS)), ids=[f"{script} {typed}"[:60] for script, typed, *_ in FLAGS])
def test_bad_flags(number, flag_errors):
    here, before, errors = flag_errors
    code, output = errors[number]
    # 1: an error that was meant, before TensorFlow is imported (100). Nothing was written, by any of them.
    assert code == 1, output
    check_sentence(output, [word.replace("{here}", str(here)) for word in FLAGS[number][2:]])
    assert digest(here) == before


# Configurations and their files.

QUICK = {"epochs": 1, "batch_size": 64, "learning_rate": 0.05}
CONFIGS = {"distill": DistillConfig, "train_teacher": TeacherTrainingConfig, "evaluate": EvaluateConfig}


def write_images(folder, shape=(8, 8, 1), count=4, **classes):
    """Folders of grey or coloured PNGs: a number of them for each class, or `count`."""
    for name in classes or ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(classes.get(name, count)):
            image = np.full(shape, 50 + 10 * number, np.uint8)
            (folder / name / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
    return folder


def flip(path, share):
    """Changes one byte of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[min(int(share * len(content)), len(content) - 1)] ^= 0xFF
    path.write_bytes(content)


def flip_below(part, name, share):
    return lambda folder: flip(folder / part / name, share)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@dataclasses.dataclass
class Given:
    """A teacher that knows digits, the folder of a finished run, and the teacher's outputs."""

    teacher: pathlib.Path
    run: pathlib.Path
    cache: pathlib.Path
    config: DistillConfig
    stored: pathlib.Path


def end_at_once(run, stage, *_, files, **__):
    """A training that ends before its first step."""
    for path, model in files.items():
        save_model(model, path)
    stage.finish([{"loss": 1.0, "val_accuracy": 0.1}], 1.0, files)


def build_teacher():
    """Knows digits without any training: the nearest mean of a class, by |x - m|^2 = |x|^2 - 2 (x m - |m|^2 / 2)."""
    splits = data.load("digits")
    pixels = splits.train_images.reshape(-1, 64) / 255
    means = np.stack([pixels[splits.train_labels == label].mean(axis=0) for label in range(10)])
    inputs = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10, name="logits")
    model = keras.Model(inputs, logits(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))))
    logits.set_weights([means.T, -np.square(means).sum(axis=1) / 2])
    return model


@pytest.fixture(scope="module")
def given(tmp_path_factory, stored):
    folder = tmp_path_factory.mktemp("given")
    teacher, cache = save(build_teacher(), folder / "teacher.keras"), folder / "cache"
    config = DistillConfig(**QUICK, method="kd", teacher_path=teacher, teacher_cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "fit_stage", end_at_once)
        commands.distill(config, folder / "run")
    return Given(teacher, folder / "run", cache, config, stored)


def save(model, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_model(model, path)


def build_dense(outputs=10, shape=(8, 8, 1), **more):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(outputs, **more)(keras.layers.Flatten()(inputs)))


def write_pets(here, given):
    write_images(here / "pets", count=10)


def copy_run(change):
    """What is done to a copy of the finished run, which is then `{here}/run`."""

    def prepare(here, given):
        shutil.copytree(given.run, here / "run")
        change(here / "run")

    return prepare


def copy_cache(change):
    def prepare(here, given):
        shutil.copytree(given.cache, here / "cache")
        change(here / "cache")

    return prepare


def copy_stored(change):
    def prepare(here, given):
        shutil.copytree(given.stored, here / "stored")
        change(here / "stored" / "shades" / "1.0.0")

    return prepare


def copy_teacher(change):
    def prepare(here, given):
        shutil.copy(given.teacher, here / "theirs.keras")
        change(here / "theirs.keras")

    return prepare


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def link_teacher(link):
    """A teacher in the folder of a run, and another way to it."""

    def prepare(here, given):
        (here / "theirs").mkdir()
        shutil.copy(given.teacher, here / "theirs" / "teacher.keras")
        link(here / "theirs" / "teacher.keras", here / "link.keras")

    return prepare


def write_model(make):
    return lambda here, given: save(make(), here / "theirs.keras")


def write_pictures(change=lambda folder: None, **arguments):
    def prepare(here, given):
        change(write_images(here / "pets", **arguments))

    return prepare


def divide(folder):
    """Makes folders `train` and `test` of a folder of class folders."""
    shutil.copytree(folder, folder.with_name("copy"))
    for part in ("train", "test"):
        shutil.copytree(folder.with_name("copy"), folder / part)
    for name in ("cat", "dog", "copy"):
        shutil.rmtree(folder.parent / name if name == "copy" else folder / name)


def link_to_itself(folder):
    (folder / "cat" / "0.png").unlink()
    (folder / "cat" / "0.png").symlink_to(folder / "cat" / "0.png")


def write_results(**change):
    def write(run):
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(results | change))

    return write


GIVEN = {"method": "kd", "teacher_path": "{teacher}"}
THEIRS = {"method": "kd", "teacher_path": "{here}/theirs.keras"}
PETS = {"method": "baseline", "dataset": "{here}/pets"}
SHADES = {"method": "baseline", "dataset": "shades", "data_dir": "{here}/stored"}
CACHED = GIVEN | {"teacher_cache": "{here}/cache"}
SEVERAL = {"method": "kd", "teacher_average": "losses"}
nothing = lambda *_: None  # noqa: E731

# Name, command, settings (`{here}` is a folder of the row's own), what lies there, words of the error.
RUNS = [
    # Data sets by name.
    ("version", "distill", {"dataset": "mnist:9.9.9"}, nothing, "the config and the version", "mnist:9.9.9", "3.0.1"),
    ("no version", "distill", {"dataset": "mnist:1.x.y"}, nothing, "mnist:1.x.y"),
    ("config", "distill", {"dataset": "emnist/runes"}, nothing, "emnist/runes", "BuilderConfig runes not found"),
    ("argument", "distill", {"dataset": "mnist/x=1"}, nothing, "the config and the version", "mnist/x=1"),
    ("colons", "distill", {"dataset": "mnist:::"}, nothing, "mnist:::"),
    ("commas", "distill", {"dataset": "a,b=c"}, nothing, "A data set must be", "a,b=c"),
    ("brackets", "distill", {"dataset": "((("}, nothing, "A data set must be `digits`", "((("),
    ("near", "distill", {"dataset": "digitz"}, nothing, "A data set must be", "digitz", "Nearest names: digits"),
    ("network", "distill", {"dataset": "huggingface:mnist"}, nothing, "A data set must be", "huggingface:mnist"),
    ("no folder", "distill", {"dataset": "{here}/pets"}, nothing, "The folder of images does not exist", "pets"),
    (
        "no data_dir",
        "distill",
        {"dataset": "mnist", "data_dir": "{here}/no"},
        nothing,
        "`data_dir` does not exist",
        "no",
    ),
    ("unprepared", "distill", {"dataset": "mnist", "data_dir": "{here}"}, nothing, "`mnist` is not prepared", "{here}"),
    ("index of classes", "distill", {"classes": ("1", "10")}, nothing, "indices from 0 to 9", "'10'"),
    ("name of classes", "distill", {"classes": ("one", "2")}, nothing, "`classes` must be names", "'one'"),
    # Their sizes.
    (
        "size",
        "distill",
        {"image_size": 100_000},
        nothing,
        "must fit into memory",
        "1,797 of 100,000 x 100,000",
        "17,97",
    ),
    (
        "size of folder",
        "distill",
        PETS | {"image_size": 10**8},
        write_pets,
        "must fit into memory",
        "20 of 100,000,000",
    ),
    (
        "size of stream",
        "train_teacher",
        {"dataset": "shades", "data_dir": "{stored}", "image_size": 10**7, "shuffle_window": 128},
        nothing,
        "must fit into memory",
        "240 of 10,000,000 x 10,000,000 pixels and 3 channels",
    ),
    ("too small", "distill", {"image_size": 2, "method": "baseline"}, nothing, "at least (4, 4, 1)", "(2, 2, 1)"),
    # Folders of images.
    ("empty", "distill", PETS, lambda here, given: (here / "pets").mkdir(), "one folder per class", "pets"),
    ("one class", "distill", PETS, write_pictures(cat=4), "at least 2 classes", "`cat`"),
    ("no images", "distill", PETS, write_pictures(cat=4, dog=0), "must have images in it", "dog"),
    (
        "one image",
        "distill",
        PETS,
        write_pictures(cat=4, dog=1),
        "at least 2 images to be split",
        "1 image of class `dog`",
    ),
    (
        "sizes",
        "distill",
        PETS,
        write_pictures(
            lambda pets: (
                write_images(pets / "x", (9, 8, 1))
                and shutil.move(pets / "x" / "cat", pets / "emu")
                and shutil.rmtree(pets / "x")
            )
        ),
        "Images of different sizes need a common one",
        "9x8",
    ),
    (
        "text",
        "distill",
        PETS,
        write_pictures(lambda pets: (pets / "cat" / "0.png").write_text("no")),
        "PNG or JPEG",
        "0.png",
    ),
    (
        "empty image",
        "distill",
        PETS,
        write_pictures(lambda pets: cut(pets / "cat" / "1.png", 0)),
        "PNG or JPEG",
        "1.png",
    ),
    (
        "cut image",
        "distill",
        PETS,
        write_pictures(lambda pets: cut(pets / "dog" / "2.png", 0.7)),
        "PNG or JPEG",
        "2.png",
    ),
    (
        "flipped",
        "distill",
        PETS,
        write_pictures(lambda pets: flip(pets / "dog" / "3.png", 0.6)),
        "PNG or JPEG",
        "3.png",
    ),
    ("looped", "distill", PETS, write_pictures(link_to_itself), "symbolic links", "cat/0.png"),
    ("own split", "distill", PETS | {"test_fraction": 0.5}, write_pictures(divide), "test images of its own", "0.5"),
    (
        "own classes",
        "distill",
        PETS,
        write_pictures(lambda pets: divide(pets) or shutil.rmtree(pets / "test" / "dog")),
        "`train` and `test` must have the same class folders",
        "`dog`",
    ),
    (
        "folder in data_dir",
        "distill",
        PETS | {"data_dir": "{here}"},
        write_pets,
        "`data_dir` is for data sets",
        "{here}",
    ),
    (
        "nested names",
        "distill",
        {"dataset": "shades", "data_dir": "{stored}", "nested": True},
        nothing,
        "`nested` is for a folder of class folders",
        "nested=True",
    ),
    (
        "no table",
        "distill",
        PETS | {"labels": "{here}/labels.csv"},
        write_pets,
        "`labels` must be a table, a CSV file",
        "labels.csv, which is no file",
    ),
    (
        "table without labels",
        "train_teacher",
        {"dataset": "{here}/pets", "labels": "{here}/labels.csv"},
        write_pictures(lambda pets: (pets.parent / "labels.csv").write_text("file,class\ncat/0.png,cat\n")),
        "must have the columns `file` and `label`",
        "file, class",
    ),
    (
        "file of table",
        "distill",
        PETS | {"labels": "{here}/labels.csv"},
        write_pictures(lambda pets: (pets.parent / "labels.csv").write_text("file,label\n../run/0.png,cat\n")),
        "`file` must be a path inside the folder of images",
        "../run/0.png",
    ),
    (
        "own split of a table",
        "distill",
        PETS | {"labels": "{here}/labels.csv", "test_fraction": 0.5},
        write_pictures(lambda pets: (pets.parent / "labels.csv").write_text("file,label,split\ncat/0.png,cat,train\n")),
        "test images of its own",
        "0.5",
    ),
    (
        "two bad images",
        "distill",
        PETS,
        write_pictures(lambda pets: cut(pets / "cat" / "1.png", 0.7) or (pets / "dog" / "2.png").write_text("no")),
        "Received: 2 of",
        "cat/1.png",
        "dog/2.png",
        "--skip_bad_images",
    ),
    (
        "bad image of a stream",
        "distill",
        PETS | {"shuffle_window": 128},
        write_pictures(lambda pets: cut(pets / "cat" / "1.png", 0.7)),
        "must be a whole",
        "cat/1.png",
    ),
    (
        "folder of something else",
        "distill",
        PETS | {"decoded_cache": "{here}/pets"},
        write_pets,
        "`decoded_cache` (--decoded_cache) must be a folder outside the data set's",
        "pets', which is inside ",
    ),
    (
        "cache in the data",
        "distill",
        PETS | {"decoded_cache": "{here}/pets/cache"},
        write_pets,
        "`decoded_cache` (--decoded_cache) must be a folder outside",
        "pets/cache",
        "Choose another",
    ),
    (
        "open folder",
        "distill",
        PETS | {"open_set_fraction": 0.5},
        write_pets,
        "An open set needs at least 4",
        "cat, dog",
    ),
    ("no folder", "distill", PETS, lambda here, given: (here / "pets").write_text("no"), "does not exist", "pets"),
    # Data sets that tensorflow-datasets prepared.
    (
        "test of tfds",
        "distill",
        {"dataset": "shades", "data_dir": "{stored}", "test_fraction": 0.5},
        nothing,
        "test images of its own",
        "0.5",
    ),
    (
        "cut records",
        "distill",
        SHADES,
        copy_stored(lambda shades: cut(next(shades.glob("*train*00003*")), 0.5)),
        "must have whole files",
        "shades",
    ),
    (
        "flipped records",
        "distill",
        SHADES,
        copy_stored(lambda shades: flip(next(shades.glob("*train*00003*")), 0.5)),
        "must have whole files",
        "shades",
    ),
    (
        "no records",
        "distill",
        SHADES,
        copy_stored(lambda shades: next(shades.glob("*test*")).unlink()),
        "must have whole files",
        "shades",
    ),
    (
        "damaged info",
        "distill",
        SHADES,
        copy_stored(lambda shades: cut(shades / "dataset_info.json", 0.5)),
        "whole files",
        "shades",
    ),
    (
        "damaged features",
        "distill",
        SHADES,
        copy_stored(lambda shades: cut(shades / "features.json", 0.5)),
        "whole files",
        "shades",
    ),
    # Models.
    ("student", "distill", {"student_model": "nosuch"}, nothing, "`student_model` must be a model's name", "'nosuch'"),
    ("near student", "distill", {"student_model": "digits_studnt"}, nothing, "Did you mean 'digits_student'"),
    ("teacher", "distill", {"teacher_model": "nosuch"}, nothing, "`teacher_model` must be a model's name", "'nosuch'"),
    ("its teacher", "train_teacher", {"teacher_model": "nosuch"}, nothing, "`teacher_model` must be", "'nosuch'"),
    ("no student", "distill", {"student_model": "{here}/no.keras"}, nothing, "`student_model` must be", "no.keras"),
    ("no teacher", "distill", THEIRS, nothing, "`teacher_path` must be", "theirs.keras"),
    (
        "no teacher there",
        "distill",
        GIVEN | {"teacher_path": "{here}"},
        nothing,
        "`teacher_path` must be",
        "teacher.keras",
    ),
    (
        "other file",
        "distill",
        GIVEN | {"teacher_path": "{here}/a.onnx"},
        lambda here, given: write(here / "a.onnx", "no"),
        "`teacher_path` must be a file that ends with .keras",
        "a.onnx",
    ),
    (
        "text",
        "distill",
        THEIRS,
        lambda here, given: (here / "theirs.keras").write_text("no"),
        "can be loaded",
        "theirs",
    ),
    ("empty", "distill", THEIRS, lambda here, given: (here / "theirs.keras").touch(), "can be loaded", "theirs.keras"),
    *[
        (f"cut at {share}", "distill", THEIRS, copy_teacher(functools.partial(cut, share=share)), "can be loaded")
        for share in (0.01, 0.3, 0.6, 0.9, 0.99)
    ],
    *[
        (f"byte at {share}", "distill", THEIRS, copy_teacher(functools.partial(flip, share=share)), "can be loaded")
        for share in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
    ],
    ("channels", "distill", THEIRS, write_model(lambda: build_dense(shape=(8, 8, 3))), "(8, 8, 3)"),
    (
        "classes",
        "distill",
        THEIRS,
        write_model(lambda: build_dense(7)),
        "must know the classes of the data",
        "7 outputs",
    ),
    (
        "map",
        "distill",
        THEIRS,
        write_model(lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(10, 3)])),
        "(6, 6, 10)",
    ),
    (
        "two outputs",
        "distill",
        THEIRS,
        write_model(lambda: keras.Model(i := keras.Input((8, 8, 1)), [i, i])),
        "`teacher_output` must be the name or the number of one of the outputs",
        "teacher_output=None",
    ),
    (
        "no such output",
        "distill",
        THEIRS | {"teacher_output": "nosuch"},
        write_model(build_dense),
        "0: dense",
        "teacher_output='nosuch'",
    ),
    (
        "two inputs",
        "distill",
        THEIRS,
        write_model(lambda: keras.Model([a := keras.Input((10,)), b := keras.Input((10,))], a + b)),
        "one input and one output",
    ),
    (
        "a teacher's code",
        "distill",
        THEIRS,
        write_model(lambda: keras.Sequential([build_dense(), keras.layers.Lambda(lambda x: 2 * x)])),
        "the code of a Python lambda, which is never run",
        "--trust_teacher_code",
    ),
    (
        "no such module",
        "distill",
        GIVEN | {"custom_objects": ("no_such_module",)},
        nothing,
        "`custom_objects` must be Python modules that can be imported",
        "'no_such_module'",
    ),
    (
        "a broken SavedModel",
        "distill",
        GIVEN | {"teacher_path": "{here}/saved"},
        lambda here, given: write(here / "saved" / "saved_model.pb", "no"),
        "`teacher_path` must be a SavedModel that can be loaded",
        "{here}/saved",
    ),
    (
        "an ensemble among others",
        "distill",
        GIVEN | {"teacher_path": ("{teacher}", "{here}/theirs.keras"), "teacher_average": "logits"},
        write_model(lambda: TeacherEnsemble([build_dense(), build_dense()], average="logits")),
        "An ensemble is a teacher of its own, and is given alone",
        "an ensemble of 2",
    ),
    (
        "sigmoid",
        "distill",
        {"method": "kd", "student_model": "{here}/theirs.keras"},
        write_model(lambda: build_dense(1)),
        "`num_classes` must be",
        "num_classes=10",
    ),
    (
        "classes by name",
        "distill",
        GIVEN | {"teacher_classes": ("one", "two")},
        nothing,
        "`teacher_classes` must be",
        "'one'",
    ),
    (
        "too few classes",
        "distill",
        GIVEN | {"teacher_classes": ("1", "2")},
        nothing,
        "each of the 10 classes",
        "('1', '2')",
    ),
    ("one of two", "distill", SEVERAL | {"teacher_path": ("{teacher}", "{here}/no.keras")}, nothing, "no.keras"),
    *[
        (
            f"one twice, {how}",
            "distill",
            SEVERAL | {"teacher_path": ("{here}/theirs/teacher.keras", other)},
            prepare,
            "`teacher_path` must name different teachers",
            "{here}/theirs/teacher.keras and",
            "the same file",
        )
        for how, other, prepare in (
            ("spelt", "{here}/theirs/../theirs/teacher.keras", link_teacher(shutil.copy)),
            ("folder", "{here}/theirs", link_teacher(shutil.copy)),
            ("link", "{here}/link.keras", link_teacher(os.symlink)),
            ("hard link", "{here}/link.keras", link_teacher(os.link)),
        )
    ],
    ("scaling", "distill", GIVEN | {"teacher_preprocessing": "caffe"}, nothing, "3 channels", "(8, 8, 1)"),
    (
        "frozen",
        "distill",
        {"method": "kd", "student_model": "{here}/theirs.keras"},
        write_model(lambda: build_dense(trainable=False)),
        "trainable weights",
        "theirs.keras",
    ),
    # Layers, of both models.
    (
        "layer",
        "distill",
        {"method": "sp", "teacher_layers": ("nope",)},
        nothing,
        "no output of that name",
        "'nope'",
        "stage1",
    ),
    ("near layer", "distill", {"method": "sp", "teacher_layers": ("embeding",)}, nothing, "Did you mean 'embedding'"),
    ("its layer", "distill", {"method": "sp", "student_layers": ("nope",)}, nothing, "digits_student", "'nope'"),
    ("given layer", "distill", GIVEN | {"method": "sp", "teacher_layers": ("nope",)}, nothing, "'nope'", "flatten"),
    ("listed layer", "distill", {"losses": ("kd", "sp@student_layers=nope")}, nothing, "digits_student", "'nope'"),
    (
        "pre-activation",
        "distill",
        {"method": "sp", "student_layers": ("features:before",)},
        nothing,
        "After a colon comes",
    ),
    (
        "embedding",
        "distill",
        {"open_set_fraction": 0.4, "embedding_layer": "nope"},
        nothing,
        "--embedding_layer",
        "nope",
    ),
    ("wide embedding", "distill", {"open_set_fraction": 0.4, "embedding_layer": "stage1"}, nothing, "(batch, width)"),
    # Runs that others take up.
    ("baseline", "distill", GIVEN | {"baseline": "{here}"}, nothing, "`baseline` must be 'train', 'none'", "{here}"),
    (
        "baseline in a file",
        "distill",
        GIVEN | {"baseline": "{here}/file"},
        lambda here, given: (here / "file").touch(),
        "`baseline` must be 'train', 'none', or the workdir",
        "{here}/file",
    ),
    (
        "folder of a baseline's results",
        "distill",
        GIVEN | {"baseline": "{here}"},
        lambda here, given: (here / "results.json").mkdir(),
        "{here}/results.json must be a file",
        "move it away",
    ),
    (
        "folder of flags",
        "distill",
        GIVEN,
        lambda here, given: (here / "run" / "flags.flags").mkdir(parents=True),
        "{here}/run/flags.flags must be a file",
        "move it away",
    ),
    (
        "file of logs",
        "distill",
        {},
        copy_run(lambda run: shutil.rmtree(run / "logs", ignore_errors=True) or (run / "logs").touch()),
        "{here}/run/logs must be a folder",
        "move it away",
    ),
    (
        "folder of a model",
        "train_teacher",
        {"epochs": 2},
        lambda here, given: (here / "run" / "teacher.keras").mkdir(parents=True),
        "{here}/run/teacher.keras must be a file",
        "move it away",
    ),
    (
        "file of data",
        "distill",
        {"dataset": "mnist", "data_dir": "{here}/file"},
        lambda here, given: (here / "file").touch(),
        "data_dir",
        "{here}/file",
    ),
    (
        "folder of a teacher",
        "distill",
        THEIRS,
        lambda here, given: (here / "theirs.keras").mkdir(),
        "`teacher_path` must be",
        "theirs.keras",
    ),
    (
        "folder of a model to measure",
        "evaluate",
        {"model_path": "{here}/theirs.keras"},
        lambda here, given: (here / "theirs.keras").mkdir(),
        "`model_path` must be",
        "theirs.keras",
    ),
    (
        "damaged baseline",
        "distill",
        GIVEN | {"baseline": "{here}/run", "workdir": "{here}/new"},
        copy_run(lambda run: cut(run / "results.json", 0.5)),
        "results.json is damaged",
    ),
    (
        "other budget",
        "distill",
        GIVEN | {"baseline": "{run}", "epochs": 2},
        nothing,
        "another budget",
        "epochs 1 there, 2",
    ),
    (
        "baseline of another kind",
        "distill",
        GIVEN | {"baseline": "{here}/run", "workdir": "{here}/new"},
        copy_run(write_results(student=5)),
        "run/results.json cannot be read: `student` must be",
        "student=5",
    ),
    # Caches.
    (
        "cache is a file",
        "distill",
        CACHED,
        lambda here, given: (here / "cache").write_text("no"),
        "cache",
        "{here}/cache",
    ),
    (
        "others in cache",
        "distill",
        CACHED,
        lambda here, given: (here / "cache" / "train").mkdir(parents=True) or (here / "cache" / "train" / "a").touch(),
        "built in a folder of its own",
        "cache/train",
        "a",
    ),
    (
        "others' cache",
        "distill",
        CACHED | {"seed": 1, "augmentation": "crop", "teacher_views": 2},
        copy_cache(nothing),
        "was made from something else",
        "views 1 there, 2 here",
    ),
    (
        "teacher's cache",
        "distill",
        THEIRS | {"teacher_cache": "{cache}"},
        write_model(build_dense),
        "was made from something else",
        "there",
    ),
    ("damaged cache", "distill", CACHED, copy_cache(flip_below("train", "logits.npy", 0.5)), "logits.npy is damaged"),
    # Folders of runs.
    ("file", "distill", GIVEN, lambda here, given: (here / "run").write_text("no"), "must be a folder", "{here}/run"),
    (
        "below a file",
        "distill",
        GIVEN | {"workdir": "{here}/file/run"},
        lambda here, given: (here / "file").touch(),
        "{here}/file",
    ),
    ("no name", "distill", GIVEN | {"workdir": ""}, nothing, "`workdir` must name a folder", "workdir=''"),
    ("lines", "distill", GIVEN | {"workdir": "{here}/a\nb"}, nothing, "`workdir` must be a name on one line", r"/a\nb"),
    ("bytes", "distill", GIVEN | {"workdir": "{here}/b\udcff"}, nothing, "`workdir` must be", "in UTF-8", r"/b\udcff"),
    ("asked", "distill", GIVEN | {"existing": "ask"}, nothing, "`existing` must be 'refuse'", "'ask'"),
    (
        "another",
        "distill",
        GIVEN | {"temperature": 2.0},
        copy_run(nothing),
        "holds another experiment",
        "--temperature=2.0",
    ),
    (
        "whose",
        "distill",
        GIVEN,
        copy_run(lambda run: (run / "flags.flags").unlink()),
        "without flags.flags",
        "student.keras",
    ),
    (
        "whose",
        "distill",
        GIVEN | {"existing": "overwrite"},
        copy_run(lambda run: (run / "flags.flags").unlink()),
        "was never a run's folder",
        "student.keras",
    ),
    (
        "binary flags",
        "distill",
        {},
        copy_run(lambda run: (run / "flags.flags").write_bytes(bytes(range(256)))),
        "flags.flags is damaged",
    ),
    *[
        (
            f"{name} at {share}",
            "distill",
            {},
            copy_run(flip_below("", name, share)),
            name,
            "not the file that the run wrote",
        )
        for name in ("student.keras", "baseline.keras")
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ],
    (
        "cut student",
        "distill",
        {},
        copy_run(lambda run: cut(run / "student.keras", 0.5)),
        "not the file that the run wrote",
    ),
    ("newer", "distill", {}, copy_run(write_results(version=9)), "version=9"),
    # Measuring.
    ("no model", "evaluate", {"model_path": "{here}/no.keras"}, nothing, "`model_path` must be", "no.keras"),
    ("other model", "evaluate", {"model_path": "digits"}, nothing, "`model_path` must be a .keras file", "'digits'"),
    (
        "damaged model",
        "evaluate",
        {"model_path": "{here}/theirs.keras"},
        copy_teacher(functools.partial(cut, share=0.5)),
        "`model_path` must be a Keras model that can be loaded",
        "theirs.keras",
    ),
    ("model of others", "evaluate", {"model_path": "{here}/theirs.keras"}, write_model(lambda: build_dense(3)), "(3,)"),
]


def start(name, settings, here, given, **more):
    """Runs a command as its script does; `settings` are those of its configuration, and `workdir` and `existing`."""
    places = {"here": here, "teacher": given.teacher, "cache": given.cache, "run": given.run, "stored": given.stored}

    def fill(value):
        if isinstance(value, tuple):
            return tuple(map(fill, value))
        return value.format(**places) if isinstance(value, str) and value.startswith("{") else value

    settings = {key: fill(value) for key, value in settings.items()}
    workdir, existing = settings.pop("workdir", here / "run"), settings.pop("existing", "refuse")
    if name == "evaluate":
        return commands.evaluate(EvaluateConfig(**settings))
    config = CONFIGS[name](**QUICK | settings)
    return getattr(commands, name)(config, workdir, existing, **more)


@pytest.fixture
def untrained(monkeypatch):
    """No training begins."""

    def fit_stage(run, stage, *_, **__):
        pytest.fail(f"'{stage.name}' is trained")

    monkeypatch.setattr(stages, "fit_stage", fit_stage)


@pytest.mark.parametrize(
    ("name", "settings", "prepare", "words"),
    [(name, settings, prepare, words) for _, name, settings, prepare, *words in RUNS],
    ids=[row[0] for row in RUNS],
)
def test_bad_files(name, settings, prepare, words, given, tmp_path, untrained):
    prepare(tmp_path, given)
    before = digest(tmp_path)
    # The finished run's own settings, where its files are looked at.
    settings = settings or {field.name: getattr(given.config, field.name) for field in dataclasses.fields(given.config)}
    with pytest.raises(ERRORS) as error:
        start(name, settings, tmp_path, given)
    check_sentence(str(error.value), [word.replace("{here}", str(tmp_path)) for word in words])
    assert digest(tmp_path) == before


# Arguments of the library.

IMAGES = np.zeros((6, 4, 4, 1), np.uint8)
LABELS = [0, 0, 1, 1, 2, 2]


def build_pair(classes=3, **more):
    return build_dense(classes, (4, 4, 1), **more), build_dense(classes, (4, 4, 1))


def make_distiller(loss=None, **arguments):
    return Distiller(*build_pair(), loss or losses.SoftTargets(), **arguments)


def fit(distillation_loss=None, images=IMAGES, labels=LABELS, loss=None):
    distiller = make_distiller(distillation_loss)
    distiller.compile("sgd", loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    labels = labels if isinstance(labels, (np.ndarray, dict)) else np.asarray(labels)
    distiller.fit(images, labels, verbose=0)


def with_pixel(value):
    images = IMAGES.astype("float32")
    images[4, 1, 2, 0] = value
    return images


def triplets(**arguments):
    return data.triplet_dataset(**{"images": IMAGES, "labels": LABELS, "batch_size": 2, "seed": 0} | arguments)


def classes(**arguments):
    sizes = {"classes_per_batch": 2, "samples_per_class": 2, "seed": 0}
    return data.class_batches(**{"images": IMAGES, "labels": LABELS} | sizes | arguments)


def build_cache(here, images=IMAGES, teacher=None, directory="new", **arguments):
    return TeacherCache.build(teacher or build_pair()[0], images, here / directory, progress=False, **arguments)


def write_file(here):
    (here / "new").mkdir(exist_ok=True)
    (here / "new" / "notes.txt").write_text("mine")
    return here


def teacher_of_nan():
    teacher = build_pair()[0]
    teacher.set_weights([np.full_like(weight, math.nan) for weight in teacher.get_weights()])
    return teacher


def restore(here, data=None):
    """Takes up the state of one model in another, or one inside an epoch without data."""
    for_whom = build_dense(3, (4, 4, 1))
    for_whom.compile("sgd", "mse")
    backup = BackupState(here / "backup")
    backup.set_model(for_whom)
    backup.on_train_begin()
    backup.position = (1, 2 if data is None else 0)
    backup.write()
    other = build_dense(4, (4, 4, 1))
    other.compile("sgd", "mse")
    BackupState(here / "backup").restore(other, data)


def shared_student():
    model = build_dense(3, (4, 4, 1))
    return Distiller(model, model, losses.SoftTargets())


crd = functools.partial(losses.ContrastiveRepresentation, labels=[0, 1])
Soft = losses.SoftTargets

# What is called, with a folder of its own, and words of the error.
CALLS = {
    # Distillers.
    "teacher": (lambda here: Distiller("a", build_pair()[1], Soft()), "`teacher` must be a keras.Model", "'a'"),
    "student": (lambda here: Distiller(build_pair()[0], None, Soft()), "`student` must be a keras.Model", "None"),
    "one model": (lambda here: shared_student(), "share no weights"),
    "softmax": (lambda here: Distiller(build_pair(activation="softmax")[0], build_pair()[1], Soft()), "softmax"),
    "no losses": (lambda here: Distiller(*build_pair(), []), "`distillation_losses` must be", "[]"),
    "a name": (lambda here: make_distiller("kd"), "`distillation_losses` must be", "'kd'"),
    "a class": (lambda here: make_distiller(Soft), "`distillation_losses` must be", "SoftTargets"),
    "twice": (lambda here: make_distiller([loss := Soft(), loss]), "must be different objects", "SoftTargets"),
    "no reduction": (lambda here: make_distiller(Soft(reduction=None)), "must have a reduction", "'kd'"),
    "two weights": (
        lambda here: make_distiller(distillation_loss_weights=[1, 2]),
        "one weight for each of the 1",
        "[1, 2]",
    ),
    **{
        f"weight {value}": (
            lambda here, value=value: make_distiller(distillation_loss_weights=[value]),
            "`distillation_loss_weights` must be a number >= 0",
            repr(value),
        )
        for value in (-1.0, math.nan, math.inf, True, "1", None)
    },
    **{
        f"student weight {value}": (
            lambda here, value=value: make_distiller(student_loss_weight=value),
            "`student_loss_weight` must be a number >= 0",
            repr(value),
        )
        for value in (-1.0, math.nan, math.inf, True, "1", None)
    },
    "layers": (
        lambda here: make_distiller(losses.SimilarityPreserving("a", "logits")),
        "no output of that name",
        "'a'",
    ),
    "classes": (
        lambda here: Distiller(build_pair(3)[0], build_pair(4)[1], Soft()),
        "equal shape",
        "3",
        "4",
    ),
    "one output": (lambda here: Distiller(*build_pair(1), Soft()), "two or more", "(None, 1)"),
    "probabilities": (
        lambda here: make_distiller().compile("sgd", "sparse_categorical_crossentropy"),
        "must take logits",
        "from_logits=True",
    ),
    "key": (lambda here: fit(images={"image": IMAGES, "negativ": IMAGES}), "negativ", "negative"),
    "names": (lambda here: fit(labels=list("abcabc")), "class ids, whole numbers", "'a'"),
    "halves": (lambda here: fit(labels=np.array(LABELS) / 2), "class ids, whole numbers", "0.5"),
    "below": (lambda here: fit(losses.DecoupledTargets(), labels=[0, 0, 1, 1, 2, -1]), "label -1", "0 to 2"),
    "many classes": (
        lambda here: fit_rows(),
        "one class each",
        "3 classes",
    ),
    "NaN pixel": (lambda here: fit(images=with_pixel(math.nan)), "not finite"),
    "Inf pixel": (lambda here: fit(images=with_pixel(math.inf)), "not finite"),
    "no teacher": (lambda here: TriKD(None, build_pair()[1]), "`teacher` must be a keras.Model", "None"),
    "temperature": (lambda here: TriKD(*build_pair(), temperature=0), "`temperature` must be a number > 0", "0"),
    "peer weight": (lambda here: TriKD(*build_pair(), peer_weight=-1), "`peer_weight` must be a number >= 0", "-1"),
    "anchor": (lambda here: TriKD(*build_pair(), build_dense(4, (4, 4, 1))), "anchor must name the student's classes"),
    # Losses.
    **{
        f"temperature {value}": (
            lambda here, value=value: Soft(temperature=value),
            "`temperature` must be a number > 0",
            repr(value),
        )
        for value in (0, -1.0, math.nan, math.inf, "4", True, None)
    },
    **{
        f"margin {value}": (
            lambda here, value=value: losses.TripletDistillation(margin=value),
            "`margin` must be a number >= 0",
            repr(value),
        )
        for value in (-1.0, math.nan, -math.inf, "5")
    },
    "tiny temperature": (lambda here: Soft(temperature=1e-300), "`temperature` must be", "float32 holds", "1e-300"),
    "huge margin": (lambda here: losses.TripletLoss(margin=1e39), "`margin` must be", "float32 holds", "1e+39"),
    "plain margin": (lambda here: losses.TripletLoss(margin=math.nan), "`margin` must be a number", "nan"),
    "pairs' margin": (lambda here: losses.PairDistillation(margin=-2), "`margin` must be a number >= 0", "-2"),
    "miner": (lambda here: losses.TripletDistillation(miner="hardest"), "`miner` must be one of", "'hardest'"),
    "no miner": (lambda here: losses.TripletLoss(miner=["hard"]), "`miner` must be one of", "['hard']"),
    "whose": (lambda here: losses.TripletDistillation(negative_classes="x"), "`negative_classes` must be", "'x'"),
    "layer": (lambda here: losses.Hint(5, 5), "`teacher_layers` must be None", "5"),
    "no layers": (lambda here: losses.AttentionTransfer([], []), "`teacher_layers` must be None", "[]"),
    "other layers": (lambda here: losses.AttentionTransfer(["a"], ["b", "c"]), "of equal length", "['b', 'c']"),
    "shapes": (lambda here: Soft()([[1.0, 2.0]], [[1.0, 2.0, 3.0]]), "equal shape", "(1, 2) and (1, 3)"),
    "no labels": (lambda here: losses.DecoupledTargets()([[1.0, 2.0]], [[1.0, 2.0]]), "reads labels", "y_true"),
    "alpha": (lambda here: losses.DecoupledTargets(alpha=-1.0), "`alpha` must be a number >= 0", "-1.0"),
    "gamma": (lambda here: losses.NormalizedTargets(gamma=math.inf), "`gamma` must be a number >= 0", "inf"),
    "one class": (lambda here: crd(labels=[1, 1]), "two classes or more", "1 classes"),
    "names to crd": (lambda here: crd(labels=["a", "b"]), "class ids", "'a'"),
    "momentum": (lambda here: crd(momentum=1.0), "`momentum` must be in [0, 1)", "momentum=1.0"),
    "momentum nan": (lambda here: crd(momentum=math.nan), "`momentum` must be in [0, 1)", "nan"),
    "no negatives": (lambda here: crd(negatives=0), "must be >= 1", "negatives=0"),
    "half precision": (lambda here: crd(dtype="float16"), "must be float32 or float64", "'float16'"),
    # Methods and miners.
    "method": (lambda here: methods.combine("kdd"), "must be one of", "'kdd'"),
    "nothing": (lambda here: methods.combine(""), "`losses` must be a list", "''"),
    "argument": (lambda here: methods.combine("kd@margin=1"), "knows the arguments temperature", "'kd@margin=1'"),
    "not above": (lambda here: methods.combine("tkd@margin=-1"), "`margin` must be a number >= 0", "'tkd@margin=-1'"),
    "no seed": (lambda here: miners.random_other_class(LABELS), "`random_other_class` needs `seed`", "None"),
    "no distances": (lambda here: miners.hard(LABELS), "`hard` needs `distances`", "None"),
    "no positives": (
        lambda here: miners.semi_hard(LABELS, distances=np.zeros((6, 6))),
        "`semi_hard` needs `positive_distances`",
        "None",
    ),
    # Pipelines.
    **{
        f"batch size {value}": (
            lambda here, value=value: triplets(batch_size=value),
            "`batch_size` must be >= 1",
            repr(value),
        )
        for value in (0, -1, 1.5, "8", math.nan, None, True)
    },
    **{
        f"seed {value}": (
            lambda here, value=value: triplets(seed=value),
            "`seed` must be in [0,",
            repr(value),
        )
        for value in (-1, 2**30, 0.5, "0", None, True)
    },
    **{
        f"views {value}": (
            lambda here, value=value: triplets(views=value),
            "`views` must be >= 1, or None",
            repr(value),
        )
        for value in (0, -2, 1.5, "2")
    },
    **{
        f"epoch {value}": (
            lambda here, value=value: triplets(initial_epoch=value),
            "`initial_epoch` must be >= 0",
            repr(value),
        )
        for value in (-1, 0.5, "1")
    },
    **{
        f"step {value}": (
            lambda here, value=value: triplets(initial_step=value),
            "`initial_step` must be",
            repr(value),
        )
        for value in (-1, 3, 0.5, "1")
    },
    "images": (lambda here: triplets(images=IMAGES[:5]), "one class id for each image", "5 images", "(6,)"),
    "no images": (lambda here: triplets(images=IMAGES[:0], labels=[]), "one class id for each image", "0 images"),
    "one-hot": (lambda here: triplets(labels=np.eye(6)), "argmax", "(6, 6)"),
    "names of classes": (lambda here: triplets(labels=list("abcabc")), "return_inverse=True", "'a'"),
    "NaN label": (lambda here: triplets(labels=[0, 0, 1, 1, 2, math.nan]), "whole numbers", "nan"),
    "one label": (lambda here: triplets(labels=[1] * 6), "two classes or more", "[1]"),
    "negatives": (lambda here: triplets(negatives="hard"), '`negatives` must be "other_class" or None', "'hard'"),
    "positives": (lambda here: triplets(positives=True), '`positives` must be "same_class" or None', "True"),
    "teacher's images": (lambda here: triplets(teacher_images=IMAGES[:2]), "`teacher_images` must hold", "2"),
    "augmentation": (lambda here: triplets(augment="crop"), "`augment` must be a function", "'crop'"),
    "partners": (
        lambda here: data.pair_dataset(IMAGES, LABELS, 2, seed=0, partner_labels=[0]),
        "`partner_labels` must hold",
        "(1,)",
    ),
    "many classes per batch": (lambda here: classes(classes_per_batch=4), "at most the number of classes", "4"),
    "no samples per class": (lambda here: classes(samples_per_class=0), "`samples_per_class` at least 1", "0"),
    "half a class": (lambda here: classes(classes_per_batch=1.5), "whole number", "1.5"),
    "validation": (lambda here: data.load("digits").with_validation(1.0, 0), "less than 1", "fraction=1.0"),
    "classes of digits": (lambda here: data.load("digits").with_classes(["a", "b"]), "`classes` must be names", "'a'"),
    "pair of sizes": (lambda here: data.load("digits", image_size=(8, 0)), "`image_size` must be a positive", "(8, 0)"),
    "pixels": (lambda here: data.load("digits", image_size=10**9), "must fit into memory", "1,000,000,000"),
    # Callbacks.
    **{
        f"warm-up {value}": (
            lambda here, value=value: WarmUp(value),
            "`epochs` must be >= 1",
            repr(value),
        )
        for value in (0, -1, math.nan, "3", None)
    },
    **{
        f"every {value}": (
            lambda here, value=value: TerminateOnNonFinite(every=value),
            "`every` must be >= 1",
            repr(value),
        )
        for value in (0, -5, 0.5, "50")
    },
    **{
        f"every_steps {value}": (
            lambda here, value=value: BackupState(here, every_steps=value),
            "`every_steps` must be above 0, or None",
            repr(value),
        )
        for value in (0, -1, math.nan, math.inf, "5")
    },
    "every_minutes": (lambda here: BackupState(here, every_minutes=-0.5), "`every_minutes` must be above 0", "-0.5"),
    # Teacher caches.
    "no views": (lambda here: build_cache(here, views=0), "`views` must be", "0"),
    "views of one": (lambda here: build_cache(here, views=2), "1 without `augment`", "views=2"),
    "whole numbers": (
        lambda here: build_cache(here, dtype="int8"),
        "`dtype` must be one of float16, float32",
        "'int8'",
    ),
    "no image": (lambda here: build_cache(here, IMAGES[:0]), "`images` must hold a sample or more", "none"),
    "no batch": (lambda here: build_cache(here, batch_size=0), "`batch_size` must be", "0"),
    "other images": (lambda here: build_cache(here, np.zeros((2, 5, 5, 3))), "shape"),
    "no teacher of a cache": (lambda here: build_cache(here, teacher="a"), "`teacher` must be a keras.Model", "'a'"),
    "nowhere": (lambda here: TeacherCache.open(here / "new"), "There is no teacher cache in", "new"),
    # Ensembles of teachers.
    "no teachers": (lambda here: TeacherEnsemble([], average="losses"), "`teachers` must be a list of at least", "[]"),
    "names of teachers": (lambda here: TeacherEnsemble(["a"], average="losses"), "`teachers` must be", "['a']"),
    "one twice": (lambda here: TeacherEnsemble([build_pair()[0]] * 2, average="losses"), "must be different models"),
    "average": (lambda here: TeacherEnsemble(build_pair(), average="mean"), "`average` must be one of", "'mean'"),
    "softmaxes": (
        lambda here: TeacherEnsemble(build_pair(activation="softmax"), average="losses"),
        "softmax",
    ),
    "other classes": (
        lambda here: TeacherEnsemble([build_pair(3)[0], build_pair(4)[0]], average="logits"),
        "must have the same classes",
        "(None, 3)",
    ),
    "confidence": (
        lambda here: TeacherEnsemble(build_pair(), average="logits", teacher_weights="confidence"),
        "goes with `average='losses'`",
        "'logits'",
    ),
    **{
        f"weights {value}": (
            lambda here, value=value: TeacherEnsemble(build_pair(), average="logits", teacher_weights=value),
            "`teacher_weights` must be",
        )
        for value in ([1.0], [0, 0], [1, -1], [1, math.nan], "sure", 1.0, [1, "a"])
    },
    "scaling": (lambda here: teachers.with_preprocessing(build_pair()[0], "keras"), "`mode` must be one of", "'keras'"),
    "colours": (lambda here: teachers.with_preprocessing(build_pair()[0], "caffe"), "3 channels", "(4, 4, 1)"),
    "chosen": (lambda here: teachers.with_classes(build_pair()[0], [0, 3]), "from 0 to 2", "[0, 3]"),
    "chosen twice": (lambda here: teachers.with_classes(build_pair()[0], [1, 1]), "none twice", "[1, 1]"),
    "model": (lambda here: models.build("nosuch", (8, 8, 1), 10), "`name` must be a model's name", "'nosuch'"),
    "no shape": (lambda here: models.build("digits_student", (8, 8), 10), "`image_shape` must be", "(8, 8)"),
    "no classes": (lambda here: models.build("digits_student", (8, 8, 1), 0), "`num_classes` must be", "0"),
}


def fit_rows():
    fit(labels=np.ones((6, 3)), loss=keras.losses.CategoricalCrossentropy(from_logits=True))


@pytest.mark.parametrize("name", CALLS)
def test_bad_arguments(name, tmp_path):
    call, *words = CALLS[name]
    with pytest.raises(ERRORS) as error:
        call(tmp_path)
    check_sentence(str(error.value), words)
    assert digest(tmp_path) == {}


# What is only known when a folder was begun: what was whole there stays.
OUTPUTS = {
    "NaN pixel": (lambda here: build_cache(here, with_pixel(math.nan)), "sample 4", "nor are its pixels"),
    "Inf pixel": (lambda here: build_cache(here, with_pixel(-math.inf)), "sample 4", "nor are its pixels"),
    "NaN weights": (lambda here: build_cache(here, teacher=teacher_of_nan()), "sample 0", "the teacher is at fault"),
    "others": (lambda here: build_cache(write_file(here)), "in a folder of its own", "notes.txt"),
    "too few data": (restore, "is taken up with `data`", "epoch 1, step 2"),
    "another model": (lambda here: restore(here, data=()), "are of another model", "backup"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_bad_outputs(name, tmp_path):
    call, *words = OUTPUTS[name]
    with pytest.raises(ERRORS) as error:
        call(tmp_path)
    check_sentence(str(error.value), words)


# What is done to the files of a cache, and words of the error.
CACHES = [
    *[
        (f"{name} at {share:.2f}", flip_below("", name, share), name)
        for name in ("manifest.json", "progress.json", "logits.npy")
        for share in np.linspace(0, 1, 12)
    ],
    ("cut", lambda cache: cut(cache / "logits.npy", 0.9), "logits.npy is truncated", "build it anew"),
    ("no outputs", lambda cache: (cache / "logits.npy").unlink(), "logits.npy is truncated"),
    ("no progress", lambda cache: (cache / "progress.json").unlink(), "is not finished", "0 of"),
    ("no manifest", lambda cache: (cache / "manifest.json").unlink(), "There is no teacher cache in"),
    ("a list", lambda cache: (cache / "manifest.json").write_text("[1]"), "manifest.json", "must hold a JSON object"),
    ("no JSON", lambda cache: (cache / "progress.json").write_text("{"), "progress.json", "holds no JSON"),
]


@pytest.mark.parametrize(
    ("damage", "words"), [(damage, words) for _, damage, *words in CACHES], ids=[row[0] for row in CACHES]
)
def test_damaged_caches(damage, words, given, tmp_path):
    shutil.copytree(given.cache / "train", tmp_path / "cache")
    TeacherCache.open(tmp_path / "cache")
    damage(tmp_path / "cache")
    before = digest(tmp_path)
    with pytest.raises(ValueError) as error:
        TeacherCache.open(tmp_path / "cache")
    check_sentence(str(error.value), words)
    assert digest(tmp_path) == before


@pytest.mark.parametrize("share", np.linspace(0, 1, 12))
def test_of_checkpoints_the_newest_whole_one_is_used(share, tmp_path, capsys):
    files = CheckpointFiles(tmp_path)
    for epoch in (1, 2):
        files.write(epoch, 0, [np.full((40, 10), epoch, "float32")], {"epoch": epoch})
    newest = tmp_path / "epoch-000002-step-000000000.npz"
    flip(newest, share)
    before = digest(tmp_path)
    assert files.read_newest().epoch == 1
    check_sentence(capsys.readouterr().out, [f"{newest} is damaged, and is not used"])
    assert digest(tmp_path) == before


def test_there_are_so_many():
    assert len(FLAGS) + len(RUNS) + len(CALLS) + len(OUTPUTS) + len(CACHES) >= 120


# And then the right one.


@pytest.fixture
def trained_in_no_time(monkeypatch):
    monkeypatch.setattr(stages, "fit_stage", end_at_once)


def test_what_a_teacher_at_chance_began_is_no_run_of_its_own(given, tmp_path, trained_in_no_time):
    save(build_dense(kernel_initializer="zeros"), tmp_path / "theirs.keras")
    with pytest.raises(ValueError, match="more than chance"):
        start("distill", THEIRS | {"check": "strict"}, tmp_path, given)
    assert start("distill", GIVEN, tmp_path, given)["student"]


def test_the_right_command_works_in_the_same_folder(given, tmp_path, trained_in_no_time):
    """After bad settings of all kinds."""
    settings = [settings for _, name, settings, prepare, *_ in RUNS if name == "distill" and prepare is nothing]
    assert len(settings) > 20
    for each in settings[::4]:
        with pytest.raises(ERRORS):
            start("distill", {"workdir": tmp_path / "run"} | each, tmp_path, given)
    results = start("distill", GIVEN, tmp_path, given)
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["teacher"]["test_accuracy"] > 0.2 and results["student"]


@pytest.mark.parametrize("change", [{"student": 5}, {"student": None}, {"seed": "a"}, {"files": None}, {"files": {}}])
def test_results_of_another_kind_are_named_and_measured_again(change, given, tmp_path, untrained, capsys):
    shutil.copytree(given.run, tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    before = json.loads(path.read_text())
    write_results(**change)(tmp_path / "run")
    after = commands.distill(given.config, tmp_path / "run")
    said = capsys.readouterr().out
    assert str(path) in said and "is measured again" in said and "Finished already" not in said
    assert after["student"] == before["student"] and json.loads(path.read_text())["files"] == before["files"]


@pytest.mark.parametrize("weights", ["same", "other", "same behind another scaling"])
def test_a_teacher_that_changed_since_the_run_was_finished_is_refused(
    weights, given, tmp_path, trained_in_no_time, capsys
):
    """A file that holds the same weights, saved anew, is the same teacher."""
    path, settings = tmp_path / "theirs.keras", THEIRS | {"teacher_cache": "off"}
    shutil.copy(given.teacher, path)
    results = start("distill", settings, tmp_path, given)
    before, kept = digest(tmp_path / "run"), path.read_bytes()
    model = build_teacher()
    if weights == "other":
        model.layers[-1].bias.assign_add(np.full(10, 0.5))
    elif weights != "same":
        model.layers[1].scale = 1 / 16
    save(model, path)
    assert path.read_bytes() != kept
    if weights != "same":
        what = "weights" if weights == "other" else "layers"
        with pytest.raises(
            ValueError, match=f"began with another teacher: the {what} of --teacher_path have.* changed"
        ):
            start("distill", settings, tmp_path, given)
        assert digest(tmp_path / "run") == before
    else:
        assert start("distill", settings, tmp_path, given)["student"] == results["student"]
    said = capsys.readouterr().out
    assert f"The file of --teacher_path={path} has changed since the run" in said and "Finished already" not in said
    # And then it is the one that the run knows.
    if weights != "same":
        path.write_bytes(kept)
    start("distill", settings, tmp_path, given)
    assert "Finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # Another picture of the same name, and of the same size.
        (lambda pets: shutil.copy(pets / "cat" / "0.png", pets / "cat" / "9.png"), "images of "),
        (lambda pets: os.rename(pets / "cat", pets / "cow"), "names of the classes"),
        (lambda pets: (pets / "dog" / "9.png").unlink(), "labels of "),
    ],
)
def test_data_that_changed_since_the_run_began_are_refused(change, words, given, tmp_path, monkeypatch):
    def stop(run, stage, *_, **__):
        stage.checkpoints.mkdir(parents=True, exist_ok=True)
        (stage.checkpoints / "state").touch()
        raise InterruptedError

    monkeypatch.setattr(stages, "fit_stage", stop)
    write_images(tmp_path / "pets", count=10)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            start("distill", PETS, tmp_path, given)
    before = digest(tmp_path / "run")
    change(tmp_path / "pets")
    with pytest.raises(ValueError, match=f"began with other data: .*{words}.*Put them back"):
        start("distill", PETS, tmp_path, given)
    assert digest(tmp_path / "run") == before


@pytest.mark.parametrize("role", ["student", "baseline"])
def test_a_damaged_model_that_is_removed_is_made_again_alone(role, given, tmp_path, monkeypatch):
    trained = []

    def fit_stage(run, stage, *arguments, **more):
        trained.append(stage.name)
        end_at_once(run, stage, *arguments, **more)

    monkeypatch.setattr(stages, "fit_stage", fit_stage)
    shutil.copytree(given.run, tmp_path / "run")
    flip(tmp_path / "run" / f"{role}.keras", 0.5)
    with pytest.raises(ValueError, match="remove it, and the run makes it again"):
        commands.distill(given.config, tmp_path / "run")
    (tmp_path / "run" / f"{role}.keras").unlink()
    assert commands.distill(given.config, tmp_path / "run")[role] and trained == [role]


def test_damaged_flags_are_overwritten_where_that_is_asked_for(given, tmp_path, trained_in_no_time):
    shutil.copytree(given.run, tmp_path / "run")
    (tmp_path / "run" / "flags.flags").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="pass --existing=overwrite"):
        commands.distill(given.config, tmp_path / "run")
    results = commands.distill(given.config, tmp_path / "run", "overwrite")
    assert results["flags"] == (tmp_path / "run" / "flags.flags").read_text().splitlines()[1:]


def test_flags_that_a_flagfile_has_for_other_runs_may_stand(tmp_path):
    """Of the teacher's training, where a teacher is given; those that are typed may not."""
    flagfile = tmp_path / "kd.flags"
    flagfile.write_text("--method=kd\n--teacher_epochs=3\n--teacher_model=tkd_teacher\n--teacher_learning_rate=0.5\n")
    code = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import run_flags
from absl import flags
from keras_tkd.config import DistillConfig
run_flags.define(DistillConfig)
flags.FLAGS(sys.argv)
print(run_flags.read(DistillConfig))
"""
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), f"--flagfile={flagfile}"]
    alone, with_teacher, typed = (
        subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
        for more in ([], ["--teacher_path=a.keras"], ["--teacher_path=a.keras", "--teacher_epochs=3"])
    )
    assert "teacher_epochs=3" in alone.stdout and "teacher_model='tkd_teacher'" in alone.stdout
    assert "teacher_epochs=None" in with_teacher.stdout and "teacher_model='digits_teacher'" in with_teacher.stdout
    assert "teacher_learning_rate=None" in with_teacher.stdout and "teacher_path=('a.keras',)" in with_teacher.stdout
    assert typed.returncode == 1 and "not read where `teacher_path` is given" in typed.stderr


def test_the_script_ends_with_one_sentence_of_what_only_tensorflow_datasets_knows(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "distill.py"), "--dataset=mnist:9.9.9", "--workdir=run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "mnist:9.9.9" in done.stderr and digest(tmp_path) == {}
