"""Measures a saved model on a data set's test images, beside its teacher if one is given.

python scripts/evaluate.py --dataset=digits --model_path=runs/digits_tkd/student.keras

Sets TF_ENABLE_ONEDNN_OPTS=1, which trains faster on CPUs, unless that variable is set already.
"""

import json

import early_signals  # noqa: F401 (first, for it acts when it is imported)
import run_flags

from keras_tkd.config import EvaluateConfig

run_flags.define(EvaluateConfig)


def main():
    config = run_flags.read(EvaluateConfig)
    commands = run_flags.import_commands()
    print(json.dumps(commands.evaluate(config), indent=2))


if __name__ == "__main__":
    run_flags.run(main)
