"""Runs of several kinds, one after another, on one device or several: run by the tests, as a process.

    python device_runs.py DISTRIBUTION FOLDER DATA TEACHERS

`mirrored` has two logical CPU devices. TEACHERS is a folder with the teachers, DATA one with the data set `shades`.
"""

import os
import pathlib
import runpy
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Two devices of a process wait for each other, which takes a thread each.
os.environ.pop("TF_NUM_INTEROP_THREADS", None)

KINDS = "streamed", "ensemble", "new_head", "trikd"
SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "distill.py"
COMMON = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 0.02,
    "student_model": "digits_student",
    "baseline": "none",
    "check": "off",
    "tensorboard": "off",
    "teacher_cache": "off",
}
# 89 images, six steps, of which the last is of nine.
DIGITS = {"dataset": "digits", "train_fraction": 0.06}


def list_settings(data, teachers):
    """Settings of each kind; no model that is trained has BatchNorm, whose statistics are each device's own."""
    one, two, foreign = (str(pathlib.Path(teachers) / f"{name}.keras") for name in ("one", "two", "foreign"))
    stored = {"dataset": "shades", "data_dir": str(data), "shuffle_window": 50, "batch_size": 32}
    streamed = {"teacher_cache": "workdir", "augmentation": "crop_flip", "teacher_views": 2, "teacher_epochs": 1}
    return {
        # The first one is run by its script: its teacher is trained too.
        "streamed": stored | streamed | {"method": "tkd", "teacher_model": "digits_student"},
        "ensemble": DIGITS
        | {"method": "kd", "teacher_path": f"{one},{two}", "teacher_average": "losses"}
        | {"precision": "mixed_float16"},
        "new_head": DIGITS | {"method": "sp", "teacher_path": foreign, "teacher_head": "new", "teacher_epochs": 1},
        "trikd": DIGITS | {"method": "trikd", "anchor": "random", "teacher_model": "digits_student"},
    }


def main(distribution, folder, data, teachers):
    import keras
    import tensorflow as tf

    if distribution == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    # What makes a graph run fast costs more than it saves where each runs a few times.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    from keras_tkd.config import DistillConfig
    from keras_tkd.runs import distill

    kinds = list_settings(data, teachers)
    first, *others = KINDS
    settings = kinds[first]
    flags = [f"--{name}={value}" for name, value in (COMMON | settings | {"distribution": distribution}).items()]
    sys.argv = [str(SCRIPT), *flags, f"--workdir={folder}/{first}"]
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    for kind in others:
        keras.utils.clear_session()
        settings = COMMON | kinds[kind] | {"distribution": distribution}
        if "teacher_path" in settings:
            settings["teacher_path"] = settings["teacher_path"].split(",")
        distill(DistillConfig(**settings), f"{folder}/{kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
