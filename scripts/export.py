"""Exports a run's student, or a .keras file, for devices, and measures each file in the runtime that it is for.

python scripts/export.py --source=runs/digits_tkd --output=runs/digits_tkd_export

TensorFlow computes by one thread here, as the other runtimes do, so that their durations can be compared. Sets
TF_ENABLE_ONEDNN_OPTS=1, which computes faster on CPUs, unless that variable is set already.
"""

import early_signals  # noqa: F401, I001 (first, for it acts when it is imported)
import os
import sys

import run_flags

from keras_tkd.config import ExportConfig

run_flags.define(ExportConfig)


def main():
    config = run_flags.read(ExportConfig)
    # Read when TensorFlow begins, and never again.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    commands = run_flags.import_commands()
    from keras_tkd.reports.exports import explain_failure, format_export_table

    results = commands.export(config)
    print("", format_export_table(results), sep="\n")
    print(f"\nFiles     {config.output}")
    failure = explain_failure(results)
    if failure:
        sys.exit(f"Error: {failure}")


if __name__ == "__main__":
    run_flags.run(main)
