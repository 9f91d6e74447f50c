"""Measures a saved model on a data set's test images, beside its teacher if one is given.

python scripts/evaluate.py --dataset=digits --model_path=runs/digits_tkd/student.keras
"""

import json

import run_flags

from keras_tkd.config import EvaluateConfig

run_flags.define(EvaluateConfig)


def main():
    config = run_flags.read(EvaluateConfig)
    training = run_flags.import_training()
    print(json.dumps(training.evaluate(config), indent=2))


if __name__ == "__main__":
    run_flags.run(main)
