"""The main job on a small data set, digits: which methods help a small student, over three seeds.

python scripts/demo.py

Each method has the settings that scripts/tune.py chose for it, on images held out of the training images and by other
seeds than these. Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import os
import sys

import early_signals  # noqa: F401 (first, for it acts when it is imported)
import run_flags
from absl import flags

from keras_tkd.config import DistillConfig

FLAGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "flags", "digits")
# The flagfile of each method's own settings.
METHODS = {
    "baseline": "baseline_tuned",
    "tkd": "tkd_tuned",
    "kd": "kd_tuned",
    "sp": "sp_tuned",
    "tkd+kd": "tkd_kd_tuned",
}
SEEDS = (0, 1, 2)
# Networks of this size leave a second core idle.
PARALLEL = 2
WORKDIR = os.path.join("runs", "demo")
run_flags.define(DistillConfig)


def main():
    # Of this the comparison takes what all methods share: data, networks, epochs, the teacher's training. What was
    # given on the command line comes after it, or it would be passed over without a word.
    flags.FLAGS(["demo", f"--flagfile={os.path.join(FLAGS, 'tkd.flags')}", *sys.argv[1:]])
    config = run_flags.read(DistillConfig)
    run_flags.share_devices(PARALLEL)
    run_flags.import_commands(config.deterministic)
    from keras_tkd.runs import compare

    methods = [f"{name}={os.path.join(FLAGS, file)}.flags" for name, file in METHODS.items()]
    run_flags.show_comparison(compare(config, WORKDIR, methods, SEEDS, PARALLEL), WORKDIR)


if __name__ == "__main__":
    run_flags.run(main)
