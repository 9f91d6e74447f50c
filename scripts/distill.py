"""Distils a teacher into a student, beside the same student trained alone.

python scripts/distill.py --flagfile=flags/digits/tkd.flags --workdir=runs/digits_tkd

Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import early_signals  # noqa: F401 (first, for it acts when it is imported)
import run_flags
import workers
from absl import flags

from keras_tkd.config import DistillConfig

run_flags.define(DistillConfig)
run_flags.define_workdir()
workers.define()


def main():
    config = run_flags.read(DistillConfig)
    workers.start_workers(config)
    commands = run_flags.import_commands(config.deterministic, config.distribution)
    results = commands.distill(config, flags.FLAGS.workdir, flags.FLAGS.existing)
    if run_flags.is_chief(config):
        run_flags.show([results], [flags.FLAGS.workdir])
        run_flags.show_report(flags.FLAGS.workdir)


if __name__ == "__main__":
    run_flags.run(main)
