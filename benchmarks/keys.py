"""The ratios that are measured, the bound for each, and the tasks that its two sides come from.

A side is a task of the group's program, or the sum of several. The tasks of a group are measured in turn in one
process.
"""

import dataclasses

from keras_tkd.methods import METHODS as ALL_METHODS


@dataclasses.dataclass(frozen=True)
class Group:
    """Tasks that share a process.

    Args:
        program: file beside this one. `program --rounds=N TASK TASK ...` prints a dict from task to its N numbers.
        rounds: how often each task is run.
        options: further options of the program.
        mean: whether a ratio is that of the means over all rounds; else it is the median of the rounds' ratios.
        unit: unit of the numbers.
    """

    program: str = "steps.py"
    rounds: int = 7
    options: tuple[str, ...] = ()
    mean: bool = False
    unit: str = "milliseconds per 128 images"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One figure: a quotient of tasks, and its bound.

    Args:
        group: name in `GROUPS`.
        quotient: `"task / task"`, or sums of tasks: `"task / task + task"`.
        at_most, at_least: the bound aimed at, or neither.
        needs: what the machine must have, `"torch"` or `"avx512_bf16"`, or how time must be counted: `"wall"`, for a
            task in a process of its own. Without it the ratio is skipped.
    """

    group: str
    quotient: str
    at_most: float | None = None
    at_least: float | None = None
    needs: str | None = None

    @property
    def sides(self):
        """The tasks above and below the line, two lists."""
        return [side.split(" + ") for side in self.quotient.split(" / ")]


GROUPS = {
    "student": Group(options=("--images=12800",)),
    # Whole CIFAR-10: tf.data's autotuner rounds an epoch up, and by how much depends on the epoch's length.
    "whole_epochs": Group(rounds=5, options=("--images=50000",), mean=True),
    "keras_distiller": Group(rounds=4, options=("--images=12800", "--teacher=resnet20")),
    "torch": Group(rounds=4, options=("--images=12800",)),
    "building": Group(rounds=3, options=("--images=50000",)),
    "memory": Group(program="memory.py", rounds=1, unit="bytes"),
    "live": Group(options=("--images=12800",)),
    "deterministic": Group(rounds=4, options=("--images=12800",)),
    "deterministic_crd": Group(rounds=4, options=("--images=5120",)),
    "checkpoints": Group(rounds=5, options=("--images=50000",)),
    "folder": Group(rounds=5, options=("--images=2048",)),
}

# Of teachers that are cached, and of their users' other choices.
KEYS = {
    "kd_cached_over_fit": Ratio("student", "kd_cached / student_fit", at_most=1.05),
    "kd_cached_over_keras_fit": Ratio("whole_epochs", "kd_cached / keras_fit", at_most=0.9),
    "kd_cached_of_gemm": Ratio("whole_epochs", "gemm / kd_cached", at_least=0.62),
    "tkd_in_batch_over_kd": Ratio("student", "tkd_in_batch_cached / kd_cached", at_most=1.05),
    "tkd_drawn_over_kd": Ratio("student", "tkd_drawn_cached / kd_cached", at_most=2.05),
    "sp_over_kd": Ratio("student", "sp_cached / kd_cached", at_most=1.15),
    "keras_distiller_speedup": Ratio("keras_distiller", "keras_distiller / kd_cached", at_least=3.3),
    "keras_distiller_feature_speedup": Ratio(
        "keras_distiller", "keras_distiller_feature / feature_cached", at_least=3.0
    ),
    "live_over_keras_distiller": Ratio("keras_distiller", "kd / keras_distiller", at_most=1.0),
    "torch_tkd_drawn_speedup": Ratio("torch", "torch_tkd_drawn / tkd_drawn_cached", at_least=3.5, needs="torch"),
    "torch_tkd_in_batch_speedup": Ratio(
        "torch", "torch_tkd_in_batch / tkd_in_batch_cached", at_least=6.0, needs="torch"
    ),
    "bf16_speedup": Ratio("student", "kd_cached / kd_cached_bf16", at_least=1.4, needs="avx512_bf16"),
    "cache_build_over_forward": Ratio("building", "build_logits / teacher_forward", at_most=1.10),
    "memory_over_data": Ratio("memory", "training_added / data", at_most=1.7),
}

# Of teachers that run in every step.
LIVE = {
    "kd_over_fit_plus_forward": Ratio("live", "kd / student_fit + teacher_forward", at_most=1.05),
    "logits_over_kd": Ratio("live", "logits / kd"),
    "tkd_in_batch_live_over_kd": Ratio("live", "tkd_in_batch / kd", at_most=1.05),
    "tkd_drawn_over_fit_of_two_plus_forward": Ratio(
        "live", "tkd_drawn / student_fit_of_two + teacher_forward", at_most=1.05
    ),
    "trikd_over_both_fits_plus_forward": Ratio(
        "live", "trikd / teacher_fit + student_fit + anchor_forward", at_most=1.05
    ),
    "kd_ensemble_of_2_over_fit_plus_forwards": Ratio(
        "live", "kd_ensemble_of_2 / student_fit + teacher_forward + teacher_forward", at_most=1.0
    ),
    "kd_live_over_cached": Ratio("live", "kd / kd_cached"),
    "sp_live_over_cached": Ratio("live", "sp / sp_cached"),
    "cache_build_features_over_forward": Ratio("building", "build_features / teacher_forward"),
}

# Of every method that has a trained teacher, the teacher live, negatives from the batch: three and kd to a process, so
# that what is compared stands close in time.
OTHERS = [name for name, method in ALL_METHODS.items() if method.terms and not method.online and name != "kd"]
GROUPS |= {f"methods_{first}": Group(options=("--images=5120",)) for first in OTHERS[::3]}
METHODS = {
    f"{name}_live_over_kd": Ratio(f"methods_{OTHERS[place - place % 3]}", f"method:{name} / method:kd", at_most=1.10)
    for place, name in enumerate(OTHERS)
}

# Of what a run may be asked for beside its training.
RUNS = {
    "deterministic_kd_over_kd": Ratio("deterministic", "deterministic:kd / method:kd", needs="wall"),
    "deterministic_crd_over_crd": Ratio("deterministic_crd", "deterministic:crd / method:crd", needs="wall"),
    "checkpoints_over_fit": Ratio("checkpoints", "checkpoints / student_fit", at_most=0.02),
}

# Of pictures in files.
PICTURES = {
    "folder_over_decode": Ratio("folder", "bare_decode / folder_decode", at_least=0.9),
}

TABLES = {"keys": KEYS, "live": LIVE, "methods": METHODS, "runs": RUNS, "pictures": PICTURES}
