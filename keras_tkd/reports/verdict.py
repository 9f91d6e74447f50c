"""A sentence that says whether distillation helped."""

import statistics

from scipy.stats import t as student_t

from keras_tkd.evaluation.measures import standard_error
from keras_tkd.reports.schema import Results
from keras_tkd.reports.tables import format_range

__all__ = ["format_verdict"]


def format_verdict(runs):
    """Says in one sentence whether distillation helped: the difference of student and baseline, its 95 % interval.

    Where a callback ended one of the two trainings earlier, their budgets differ, and a difference that was measured is
    not put down to distillation.

    Over several seeds the interval is Student's t of the differences; for one seed it is that of two accuracies
    measured on so many images.

    Args:
        runs: list of results, as in `results.json`.
    """
    compared = [run for run in map(Results.from_dict, runs) if run.baseline]
    if not compared:
        return "No baseline was trained: nothing is said about what distillation brought."
    for role, name in (("baseline", "student alone"), ("student", "distilled student")):
        seeds = [str(run.seed) for run in compared if getattr(run, role).at_chance]
        if seeds:
            return f"The {name} is at chance (seed {', '.join(seeds)}): that training collapsed, and is no comparison."
    gains = [run.student.test_accuracy - run.baseline.test_accuracy for run in compared]
    gain = statistics.mean(gains)
    samples = runs[0]["test_samples"]
    if len(gains) > 1:
        noise = student_t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
        noise = max(noise, 1 / samples)  # equal gains by luck do not resolve less than an image
        measured = f"{len(gains)} seeds"
    else:
        # Two accuracies on the same images are taken as independent, which errs on the side of no difference.
        accuracies = compared[0].student.test_accuracy, compared[0].baseline.test_accuracy
        noise = 2 * sum(standard_error(accuracy, samples) ** 2 for accuracy in accuracies) ** 0.5
        measured = f"{samples:,} test images and one seed"
    epochs = [(run.count_epochs(run.student), run.count_epochs(run.baseline)) for run in compared]
    same_budget = all(distilled == alone for distilled, alone in epochs)
    distilled, alone = map(format_range, zip(*epochs, strict=True))
    budget = "same budget" if same_budget else f"budgets differ ({distilled} and {alone} epochs)"
    if abs(gain) <= noise:
        judged = f"no difference that {measured} could show"
    elif not same_budget:
        judged = "it may be the budget that made the difference"
    else:
        judged = "distillation helped" if gain > 0 else "distillation harmed"
    interval = f"95 % interval +-{100 * noise:.2f}, {measured}"
    return f"Distilled minus alone, {budget}: {100 * gain:+.2f} points ({interval}): {judged}."
