"""Distils on two logical CPU devices by a loss with a BatchNorm of its own: run by the tests, as a process.

    python loss_statistics.py FOLDER TEACHER

Prints what the devices have of its moving mean, as JSON: before the validation of an epoch, and after it.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Two devices of a process wait for each other, which takes a thread each.
os.environ.pop("TF_NUM_INTEROP_THREADS", None)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_tkd.config import DistillConfig  # noqa: E402
from keras_tkd.runs import distill  # noqa: E402


class Look(keras.callbacks.Callback):
    """Keeps the moving mean that each device has, by when that was."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def on_train_batch_end(self, batch, logs=None):
        self.found["before"] = self._read()

    def on_epoch_end(self, epoch, logs=None):
        self.found["after"] = self._read()

    def _read(self):
        (projector,) = self.model.loss_layers
        (mean,) = (variable for variable in projector.non_trainable_variables if "mean" in variable.path)
        return [own.numpy().tolist() for own in self.model.distribute_strategy.experimental_local_results(mean.value)]


def main(folder, teacher):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    # What makes a graph run fast costs more than it saves where each runs a few times.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    settings = {"dataset": "digits", "train_fraction": 0.06, "batch_size": 16, "epochs": 1, "baseline": "none"}
    settings |= {"student_model": "digits_student", "teacher_path": (teacher,), "teacher_cache": "off"}
    settings |= {"method": "fitnet", "gather": "local", "distribution": "mirrored"}
    look = Look()
    distill(DistillConfig(**settings, check="off", tensorboard="off"), folder, callbacks=[look])
    print(json.dumps(look.found))


if __name__ == "__main__":
    main(*sys.argv[1:])
