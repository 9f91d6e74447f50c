"""Tunes methods, and the student alone by as many trials, on images that are held out of the training images.

python scripts/tune.py --flagfile=flags/digits/kd.flags --methods=kd,tkd --trials=20 --workdir=runs/digits_tuning

Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import early_signals  # noqa: F401, I001 (first, for it acts when it is imported)

import run_flags
from absl import flags

from keras_tkd.config import DistillConfig

run_flags.define(DistillConfig)
flags.DEFINE_list(
    "methods",
    None,
    "Methods to tune, and the student alone: names as in --method, or lists of losses with + between: kd,sp,kd+tkd.",
    required=True,
)
flags.DEFINE_integer("trials", 20, "Trials of each method, and of the student alone.")
flags.DEFINE_list("seeds", "100", "Seeds of each trial's students, which are not those to confirm the outcome by.")
flags.DEFINE_list(
    "space",
    None,
    "Ranges in place of the defaults: learning_rate=0.01..0.2,temperature=1..8, of one method kd.weight=0.1..10, or a "
    "value: tkd.margin=5.",
)
flags.DEFINE_integer(
    "parallel", 1, "Methods at once, in processes of their own that share the cores and the memory of the machine."
)
flags.DEFINE_string("workdir", None, "Folder of the tuning; the same command goes on with it.", required=True)


def main():
    config = run_flags.read_shared()
    seeds = run_flags.read_seeds()
    run_flags.share_devices(flags.FLAGS.parallel)
    run_flags.import_commands(config.deterministic)
    from keras_tkd.runs import tune

    space = flags.FLAGS.space or ()
    tune(config, flags.FLAGS.workdir, flags.FLAGS.methods, flags.FLAGS.trials, seeds, space, flags.FLAGS.parallel)


if __name__ == "__main__":
    run_flags.run(main)
