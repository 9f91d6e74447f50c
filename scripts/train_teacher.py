"""Trains a teacher on the labels.

python scripts/train_teacher.py --flagfile=flags/digits/teacher.flags --workdir=runs/digits_teacher

Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import early_signals  # noqa: F401 (first, for it acts when it is imported)
import run_flags
import workers
from absl import flags

from keras_tkd.config import TeacherTrainingConfig

run_flags.define(TeacherTrainingConfig)
run_flags.define_workdir()
workers.define()


def main():
    config = run_flags.read(TeacherTrainingConfig)
    workers.start_workers(config)
    commands = run_flags.import_commands(config.deterministic, config.distribution)
    results = commands.train_teacher(config, flags.FLAGS.workdir, flags.FLAGS.existing)
    if run_flags.is_chief(config):
        run_flags.show([results], [flags.FLAGS.workdir])


if __name__ == "__main__":
    run_flags.run(main)
