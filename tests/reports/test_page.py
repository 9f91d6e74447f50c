"""Reports as a page: its numbers, what is text in it, and that a browser draws it."""

import importlib.util
import itertools
import statistics

import pytest
from page_reading import BROWSER, Page, follow_pointer, open_in_browser

from keras_tkd.evaluation.significance import BETTER, NOT_SHOWN, Verdict
from keras_tkd.reports.comparison import ComparedRun, Comparison
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.page import format_page
from keras_tkd.reports.page.report import Report, SizedModel

HOSTILE = "</script><img src=http://a.example/x onerror=\"alert('1')\">&amp;{{ 7 * 7 }}/~"
# A dot, a digit: accuracies that no other number of the page is likely to equal.
ACCURACIES = {"baseline": (0.8125, 0.8375, 0.8), "kd": (0.9125, 0.9, 0.9375), HOSTILE: (0.8625, 0.7875, 0.85)}


def make_run(method, seed, accuracy, **more):
    return ComparedRun(method=method, seed=seed, path=f"x/seed{seed}", test_accuracy=accuracy, **more)


def make_comparison(**more):
    runs = [make_run("teacher", 0, 0.975, status="finished")]
    for method, accuracies in ACCURACIES.items():
        agreements = itertools.repeat(None) if method == "baseline" else (0.6125, 0.625, 0.6375)
        runs += [
            make_run(method, seed, accuracy, status="finished", seconds=1.25 + seed, agreement=agreement)
            for (seed, accuracy), agreement in zip(enumerate(accuracies), agreements, strict=False)
        ]
    verdicts = {
        "kd": Verdict(gain=0.0958, interval=(0.0123, 0.1793), p=0.0417, seeds=3, decision=BETTER, detectable=0.09),
        HOSTILE: Verdict(gain=0.0167, interval=(-0.1, 0.1333), p=0.61, seeds=3, decision=NOT_SHOWN, detectable=0.2),
    }
    fields = {
        "methods": tuple(ACCURACIES),
        "seeds": (0, 1, 2),
        "flags": ("--epochs=3", f"--dataset={HOSTILE}"),
        "dataset": HOSTILE,
        "epochs": 3,
        "test_samples": 80,
        "parameters": 666,
        "teacher_accuracy": 0.975,
        "runs": tuple(runs),
        "verdicts": verdicts,
        "versions": {"python": "3.11.7", "machine": HOSTILE},
        "data": {"train": "ab12"},
    }
    return Comparison(**fields | more)


def make_report(**more):
    fields = {
        "title": f"{HOSTILE}: a title",
        "verdict": ("Better than the student alone: kd.", HOSTILE),
        "comparison": make_comparison(),
        "source": "comparison.json",
        "models": (
            SizedModel(name="teacher", test_accuracy=0.975, parameters=72_970, bytes=644_582),
            SizedModel(name=HOSTILE, test_accuracy=0.8333, parameters=666, bytes=None),
        ),
        "command": ("python scripts/compare.py", HOSTILE),
    }
    return Report(**fields | more)


@pytest.fixture(scope="module")
def text():
    return format_page(make_report())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_numbers_of_tables_are_those_of_the_comparison(page):
    values = make_comparison().to_dict()
    assert page.embedded["runs"][2] == values["runs"][2] and page.embedded["verdicts"] == {
        name: verdict | {"interval": list(verdict["interval"])} for name, verdict in values["verdicts"].items()
    }
    sourced = [cell for cell in page.cells if "data-source" in cell]
    for cell in sourced:
        assert float(cell["data-value"]) == follow_pointer(page.embedded, cell["data-source"])
    # Two numbers of each verdict, and of each run seed, accuracy, seconds, and with a teacher the agreement.
    assert len({cell["data-source"] for cell in sourced}) == len(sourced) == 2 * 2 + 9 * 3 + 6


def test_people_read_the_same_numbers(page):
    shown = {cell.get("data-source"): cell["text"] for cell in page.cells}
    assert shown["/verdicts/kd/gain"] == "+9.58" and shown["/verdicts/kd/p"] == "0.042"
    assert shown["/runs/4/test_accuracy"] == "91.25 %" and shown["/runs/4/agreement"] == "61.25 %"
    assert "+1.23 to +17.93" in page.text
    means = [cell["text"] for cell in page.cells if float(cell["data-value"]) == statistics.mean(ACCURACIES["kd"])]
    assert means == ["91.67 %"]


def test_of_images_of_several_classes_it_is_the_exact_match(text):
    several = format_page(make_report(comparison=make_comparison(task="multi_label")))
    assert "test accuracy" in text and "exact match" not in text
    assert "Accuracy is the exact match: the share of test images" in several and "test accuracy" not in several


def test_charts_have_every_run_and_every_verdict(page):
    rows = page.list_values()
    dots = {(row["method"], row["seed"]): row["accuracy"] for row in rows if "seed" in row}
    named = {"student alone" if method == "baseline" else method: each for method, each in ACCURACIES.items()}
    assert dots == {(method, seed): each[seed] for method, each in named.items() for seed in range(3)}
    names = ("gain", "low", "high", "decision")
    gains = {row["method"]: tuple(row[name] for name in names) for row in rows if "decision" in row}
    assert gains == {"kd": (0.0958, 0.0123, 0.1793, BETTER), HOSTILE: (0.0167, -0.1, 0.1333, NOT_SHOWN)}
    assert {"name": "teacher", "accuracy": 0.975} in rows
    costs = [(row["model"], row["accuracy"], row["parameters"]) for row in rows if "parameters" in row]
    assert ("teacher", 0.975, 72_970) in costs and (HOSTILE, 0.8333, 666) in costs
    # Its file's size is not known: it has no point there, and a sentence instead.
    assert f"There is no file of a model: {HOSTILE}." in page.text


def find_legends(spec):
    """The numbers of columns of the legends in a chart that say one."""
    if isinstance(spec, list):
        return [columns for each in spec for columns in find_legends(each)]
    if not isinstance(spec, dict):
        return []
    own = [spec["legend"]["columns"]] if "columns" in (spec.get("legend") or {}) else []
    return own + [columns for each in spec.values() for columns in find_legends(each)]


@pytest.mark.parametrize(("name", "columns"), [("kd", 3), ("student alone", 2), ("x" * 60, 1)])
def test_legends_have_room_on_a_phone(name, columns):
    """270 pixels: three times 20 and 7 letters of 6.2, twice 20 and 13 letters, or once 20 and the limit of 220."""
    models = [{"model": each, "accuracy": 0.5, "parameters": 1, "milliseconds": 0.2} for each in ("teacher", name, "a")]
    assert find_legends(charts.draw_tradeoff(models, "parameters", "x")) == [columns]


@pytest.mark.parametrize(("epochs", "marked"), [(1, [1]), (3, [1, 2, 3]), (4, None)])
def test_of_few_epochs_each_is_marked_once(epochs, marked):
    rows = [{"model": "kd", "images": "train", "epoch": 1 + i, "value": 0.5} for i in range(epochs)]
    axis = charts.draw_curves(rows, ["kd"])["encoding"]["x"]["axis"]
    # Of more, steps of one are wide enough for Vega's own choice.
    assert axis.get("values") == marked and axis["tickMinStep"] == 1


def test_milliseconds_are_no_counts():
    """200m would be 0.2 of them."""
    models = [{"model": "teacher", "accuracy": 0.5, "parameters": 2_000, "milliseconds": 0.2}]
    axes = {cost: charts.draw_tradeoff(models, cost, cost) for cost in ("milliseconds", "parameters")}
    formats = {cost: spec["encoding"]["x"]["axis"]["format"] for cost, spec in axes.items()}
    assert formats == {"milliseconds": "~g", "parameters": "~s"}


def test_what_users_named_is_text(page):
    assert HOSTILE in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(address.startswith(("#", "data:")) for address in page.addresses)


def test_a_page_is_small_and_says_the_same_each_time(text):
    assert text == format_page(make_report())
    assert len(text.encode()) < 6_000_000


def test_the_browser_is_told_to_load_nothing(page):
    policies = [each["content"] for tag, each in page.tags if tag == "meta" and "http-equiv" in each]
    assert len(policies) == 1 and "default-src 'none'" in policies[0] and "http" not in policies[0]


def test_without_its_packages_one_sentence_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "altair" else found(name))
    with pytest.raises(ValueError, match=r'needs altair, not installed here.*pip install "keras_tkd\[report\]"'):
        format_page(make_report())


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_draws_it_without_an_error_or_a_request(text, page, tmp_path):
    (tmp_path / "report.html").write_text(text)
    elements, console = open_in_browser(tmp_path / "report.html")
    assert not console
    assert elements.count('class="marks"') == len(page.charts) == 4
    # On a phone, in the dark: nothing is wider than the screen, and the colours are others.
    look = """<script>setTimeout(() => { document.body.title = [document.documentElement.scrollWidth <= innerWidth,
        getComputedStyle(document.body).backgroundColor].join(" ") }, 3000)</script>"""
    (tmp_path / "report.html").write_text(text + look)
    dark = ("--window-size=390,800", "--blink-settings=preferredColorScheme=0")
    for flags, color in ((dark, "rgb(21, 24, 27)"), ((), "rgb(255, 255, 255)")):
        assert f'title="true {color}"' in open_in_browser(tmp_path / "report.html", *flags)[0]
    # A window is no narrower than 500 pixels; a frame may be. No text of a chart is cut off.
    phone = """<iframe src="report.html" style="width: 390px; height: 900px"></iframe><script>setTimeout(() => {
        const frame = document.querySelector("iframe").contentWindow, page = frame.document
        const end = (element) => element.getBoundingClientRect().right
        const cut = [...page.querySelectorAll(".chart svg")].flatMap(
            (chart) => [...chart.querySelectorAll("text")].filter((text) => end(text) > end(chart) + 1))
        document.body.title = [frame.innerWidth, page.documentElement.scrollWidth <= frame.innerWidth,
            page.querySelectorAll("svg text").length > 50, cut.map((text) => text.textContent).join("|")].join(" ")
        }, 3000)</script>"""
    (tmp_path / "phone.html").write_text(phone)
    assert 'title="390 true true "' in open_in_browser(tmp_path / "phone.html", "--allow-file-access-from-files")[0]
    # It would have told: of a request that the page forbids, and of one that it allows.
    wrong = text.replace("<header>", '<header><img src="http://a.example/x">')
    (tmp_path / "report.html").write_text(wrong)
    assert "a.example" in "".join(open_in_browser(tmp_path / "report.html")[1])
