"""The main job on a small data set: digits, a teacher, a student alone, and the student distilled; over three seeds.

python scripts/demo.py

Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import os

import early_signals  # noqa: F401 (first, for it acts when it is imported)
import run_flags
from absl import flags

from keras_tkd.config import DistillConfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEEDS = (0, 1, 2)
run_flags.define(DistillConfig)


def main():
    flags.FLAGS(["demo", f"--flagfile={os.path.join(ROOT, 'flags', 'digits', 'tkd.flags')}"])
    commands = None
    runs, workdirs = [], []
    for seed in SEEDS:
        flags.FLAGS.seed = seed
        config = run_flags.read(DistillConfig)
        commands = commands or run_flags.import_commands(config.deterministic)
        workdirs.append(os.path.join("runs", "demo", f"seed{seed}"))
        print(f"Seed {seed} of {SEEDS}", flush=True)
        runs.append(commands.distill(config, workdirs[-1]))
    run_flags.show(runs, workdirs)


if __name__ == "__main__":
    run_flags.run(main)
