"""Results as a person reads them: the numbers, and what they do and do not show."""

import re

import pytest

from keras_tkd.reports import tables, verdict


def described(accuracy, parameters=666, agreement=None, seconds=None, at_chance=False, **more):
    model = {"test_accuracy": accuracy, "parameters": parameters, "at_chance": at_chance, "seconds": seconds} | more
    return model | ({} if agreement is None else {"agreement": agreement})


def run(student, baseline=None, seed=0, samples=10_000, teacher=0.95, **student_fields):
    return {
        "method": "kd",
        "dataset": "digits",
        "seed": seed,
        "epochs": 30,
        "test_samples": samples,
        "teacher": None if teacher is None else described(teacher, 72_970, seconds=12.5),
        "baseline": None if baseline is None else described(baseline, agreement=0.8, seconds=3.0),
        "student": described(student, **{"agreement": 0.9, "seconds": 4.0} | student_fields),
    }


def cells(table):
    """The table's rows by title."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_teacher_of_which_little_is_known():
    given = run(0.8312, 0.8)
    given["teacher"] = {"outputs": {"file": "a.npz"}}
    assert cells(tables.format_table([given]))["teacher"] == ["-", "-", "-", "-"]
    given["teacher"]["test_accuracy"] = 0.9
    assert cells(tables.format_table([given]))["teacher"] == ["90.00 %", "-", "-", "-"]


def test_table_of_one_run():
    table = tables.format_table([run(0.8312, 0.8, seed=7)])
    caption = table.splitlines()[0]
    assert all(word in caption for word in ("kd", "digits", "30 epochs", "seed 7"))
    rows = cells(table)
    assert rows["teacher"] == ["95.00 %", "72,970", "-", "12.5"]
    assert rows["student alone"] == ["80.00 %", "666", "80.00 %", "3.0"]
    assert rows["distilled student"] == ["83.12 %", "666", "90.00 %", "4.0"]


def test_table_of_three_runs_gives_mean_and_range():
    runs = [
        run(accuracy, 0.7, seed=seed, agreement=agreement, seconds=seconds)
        for seed, accuracy, agreement, seconds in [(1, 0.80, 0.85, 4), (2, 0.84, 0.9, 5), (3, 0.85, 0.98, 9)]
    ]
    table = tables.format_table(runs)
    assert "seeds 1, 2, 3" in table.splitlines()[0]
    # (0.80 + 0.84 + 0.85) / 3 = 0.83; (0.85 + 0.90 + 0.98) / 3 = 0.91; (4 + 5 + 9) / 3 = 6
    assert cells(table)["distilled student"] == [
        "83.00 % (80.00 to 85.00)",
        "666",
        "91.00 % (85.00 to 98.00)",
        "6.0",
    ]
    assert cells(table)["student alone"][0] == "70.00 % (70.00 to 70.00)"


def test_table_shows_what_was_learned_of_the_training_images():
    rows = cells(
        tables.format_table([run(0.8, 0.7, seed=1, train_accuracy=0.9), run(0.8, 0.7, seed=2, train_accuracy=0.94)])
    )
    assert rows["distilled student"][-1] == "92.00 % (90.00 to 94.00)"
    assert rows["student alone"][-1] == "-"


def test_table_has_a_row_for_each_model_of_each_generation():
    def generation(teacher, student):
        return {"teacher": described(teacher, 72_970), "student": described(student), "validation_accuracy": None}

    one, two = generation(0.91, 0.81), generation(0.93, 0.84)
    rows = cells(tables.format_table([run(0.84, 0.7) | {"generations": [one, two]}]))
    assert rows["generation 1, teacher"][0] == "91.00 %" and rows["generation 2, teacher"][0] == "93.00 %"
    assert rows["generation 1, student"][0] == "81.00 %" and rows["generation 2, student"][0] == "84.00 %"
    assert "generation 1, student" not in tables.format_table([run(0.81) | {"generations": [one]}])


def test_table_of_an_ensemble_shows_each_teacher():
    runs = [
        run(0.83, 0.8, seed=seed) | {"teachers": [described(a, 70, agreement=0.9), described(b, 80, agreement=0.7)]}
        for seed, a, b in ((0, 0.9, 0.6), (1, 0.8, 0.7))
    ]
    rows = cells(tables.format_table(runs))
    assert list(rows)[-5:] == ["teacher 1", "teacher 2", "ensemble", "student alone", "distilled student"]
    assert rows["teacher 1"] == ["85.00 % (80.00 to 90.00)", "70", "90.00 % (90.00 to 90.00)", "-"]
    assert rows["teacher 2"][:2] == ["65.00 % (60.00 to 70.00)", "80"]
    assert rows["ensemble"][:2] == ["95.00 % (95.00 to 95.00)", "72,970"]


def test_table_marks_a_collapsed_student_alone():
    runs = [run(0.8, 0.7, seed=1), run(0.1, 0.7, seed=2, at_chance=True)]
    for chosen, expected in [(runs, 1), (runs[:1], 0), (runs[1:], 1)]:
        table = tables.format_table(chosen)
        assert table.count("AT CHANCE") == expected
        assert cells(table)["distilled student"][0].count("AT CHANCE") == expected


def test_table_without_baseline_and_without_teacher():
    rows = cells(tables.format_table([run(0.8)]))
    assert "student alone" not in rows and "distilled student" in rows
    rows = cells(tables.format_table([run(0.8, teacher=None, seconds=None)]))
    assert "teacher" not in rows and "distilled student" not in rows
    assert rows["student alone"] == ["80.00 %", "666", "90.00 %"]  # nobody took time


def trained_for(result, **epochs):
    """The results, with the epochs that some of its models were trained for."""
    for role, count in epochs.items():
        result[role]["epochs"] = count
    return result


def test_table_says_how_long_models_were_trained_where_one_was_stopped():
    planned = tables.format_table([run(0.8, 0.7)])
    assert tables.format_table([trained_for(run(0.8, 0.7), teacher=30, baseline=30, student=30)]) == planned
    stopped = [trained_for(run(0.8, 0.7, seed=seed), baseline=30, student=count) for seed, count in ((1, 12), (2, 14))]
    table = tables.format_table(stopped)
    assert "30 epochs" in table.splitlines()[0] and table.splitlines()[1].endswith("  epochs")
    rows = cells(table)
    # Nobody says how long the teacher was trained.
    assert [rows[title][-1] for title in ("teacher", "student alone", "distilled student")] == ["-", "30", "12 to 14"]
    assert cells(tables.format_table(stopped[:1]))["distilled student"][-1] == "12"


def verified(result, **roles):
    """The results, with (auc, equal error rate, true accepts) for some of its models."""
    for role, shares in roles.items():
        counts = {"same_pairs": 1200, "different_pairs": 3400, "pairs": "drawn", "images": 90, "identities": 7}
        names = ("auc", "equal_error_rate", "true_accepts_at_1_percent")
        result[role]["verification"] = dict(zip(names, shares, strict=True)) | counts
    return result


def test_verification_has_a_table_of_its_own():
    one = verified(run(0.8, 0.7), teacher=(0.9, 0.2, 0.5), baseline=(0.7, 0.4, 0.1), student=(0.8, 0.3, 0.25))
    two = verified(run(0.8, 0.7), teacher=(0.9, 0.2, 0.5), baseline=(0.7, 0.4, 0.1), student=(0.9, 0.1, 0.75))
    caption = tables.format_verification_table([one]).splitlines()[0]
    for words in ("90 images of 7 identities", "1,200 pairs of one identity", "3,400 of two"):
        assert words in caption
    rows = cells(tables.format_verification_table([one]))
    assert rows["AUC"] == ["equal error rate", "true accepts at 1 % false ones"]
    assert rows["teacher"] == ["90.00 %", "20.00 %", "50.00 %"]
    assert rows["student alone"] == ["70.00 %", "40.00 %", "10.00 %"]
    rows = cells(tables.format_verification_table([one, two]))
    # (0.8 + 0.9) / 2, (0.3 + 0.1) / 2, (0.25 + 0.75) / 2
    assert rows["distilled student"] == [
        "85.00 % (80.00 to 90.00)",
        "20.00 % (10.00 to 30.00)",
        "50.00 % (25.00 to 75.00)",
    ]
    assert tables.format_table([one]) == tables.format_table([run(0.8, 0.7)])


def test_verification_of_a_student_alone_and_of_a_teacher_alone():
    alone = verified(run(0.8, teacher=None), student=(0.8, 0.3, 0.25))
    assert cells(tables.format_verification_table([alone]))["student alone"] == ["80.00 %", "30.00 %", "25.00 %"]
    teacher = verified(run(0.8), teacher=(0.9, 0.2, 0.5)) | {"student": None}
    assert list(cells(tables.format_verification_table([teacher])))[-1] == "teacher"
    assert tables.format_verification_table([run(0.8, 0.7)]) == ""


# One seed: an exact McNemar test on the images that one of the two names right and the other wrong, 95 % interval of
# Clopper and Pearson's for the share of gained ones. Its ends for 600 of 900, by scipy's quantiles of the beta
# distribution (0.025 of 600, 301; 0.975 of 601, 300): 0.63481 and 0.69743, times 2, less 1, times 900: 242.7 and 355.4.
# For 510 of 900: 0.53356 and 0.59933, so 60.4 and 178.8; for 465 of 900: 0.48345 and 0.54977, so -29.8 and 89.6.
@pytest.mark.parametrize(
    "student, samples, gained, gain, interval, judged",
    [
        (0.83, 10_000, 600, "+3.00", "+2.43 to +3.55", "helped"),
        (0.812, 10_000, 510, "+1.20", "+0.60 to +1.79", "helped"),
        (0.803, 10_000, 465, "+0.30", "-0.30 to +0.90", "no difference"),
        (0.797, 10_000, 435, "-0.30", "-0.90 to +0.30", "no difference"),
        (0.77, 10_000, 300, "-3.00", "-3.55 to -2.43", "harmed"),
        # Of 40 and 28 images that the two disagree on, 26 and 14 are gained: two tails of 0.081, and 1. Ends 0.48316
        # and 0.79372, so -1.35 and 23.50 of 400 images; 0.30647 and 0.69353, so -10.84 and 10.84.
        (0.83, 400, 26, "+3.00", "-0.34 to +5.87", "no difference"),
        (0.8, 400, 14, "+0.00", "-2.71 to +2.71", "no difference"),
    ],
)
def test_verdict_of_one_seed(student, samples, gained, gain, interval, judged):
    counted = {"gained": gained, "lost": gained - round((student - 0.8) * samples)}
    sentence = verdict.format_verdict([run(student, 0.8, samples=samples, **counted)])
    assert gain in sentence and interval in sentence and f"{samples:,} test images" in sentence
    assert [word for word in ("helped", "harmed", "no difference") if word in sentence] == [judged]
    assert ("nothing of another seed" in sentence) == (judged != "no difference")


# Where nobody counted, as many as there can be: of 10,000 images with 8,300 and 8,000 right, 6,300 at least are right
# for both, and 2,000 and 1,700 for one. With 8,120 and 8,000 they are 2,000 and 1,880, too many for a difference of
# 120: z = 120 / sqrt(3,880) = 1.93; with 8,140 it is 140 / sqrt(3,860) = 2.25.
@pytest.mark.parametrize("student, judged", [(0.83, "helped"), (0.812, "no difference"), (0.814, "helped")])
def test_verdict_of_one_seed_of_which_nobody_counted_disagreements(student, judged):
    sentence = verdict.format_verdict([run(student, 0.8)])
    assert [word for word in ("helped", "harmed", "no difference") if word in sentence] == [judged]


# Three seeds whose gains have the standard deviation 0.01:
#   t(0.975, 2) * 0.01 / sqrt(3) = 4.3027 * 0.0057735 = 0.0248, 2.48 points.
# Two seeds with gains 0.05 and 0.07, standard deviation 0.014142:
#   t(0.975, 1) * 0.014142 / sqrt(2) = 12.706 * 0.01, 12.71 points.
@pytest.mark.parametrize(
    "gains, mean, noise, judged",
    [
        ([0.05, 0.06, 0.07], "+6.00", "2.48", "helped"),
        ([-0.05, -0.06, -0.07], "-6.00", "2.48", "harmed"),
        ([0.01, 0.02, 0.03], "+2.00", "2.48", "no difference"),
        ([0.05, 0.07], "+6.00", "12.71", "no difference"),
    ],
)
def test_verdict_of_several_seeds(gains, mean, noise, judged):
    # Baselines far apart: what counts is the difference within a seed.
    runs = [run(0.5 + 0.1 * seed + gain, 0.5 + 0.1 * seed, seed=seed) for seed, gain in enumerate(gains)]
    sentence = verdict.format_verdict(runs)
    assert mean in sentence and noise in sentence and f"{len(gains)} seeds" in sentence
    assert [word for word in ("helped", "harmed", "no difference") if word in sentence] == [judged]
    # The noncentral t with two degrees of freedom exceeds 4.3027 in 80 % of cases at 5.653, of which a hundredth over
    # sqrt(3) is 3.26 points.
    assert ("could have shown 3.3 points" in sentence) == (judged == "no difference" and len(gains) > 2)


# Accuracies far enough apart on 10,000 images, and not far enough: see above.
@pytest.mark.parametrize(
    "student, judged", [(0.83, "may be the budget"), (0.77, "may be the budget"), (0.81, "no difference")]
)
def test_verdict_of_unequal_trainings_says_so(student, judged):
    stopped = trained_for(run(student, 0.8), baseline=30, student=12)
    sentence = verdict.format_verdict([stopped])
    assert "budgets differ (12 and 30 epochs)" in sentence and "same budget" not in sentence and judged in sentence
    assert "helped" not in sentence and "harmed" not in sentence
    # One of two seeds is enough; who says nothing was trained as planned.
    sentence = verdict.format_verdict([trained_for(run(0.83, 0.8, seed=1), student=30), stopped])
    assert "budgets differ (12 to 30 and 30 epochs)" in sentence


def test_verdict_of_trainings_that_were_stopped_alike():
    sentence = verdict.format_verdict([trained_for(run(0.83, 0.8), baseline=12, student=12)])
    assert "same budget" in sentence and "helped" in sentence


def test_verdict_counts_only_runs_with_a_baseline():
    sentence = verdict.format_verdict([run(0.1, seed=1), run(0.83, 0.8, seed=2)])
    # 2,000 and 1,700 images at worst: Clopper and Pearson's ends are 0.52432 and 0.55670, so 180.0 and 419.6 images.
    assert "+3.00" in sentence and "+1.80 to +4.20" in sentence and "one seed" in sentence


def test_verdict_without_baseline_says_nothing_of_distillation():
    sentence = verdict.format_verdict([run(0.9), run(0.8, seed=1)])
    assert "No baseline" in sentence
    assert "helped" not in sentence and "harmed" not in sentence and "%" not in sentence


@pytest.mark.parametrize("student, baseline", [(359 / 360, 1.0), (1.0, 359 / 360)])
def test_one_image_at_the_very_top_is_no_difference(student, baseline):
    # A measured 100 % has a binomial standard error of 0, and is still measured on 360 images only.
    assert "no difference" in verdict.format_verdict([run(student, baseline, samples=360)])


def test_counts_of_a_few_classes_are_a_table():
    counts = {"train": {"cat": 1200, "dog": 7}, "test": {"cat": 3, "dog": 4}, "open_set": {"emu": 1, "yak": 2}}
    lines = tables.format_image_counts("pets", counts).splitlines()
    assert lines[0] == "pets: 2 classes; images: 1,207 training, 7 test, 3 open set"
    assert [line.split() for line in (lines[1], *lines[3:])] == [
        ["class", "training", "test"],
        ["cat", "1,200", "3"],
        ["dog", "7", "4"],
    ]


def test_counts_of_many_classes_are_the_least_and_the_most():
    counts = {"train": {str(n): 5 + n for n in range(21)}, "test": {str(n): 2 for n in range(21)}}
    # 21 * 5 + 20 * 21 / 2 = 315
    assert tables.format_image_counts("birds", counts).splitlines() == [
        "birds: 21 classes; images: 315 training, 42 test",
        "  training: 5 to 25 images of each class",
        "  test: 2 images of each class",
    ]
    counts = {part: {name: of[name] for name in list(of)[:20]} for part, of in counts.items()}
    assert len(tables.format_image_counts("birds", counts).splitlines()) == 23


def test_what_was_not_read_is_named_up_to_five():
    counts = {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}
    skipped = {".txt files": [f"{n}.txt" for n in range(5)], "hidden files": [f".{n}" for n in range(1007)]}
    lines = tables.format_image_counts("pets", counts, skipped, [f"{n}.png has 3x3 pixels" for n in range(6)])
    assert lines.splitlines()[5:] == [
        "Not read: 5 .txt files: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt",
        "Not read: 1,007 hidden files: .0, .1, .2, .3, .4 and 1,002 more",
        "Left out, 6 that cannot be read: " + ", ".join(f"{n}.png has 3x3 pixels" for n in range(5)) + " and 1 more",
    ]


def of_classes(counts, *runs):
    """Runs with so many test images of each class, and balanced accuracies below the accuracies by a tenth."""
    images = {"train": counts, "test": counts}
    for each in runs:
        each["images"] = images
        for role in ("teacher", "baseline", "student"):
            if each[role]:
                each[role]["balanced_accuracy"] = each[role]["test_accuracy"] - 0.1
    return list(runs)


def test_balanced_accuracies_are_shown_where_classes_are_unbalanced():
    line = tables.format_balance(of_classes({"a": 45, "b": 5, "c": 0}, run(0.85, 0.8)))
    assert line == (
        "Classes are unbalanced (5 to 45 test images each); balanced accuracy, the mean over the classes: "
        "teacher 85.00 %, student alone 70.00 %, distilled student 75.00 %"
    )
    several = tables.format_balance(of_classes({"a": 45, "b": 5}, run(0.85), run(0.75, seed=1)))
    assert several.endswith("distilled student 70.00 % (65.00 to 75.00)")


def test_balanced_accuracies_are_not_shown_where_accuracy_says_the_same():
    # 14 is less than 1.5 times 10, and 15 is not.
    assert tables.format_balance(of_classes({"a": 14, "b": 10}, run(0.85))) == ""
    assert tables.format_balance(of_classes({"a": 15, "b": 10}, run(0.85))) != ""
    # Of a file of an earlier version nothing is known.
    assert tables.format_balance([run(0.85)]) == ""
