"""README.md and RESULTS.md say what the comparisons in results/ say, and so do their pictures."""

import pathlib
import re
import sys

import keras
import pytest
from scipy.stats import ttest_rel

from keras_tkd.reports.comparison import name_method

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "results"))
import draw  # noqa: E402

COMPARISONS = draw.read_all()
CURVES = draw.read_curves()


@pytest.mark.parametrize("name", draw.TEXTS)
def test_a_text_has_the_tables_of_the_files(name):
    text = (ROOT / name).read_text()
    named = re.findall(r"<!--results/(\w+)\.json-->", text)
    assert named and set(named) <= COMPARISONS.keys()
    assert draw.fill(text, COMPARISONS) == text
    for each in named:
        assert f"```\n{draw.format_table(COMPARISONS[each])}\n```" in text


def test_one_method_over_another_is_that_of_the_files():
    rows = re.findall(
        r"^\| `(\S+)` over `(\S+)` \|.*\| (.+) \| (\S+) \| (\S+) to (\S+) \| (\S+) \|$",
        (ROOT / "RESULTS.md").read_text(),
        re.M,
    )
    assert len(rows) == 5
    for method, other, seeds, *said in rows:
        comparison = COMPARISONS[{"0, 1, 2": "cifar10_small_set", "3 to 7": "cifar10_semi_hard"}[seeds]]
        accuracies = [find_accuracies(comparison, each) for each in (method, other)]
        test = ttest_rel(*accuracies)
        gain = (sum(accuracies[0]) - sum(accuracies[1])) / len(comparison.seeds)
        found = 100 * gain, *(100 * bound for bound in test.confidence_interval())
        assert said == [*(f"{value:+.2f}" for value in found), f"{test.pvalue:.3f}"]


def find_accuracies(comparison, method):
    found = {run.seed: run.test_accuracy for run in comparison.list_runs(method)}
    return [found[seed] for seed in comparison.seeds]


def find_unsaid(words):
    """Returns which of some texts RESULTS.md does not have, however its lines are broken."""
    text = " ".join((ROOT / "RESULTS.md").read_text().split())
    return [each for each in words if each not in text]


def test_what_the_tables_of_few_images_say_together():
    first, second, third = (COMPARISONS[f"cifar10_small_set{name}"] for name in ("", "_more", "_online"))
    alone = find_accuracies(first, "baseline")
    assert find_accuracies(second, "baseline") == find_accuracies(third, "baseline") == alone
    semi_hard, embedding = find_accuracies(first, "semi_hard"), find_accuracies(second, "embedding")
    points = 100 * (sum(semi_hard) - sum(embedding)) / 3
    words = [f"{points:.1f} points higher", f"by itself p {ttest_rel(semi_hard, embedding).pvalue:.3f}"]
    values = {
        method: ttest_rel(find_accuracies(comparison, method), alone).pvalue
        for comparison in (first, second, third)
        for method in comparison.methods
        if method != "baseline"
    }
    # Holm: the smallest of n by n, the next by n - 1, and none below the one before it.
    assert len(values) == 13
    (one, p_one), (two, p_two) = sorted(values.items(), key=lambda item: item[1])[:2]
    words.append(f"`{one}` p {13 * p_one:.3f}, `{two}` {max(13 * p_one, 12 * p_two):.3f}")
    below = [
        100 * (a - b) for each in ("dml", "trikd") for a, b in zip(alone, find_accuracies(third, each), strict=True)
    ]
    words.append(f"by {min(below):.1f} to {max(below):.1f} points")
    assert find_unsaid(words) == []


@pytest.mark.parametrize("name", CURVES)
def test_a_table_of_epochs_is_that_of_the_curves(name):
    text, curves = (ROOT / "RESULTS.md").read_text(), CURVES[name]
    table = text[: text.index(f'src="results/curves/{name}.svg"')].rpartition("| after epoch | ")[2]
    epochs, _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line)
    said = {method: dict(zip(epochs, map(float, values), strict=False)) for method, *values in rows}
    assert said.keys() == curves.keys()
    for method, values in said.items():
        known = curves[method]
        known = known if method == "published" else {str(epoch): value for epoch, value in enumerate(known, 1)}
        assert values == {epoch: round(100 * known[epoch], 2) for epoch in epochs if epoch in known}


def test_what_is_said_of_the_papers_settings():
    curves = CURVES["cifar10_paper"]
    names = ("tkd", "student alone", "student alone, decay 0.007", "published")
    tkd, alone, equal, published = (curves[name] for name in names)
    before = [sum(each[50:100]) / 50 for each in (tkd, equal)]
    gain, by_decay, at_equal_decay = tkd[-1] - alone[-1], equal[-1] - alone[-1], tkd[-1] - equal[-1]
    words = [
        f"gains {100 * (tkd[100] - tkd[99]):.1f} points at the drop of the rate "
        f"(published: {100 * (published['101'] - published['100']):.1f})",
        f"{100 * (published['101'] - tkd[100]):.1f} points below the published curve at epoch 101",
        f"ended {100 * gain:.1f} points above the student alone. {100 * by_decay:.1f} of them are the weaker decay",
        f"By the same decay `tkd` ended {100 * at_equal_decay:.1f} points higher",
        f"the mean of `tkd` is {100 * before[0]:.1f} and that of the student alone {100 * before[1]:.1f} %",
        f"{100 * by_decay:.1f} of the {100 * gain:.1f} points by which `tkd` ends above the student alone",
        f"and {100 * at_equal_decay:.1f} are left at equal decay",
    ]
    other = curves["tkd, teacher without augmentation"]
    words += [
        f"and {100 * (published['101'] - other[100]):.1f} with the teacher that was trained without augmentation",
        f"student ended {100 * (other[-1] - tkd[-1]):.1f} points higher, at {100 * other[-1]:.2f} %",
        f"{80.78 - 100 * other[-1]:.1f} below its teacher",
        f"with a teacher trained without augmentation, {100 * (other[-1] - equal[-1]):.1f}",
    ]
    assert find_unsaid(words) == []
    assert sum(a > b for a, b in zip(tkd, alone, strict=True)) > 100


def test_what_is_said_of_the_student_of_a_resnet():
    alone, kd = (CURVES["cifar10_resnet20"][name] for name in ("student alone", "kd"))
    above = [epoch for epoch, pair in enumerate(zip(kd, alone, strict=True), 1) if pair[0] > pair[1]]
    means = [sum(each[20:100]) / 80 for each in (kd, alone)]
    points = 100 * (alone[-1] - kd[-1])
    words = [
        f"the student alone ends at {100 * alone[-1]:.2f} %",
        f"`kd` ended {points:.2f} points below the student alone",
        f"over epochs 21 to 100 its mean is {100 * means[0]:.1f} and that of the student alone {100 * means[1]:.1f} %",
        f"From epoch {above[-1] + 1} on it was below in every one",
        f"a teacher that is only {89.12 - 100 * alone[-1]:.1f} points above what the student reaches alone",
        f"the student alone came to {100 * alone[-1]:.2f} %",
        f"led for half of that time and ended {points:.2f} points lower (one seed)",
    ]
    assert find_unsaid(words) == []
    assert len([epoch for epoch in above if epoch <= 100]) > 70 and kd[-1] > 0.8375


def test_a_picture_of_curves_is_drawn_anew():
    pytest.importorskip("vl_convert")
    labels = re.compile(r'aria-label="([^"]*)"')
    for name, curves in CURVES.items():
        stored = (ROOT / "results" / "curves" / f"{name}.svg").read_text()
        assert labels.findall(draw.draw_curves(curves)) == labels.findall(stored)
        for epoch, accuracy in curves.get("published", {}).items():
            assert f"epoch: {epoch}; test accuracy: {100 * accuracy:.4g}%; method: published" in stored


def test_a_card_is_of_its_files():
    text = (ROOT / "results" / "models" / "README.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) % \|$", text, re.M)
    assert {name for name, *_ in rows} == {path.name for path in (ROOT / "results" / "models").glob("*.keras")}
    for name, parameters, size, _ in rows:
        path = ROOT / "results" / "models" / name
        model = keras.saving.load_model(path)
        assert f"{sum(weight.shape.num_elements() for weight in model.trainable_weights):,}" == parameters
        assert f"{path.stat().st_size:,}" == size
        assert model.input_shape == (None, 32, 32, 3) and model.output_shape == (None, 10)
    # A thousand test images of each class; a column for each file, in the order of the rows.
    classes = re.findall(rf"^\| \w+{' [|] ([0-9.]+)' * len(rows)} \|$", text, re.M)
    assert len(classes) == 10
    for (*_, accuracy), column in zip(rows, zip(*classes, strict=True), strict=True):
        assert sum(map(float, column)) / 10 == pytest.approx(float(accuracy))
    header = re.search(r"^\| class \|(.*)\|$", text, re.M)[1]
    assert re.findall(r"`(\S+)`", header) == [name for name, *_ in rows]


def test_every_file_is_shown():
    text = (ROOT / "RESULTS.md").read_text()
    for name in COMPARISONS:
        assert f"<!--results/{name}.json-->" in text and f'src="results/{name}.svg"' in text


def test_a_table_that_differs_is_written_anew():
    name, comparison = next(iter(COMPARISONS.items()))
    text = f"Before.\n\n<!--results/{name}.json-->\n```\nan older\n\ntable\n```\n\n```\nanother block\n```\n"
    table = draw.format_table(comparison)
    assert draw.fill(text, COMPARISONS) == text.replace("an older\n\ntable", table)
    assert draw.fill(text.replace("an older\n\ntable\n", ""), COMPARISONS) == draw.fill(text, COMPARISONS)
    with pytest.raises(KeyError, match="unknown"):
        draw.fill("<!--results/unknown.json-->\n```\n\n```\n", COMPARISONS)


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_picture_shows_every_run(name):
    """Its labels for those who do not see it name each point, in percent with two digits."""
    comparison, text = COMPARISONS[name], (ROOT / "results" / f"{name}.svg").read_text()
    shown = sorted(re.findall(r"; method: ([^;]+); seed: (\d+); accuracy: ([\d.]+)%", text))
    runs = [run for run in comparison.runs if run.method in comparison.methods and run.test_accuracy is not None]
    assert shown == sorted((name_method(run.method), str(run.seed), f"{100 * run.test_accuracy:.2f}") for run in runs)
    teacher = comparison.teacher_accuracy
    # Of teachers that learn with their students, each run has its own.
    expected = [] if teacher is None else [f"{100 * teacher:.2f}"]
    assert re.findall(r"; model: teacher; accuracy: ([\d.]+)%", text) == expected


def test_pictures_are_drawn_anew():
    """As they stand there, but for what another version of the library draws otherwise: the same labels."""
    pytest.importorskip("vl_convert")
    labels = re.compile(r'aria-label="([^"]*)"')
    for name, comparison in COMPARISONS.items():
        stored = (ROOT / "results" / f"{name}.svg").read_text()
        assert labels.findall(draw.draw(comparison)) == labels.findall(stored)
        assert "currentColor" not in stored
