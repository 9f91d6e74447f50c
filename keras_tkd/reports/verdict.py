"""Whether distillation helped, in one sentence."""

import statistics

from scipy.stats import t as student_t

from keras_tkd.evaluation.measures import standard_error


def verdict(runs):
    """One sentence: whether distillation helped, by the difference of student and baseline and its 95 % interval.

    Over several seeds the interval is Student's t of the differences; for one seed it is that of two accuracies
    measured on so many images.

    Args:
        runs: list of results.
    """
    pairs = [(run["student"]["test_accuracy"], run["baseline"]["test_accuracy"]) for run in runs if run.get("baseline")]
    if not pairs:
        return "No baseline was trained: nothing is said about what distillation brought."
    for key, name in (("baseline", "student alone"), ("student", "distilled student")):
        seeds = [str(run["seed"]) for run in runs if run.get("baseline") and run[key]["at_chance"]]
        if seeds:
            return f"The {name} is at chance (seed {', '.join(seeds)}): that training collapsed, and is no comparison."
    gains = [student - baseline for student, baseline in pairs]
    gain = statistics.mean(gains)
    if len(gains) > 1:
        noise = student_t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
        noise = max(noise, 1 / runs[0]["test_samples"])  # equal gains by luck do not resolve less than an image
        measured = f"{len(gains)} seeds"
    else:
        noise = 2 * sum(standard_error(accuracy, runs[0]["test_samples"]) ** 2 for accuracy in pairs[0]) ** 0.5
        measured = f"{runs[0]['test_samples']:,} test images and one seed"
    if abs(gain) <= noise:
        judged = f"no difference that {measured} could show"
    else:
        judged = "distillation helped" if gain > 0 else "distillation harmed"
    interval = f"95 % interval +-{100 * noise:.2f}, {measured}"
    return f"Distilled minus alone, same budget: {100 * gain:+.2f} points ({interval}): {judged}."
