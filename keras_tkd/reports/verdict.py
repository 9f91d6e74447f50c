"""Sentences that say whether distillation helped, out of what `keras_tkd.evaluation.significance` decides."""

from keras_tkd.evaluation import significance
from keras_tkd.evaluation.significance import NOT_SHOWN
from keras_tkd.reports.schema import Results
from keras_tkd.reports.tables import format_range

__all__ = ["format_verdict", "judge_results"]


def judge_results(methods, seeds):
    """Decides for each method whether its students are better than the same students alone.

    Over several seeds it decides by the differences within each, and with one seed by the test images on which the two
    models disagree; where a file does not say how many these are, by as many as there can be.

    Args:
        methods: for each method that is compared a list of `Results` with a student and a baseline, one of each seed
            that there is something of.
        seeds: number of seeds that were planned.

    Returns:
        A `significance.Verdict` for each method.
    """
    samples = next((run.test_samples for runs in methods for run in runs), 1)
    if seeds == 1:
        return significance.judge_images([_count_disagreements(*runs) if runs else None for runs in methods], samples)
    gains = [[run.student.test_accuracy - run.baseline.test_accuracy for run in runs] for runs in methods]
    return significance.judge_seeds(gains, samples, seeds)


def format_verdict(runs):
    """Says in one sentence whether distillation helped: the difference of student and baseline, its 95 % interval.

    Where a callback ended one of the two trainings earlier, their budgets differ, and a difference that was measured is
    not put down to distillation.

    Args:
        runs: list of results, as in `results.json`.
    """
    compared = [run for run in map(Results.from_dict, runs) if run.baseline and run.student]
    if not compared:
        return "No baseline was trained: nothing is said about what distillation brought."
    for role, name in (("baseline", "student alone"), ("student", "distilled student")):
        seeds = [str(run.seed) for run in compared if getattr(run, role).at_chance]
        if seeds:
            return f"The {name} is at chance (seed {', '.join(seeds)}): that training collapsed, and is no comparison."
    (verdict,) = judge_results([compared], len(compared))
    images = f"{compared[0].test_samples:,} test images"
    measured = f"{len(compared)} seeds" if len(compared) > 1 else f"{images} and one seed"
    epochs = [(run.count_epochs(run.student), run.count_epochs(run.baseline)) for run in compared]
    same_budget = all(distilled == baseline for distilled, baseline in epochs)
    distilled, baseline = map(format_range, zip(*epochs, strict=True))
    budget = "same budget" if same_budget else f"budgets differ ({distilled} and {baseline} epochs)"
    if verdict.decision == NOT_SHOWN:
        judged = f"no difference that {measured} could show{_describe_power(verdict)}"
    elif not same_budget:
        judged = "it may be the budget that made the difference"
    else:
        # With one seed two models are compared, and another seed would have made others.
        scope = "" if len(compared) > 1 else " this student, which says nothing of another seed"
        judged = f"distillation {'helped' if verdict.gain > 0 else 'harmed'}{scope}"
    interval = _format_interval(verdict, len(compared))
    points = "points of exact match" if compared[0].task == "multi_label" else "points"
    return f"Distilled minus alone, {budget}: {100 * verdict.gain:+.2f} {points} ({interval}, {measured}): {judged}."


def _describe_power(verdict):
    """Returns a clause that says which gain the seeds of a verdict could have shown; empty where none is known."""
    if verdict.detectable is None:
        return ""
    return f"; these seeds could have shown {100 * verdict.detectable:.1f} points"


def _count_disagreements(run):
    """Counts the test images that student and baseline disagree on, `(gained, lost)`; at worst, where nobody did."""
    student, baseline, samples = run.student, run.baseline, run.test_samples
    if student.gained is not None and student.lost is not None:
        return student.gained, student.lost
    right = [round(model.test_accuracy * samples) for model in (student, baseline)]
    return significance.bound_disagreements(*right, samples)


def _format_interval(verdict, seeds):
    low, high = verdict.interval
    if seeds > 1:
        return f"95 % interval +-{50 * (high - low):.2f}"
    return f"95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
