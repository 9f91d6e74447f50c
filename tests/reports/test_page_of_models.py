"""The parts of a report's page that show what models say: agreement, calibration, embeddings, triplets."""

import base64
import io

import numpy as np
import pytest
from page_reading import Page
from PIL import Image

from keras_tkd.reports.comparison import ComparedRun, Comparison
from keras_tkd.reports.observations import Observations
from keras_tkd.reports.page.page import format_page
from keras_tkd.reports.page.pictures import make_picture
from keras_tkd.reports.page.report import Report

HOSTILE = '<img src=x onerror="alert(1)"></script>'
CLASSES = ("cat", HOSTILE, "ship")
# Of eight images the teacher has the first six right, the student the first three and the last.
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
TEACHER = np.array([0, 1, 2, 0, 1, 2, 1, 2])
STUDENT = np.array([0, 1, 2, 1, 2, 0, 1, 1])


def make_observations(**more):
    generator = np.random.default_rng(0)
    fields = {
        "labels": LABELS,
        "classes": {"teacher": TEACHER, "student": STUDENT, "baseline": LABELS},
        "confidences": {
            "teacher": np.full(8, 0.75, "float32"),
            "student": np.array([0.5, 0.5, 0.5, 0.25, 0.875, 0.75, 0.5, 0.5], "float32"),
            "baseline": np.full(8, 1.0, "float32"),
        },
        "embedded": np.arange(8),
        "embeddings": {role: generator.normal(size=(8, 4)).astype("float32") for role in ("teacher", "student")},
        "pictured": np.arange(8),
        "pictures": np.stack([np.full((4, 4, 1), 10 * image, "uint8") for image in range(8)]),
        "triplets": np.array([[0, 1], [2, 3]]),
        "distances": {"before": np.array([[5.0, 4.0], [3.25, 6.5]]), "after": np.array([[1.5, 9.0], [2.0, 8.0]])},
    }
    return Observations(**fields | more)


def make_page(observations, classes=CLASSES, **more):
    runs = [ComparedRun(method="tkd", seed=4, path="", status="finished", test_accuracy=0.5)]
    comparison = Comparison(
        methods=("tkd",), seeds=(4,), flags=(), dataset="d", epochs=1, test_samples=8, runs=tuple(runs)
    )
    report = Report(
        title="t", verdict=("v",), comparison=comparison, source="results.json", observations=observations,
        classes=classes, shown_seed=4, **more,
    )  # fmt: skip
    return Page(format_page(report))


@pytest.fixture(scope="module")
def page():
    return make_page({"tkd": make_observations()})


def decode(uri, kind="png"):
    head, _, data = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_agreement_by_hand(page):
    """The same class: images 0, 1, 2 and 6. Both right: 0 to 2; teacher alone: 3 to 5; student alone: 7; neither: 6."""
    numbers = [cell["text"] for cell in page.cells]
    place = numbers.index("50.00 %", numbers.index("50.00 %") + 1)
    assert ["50.00 %", "3", "3", "1", "1"] in [numbers[i : i + 5] for i in range(place - 5, place + 5)]


def test_confusion_of_both(page):
    cells = [row for row in page.list_values() if "share" in row]
    teacher, student = cells[:9], cells[9:]
    counts = {(row["label"], row["named"]): row["images"] for row in student if row["images"]}
    # Labels 0 0 0, 1 1 1, 2 2 and what the student names: 0 1 1, 1 2 1, 2 0.
    assert counts == {
        ("cat", "cat"): 1, ("cat", HOSTILE): 2, (HOSTILE, HOSTILE): 2, (HOSTILE, "ship"): 1,
        ("ship", "ship"): 1, ("ship", "cat"): 1,
    }  # fmt: skip
    assert sum(row["images"] for row in teacher if row["label"] == row["named"]) == 6
    assert [row["share"] for row in teacher[:3]] == pytest.approx([2 / 3, 1 / 3, 0])


def test_pictures_of_differences_are_the_images_themselves(page):
    """Where the student is wrong and the teacher right: images 4, 5, 3, by its confidence; the other way round: 7."""
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [each["alt"].split(":")[0] for each in pictures[:4]] == [f"test image {i}" for i in (4, 5, 3, 7)]
    assert [decode(each["src"])[0, 0] for each in pictures[:4]] == [40, 50, 30, 70]
    assert "teacher: cat (75%)" in page.text and "student: ship (88%)" in page.text
    assert "tkd: the teacher is right and the student wrong (3 of 3" in page.text


def test_photographs_keep_their_colours_in_few_bytes():
    pixels = np.full((64, 48, 3), (200, 100, 50), "uint8")
    uri = make_picture(pixels, "a picture", []).uri
    assert np.abs(decode(uri, "jpeg").astype(int) - pixels).max() <= 4 and len(uri) < pixels.size
    small = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype="uint8")
    assert np.array_equal(decode(make_picture(small, "", []).uri), small)


def test_calibration_by_hand(page):
    """The teacher: |0.75 - 6 / 8|. The student: 4 of 5 at 0.5, and none of one each at 0.25, 0.75 and 0.875."""
    shown = [cell for cell in page.cells if cell["text"].endswith(" %")]
    errors = {"teacher": 0.0, "tkd": (5 * 0.3 + 0.25 + 0.75 + 0.875) / 8, "student alone": 0.0}
    values = [float(cell["data-value"]) for cell in shown]
    for error in errors.values():
        assert any(value == pytest.approx(error, abs=1e-12) for value in values)
    ranges = [(row["model"], row["confidence"], row["accuracy"]) for row in page.list_values() if "count" in row]
    assert ("teacher", 0.75, 0.75) in ranges and ("student alone", 1.0, 1.0) in ranges
    assert ("tkd", 0.5, 0.8) in ranges and ("tkd", 0.25, 0.0) in ranges


def test_embeddings_of_teacher_and_student(page):
    titles = [each["aria-label"] for tag, each in page.tags if each.get("class") == "chart"]
    named = [title for title in titles if "embeddings of" in title]
    assert [title.partition(",")[0] for title in named] == [
        f"8 embeddings of {name} by {method}"
        for method in ("principal components", "t-SNE")
        for name in ("teacher", "tkd")
    ]
    points = [row for row in page.list_values() if "image" in row]
    assert [(row["class"], row["right"]) for row in points[:8]] == [
        (CLASSES[label], bool(label == said)) for label, said in zip(LABELS, TEACHER, strict=True)
    ]
    assert max(max(abs(row["x"]), abs(row["y"])) for row in points[:8]) == 1.0


def test_triplets_have_their_distances(page):
    assert "tkd: the positive is the nearer in 1 of 2 before, and in 2 after" in page.text
    assert "distance 3.25 before, 2 after" in page.text and "distance 6.5 before, 8 after" in page.text
    pictures = [attributes for tag, attributes in page.tags if tag == "img"][4:]
    assert [decode(each["src"])[0, 0] for each in pictures] == [0, 10, 20, 30]


def test_names_of_classes_are_text(page):
    assert HOSTILE in page.text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)


def test_what_a_run_lacks_is_left_out_with_a_sentence():
    none = np.empty((0, 2), int)
    lacking = {"pictures": np.empty((0, 0, 0, 0), "uint8"), "triplets": none, "distances": {}}
    page = make_page({"kd": make_observations(**lacking)}, left_out=("sp",))
    assert "No pictures" in page.text and "no method here has triplets" in page.text
    assert "without sp, so that the page stays small" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    only = {"classes": {"student": STUDENT}, "confidences": {"student": np.full(8, 0.5, "float32")}, "embeddings": {}}
    page = make_page({"baseline": make_observations(**lacking, **only)})
    assert "no run of this folder has a teacher" in page.text and "embeddings that are not finite" in page.text
    page = make_page({})
    assert page.text.count("no run of this folder kept what its models say") == 4


def test_many_classes_are_a_table_of_what_is_confused():
    """Of 40 classes the image of class 39 is taken for 0, and two of class 1 for 2."""
    labels, named = np.array([39, 1, 1, *range(40)]), np.array([0, 2, 2, *range(40)])
    arrays = {
        "labels": labels, "classes": {"teacher": labels, "student": named}, "embeddings": {},
        "confidences": {role: np.full(43, 0.5, "float32") for role in ("teacher", "student")},
        "pictured": np.arange(0), "pictures": np.empty((0, 0, 0, 0), "uint8"), "triplets": np.empty((0, 2), int),
    }  # fmt: skip
    page = make_page({"kd": make_observations(**arrays)}, classes=tuple(f"class{i}" for i in range(40)))
    # Of equal counts the first: class 1 for class 2, then class 39.
    text = " ".join(page.text.split())
    assert "what it confuses most" in text and "class1class22" in text and "class39class01" in text
    assert text.index("class1class22") < text.index("class39class01")
