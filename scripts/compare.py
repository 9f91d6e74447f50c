"""Compares methods with the student alone, over several seeds: which are better, which worse, what is not shown.

python scripts/compare.py --flagfile=flags/digits/kd.flags --methods=baseline,kd,tkd,sp,kd+tkd --seeds=0,1,2 \
    --workdir=runs/digits_comparison

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
    "Methods to compare with the student alone: names as in --method, or lists of losses with + between, each as in "
    "--losses: kd,sp,kd@temperature=2:0.5+sp. One may have settings of its own, in a flagfile: kd=DIR/kd/best.flags.",
    required=True,
)
flags.DEFINE_list("seeds", "0,1,2", "Seeds of each method's runs; fewer than three show nothing over seeds.")
flags.DEFINE_integer(
    "parallel", 1, "Runs at once, in processes of their own that share the cores and the memory of the machine."
)
flags.DEFINE_string("workdir", None, "Folder of the comparison; each run has a folder in it.", required=True)


def main():
    config = run_flags.read_shared()
    seeds = run_flags.read_seeds()
    run_flags.share_devices(flags.FLAGS.parallel)
    run_flags.import_commands(config.deterministic)
    from keras_tkd.runs import compare

    comparison = compare(config, flags.FLAGS.workdir, flags.FLAGS.methods, seeds, flags.FLAGS.parallel)
    run_flags.show_comparison(comparison, flags.FLAGS.workdir)


if __name__ == "__main__":
    run_flags.run(main)
