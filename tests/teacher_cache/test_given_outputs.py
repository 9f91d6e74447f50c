"""A cache of outputs that another program computed: each sample gets its own row, or there is an error."""

import itertools
import math
import re

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TeacherCache, data
from keras_tkd.losses import SimilarityPreserving, SoftTargets
from keras_tkd.teacher_cache import label_agreement

COUNT, CLASSES = 24, 3
LABELS = np.arange(COUNT) % CLASSES
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 2), dtype=np.uint8)
# Right on each sample, and each row another.
LOGITS = 9.0 * np.eye(CLASSES)[LABELS] + np.random.default_rng(1).normal(size=(COUNT, CLASSES))
NAMES = np.array([f"class/{number}.png" for number in range(COUNT)])
SHUFFLED = np.random.default_rng(2).permutation(COUNT)


def read_rows(cache, **pipeline):
    """What the batches bring, by sample and view."""
    settings = {"seed": 5, "negatives": None} | pipeline
    rows = {}
    for batch, _ in cache.attach(data.triplet_dataset(IMAGES, LABELS, 7, **settings)):
        views = batch["view"].numpy() if "view" in batch else np.zeros(len(batch["index"]), int)
        for name, values in batch["teacher"].items():
            rows |= {(name, v, i): row for v, i, row in zip(views, batch["index"].numpy(), values.numpy(), strict=True)}
    return rows


def test_each_sample_has_its_row():
    features = np.arange(COUNT * 4.0).reshape(COUNT, 2, 2)
    cache = TeacherCache.from_arrays(LOGITS, LABELS, features={"a": features})
    rows = read_rows(cache)
    assert len(rows) == 2 * COUNT and (cache.views, cache.samples) == (1, COUNT)
    for sample in range(COUNT):
        np.testing.assert_array_equal(rows["logits", 0, sample], LOGITS[sample].astype("float32"))
        np.testing.assert_array_equal(rows["a", 0, sample], features[sample])
    assert cache.shapes == {"logits": (None, CLASSES), "a": (None, 2, 2)}


@pytest.mark.parametrize("ids", [np.arange(COUNT), NAMES], ids=["numbers", "names"])
def test_rows_in_any_order_by_their_ids(ids):
    """More rows than samples too: the last four samples are not asked for."""
    some = COUNT - 4
    arguments = {"ids": ids[SHUFFLED], "sample_ids": ids[:some]}
    cache = TeacherCache.from_arrays(LOGITS[SHUFFLED], LABELS[:some], features={"a": LOGITS[SHUFFLED]}, **arguments)
    for name in ("logits", "a"):
        np.testing.assert_array_equal(cache.outputs[name][0], LOGITS[:some].astype("float32"))


def test_ids_as_a_column_of_a_table_holds_them():
    """Texts as objects, on both sides."""
    names = NAMES.astype(object)
    for ids, sample_ids in ((names, names), (NAMES, names), (names, NAMES)):
        cache = TeacherCache.from_arrays(LOGITS[SHUFFLED], LABELS, ids=ids[SHUFFLED], sample_ids=sample_ids)
        np.testing.assert_array_equal(cache.outputs["logits"][0], LOGITS.astype("float32"))


# Of as many samples of class 0 as of class 1 a teacher that knows half of it is right on 3/4. Of 8, it is right on 3 or
# less in (1 + 8 * 3 + 28 * 9 + 56 * 27) / 4**8 = 2.7 % of cases, on 2 or less in 0.4 %. Of 40, chance brings 20 right,
# and 3/4 * 40 = 30 are right within 2 * sqrt(40 * 3/16) = 5.5.
@pytest.mark.parametrize(
    ("samples", "right", "refused"),
    [(8, 6, False), (8, 3, False), (8, 2, True), (2, 0, False), (40, 20, True), (40, 25, False), (4000, 2000, True)],
)
def test_few_samples_at_chance_are_a_warning(samples, right, refused, capsys):
    labels = np.arange(samples) % 2
    # Wrong on as many of each class as of the other, as nearly as that goes.
    named = np.where(np.arange(samples) < right, labels, 1 - labels)
    logits = np.eye(2)[named] * 9 - 1
    if refused:
        with pytest.raises(ValueError, match="must agree with the labels more than chance does. Received"):
            TeacherCache.from_arrays(logits, labels)
    else:
        TeacherCache.from_arrays(logits, labels, name="few")
        expected = f"Warning: `few` must agree .* so few .* Received: {right / samples:.2%} right of {samples} samples"
        assert re.search(expected, capsys.readouterr().out)


def test_the_logarithm_of_probabilities():
    probabilities = np.array([[0.5, 0.5, 0], [0.25, 0.75, 0]], "float32")
    cache = TeacherCache.from_arrays(probabilities, [0, 1])
    small = math.log(1e-7)
    expected = [[math.log(0.5), math.log(0.5), small], [math.log(0.25), math.log(0.75), small]]
    np.testing.assert_allclose(cache.outputs["logits"][0], expected, rtol=1e-6)
    assert cache.made_from["teacher"] == "given as probabilities" and (probabilities[:, 2] == 0).all()
    # Said to be logits, they stay as they are.
    kept = TeacherCache.from_arrays(probabilities, [0, 1], kind="logits")
    np.testing.assert_array_equal(kept.outputs["logits"][0], probabilities)


def test_classes_of_a_teacher_that_knows_more():
    """Of probabilities the other classes count in the sums, and are dropped after."""
    wide = np.full((COUNT, 5), 0.05)
    wide[np.arange(COUNT), np.array([4, 0, 2])[LABELS]] = 0.8
    cache = TeacherCache.from_arrays(wide, LABELS, classes=[4, 0, 2])
    expected = np.where(np.eye(CLASSES)[LABELS] == 1, math.log(0.8), math.log(0.05))
    np.testing.assert_allclose(cache.outputs["logits"][0], expected, rtol=1e-5)


def test_the_logit_of_probabilities_where_an_image_may_have_several_classes():
    """log(p / (1 - p)), with 0 and 1 as 1e-7 and 1 - 1e-7."""
    probabilities = np.array([[0.8, 0.0], [0.25, 1.0], [0.5, 0.5]], "float32")
    labels = np.array([[1, 0], [0, 1], [1, 1]])
    cache = TeacherCache.from_arrays(probabilities, labels)
    bound = math.log(1e-7)
    expected = [[math.log(4), bound], [-math.log(3), -bound], [0, 0]]
    np.testing.assert_allclose(cache.outputs["logits"][0], expected, rtol=1e-5, atol=1e-6)
    assert cache.made_from["teacher"] == "given as probabilities" and probabilities[1, 1] == 1
    kept = TeacherCache.from_arrays(probabilities, labels, kind="logits")
    np.testing.assert_array_equal(kept.outputs["logits"][0], probabilities)


def make_rows(samples):
    """Multi-hot rows of four classes, of which the second goes with the first, and logits that know them well."""
    generator = np.random.default_rng(4)
    rows = generator.integers(0, 2, (samples, 4))
    rows[:, 1] = np.where(generator.random(samples) < 0.8, rows[:, 0], rows[:, 1])
    return rows, 4.0 * rows - 2 + generator.normal(size=rows.shape)


def test_rows_of_several_classes_that_agree(capsys):
    rows, logits = make_rows(60)
    rows[:, 3] = 0  # of a class that no sample has, nothing can be said
    np.testing.assert_array_equal(TeacherCache.from_arrays(logits, rows).outputs["logits"][0], logits.astype("float32"))
    # So of half of them: the others say no more than chance.
    logits[:, 2:] = np.random.default_rng(5).normal(size=(60, 2))
    TeacherCache.from_arrays(logits, rows)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("order", "columns", "message"),
    [
        (np.random.default_rng(6).permutation(200), [0, 1, 2, 3], "ranked right, of 200 samples. The rows seem to be"),
        # The second class goes with the first: each of the two columns knows the other's class, too.
        (np.arange(200), [1, 2, 3, 0], "another order .* class 1 are ranked first by column 0, and so with 3 of 4"),
        (np.arange(200), [0, 1, 2], "column for each class .* 3 columns, and labels of 4 classes"),
    ],
)
def test_rows_of_several_classes_in_another_order(order, columns, message):
    rows, logits = make_rows(200)
    with pytest.raises(ValueError, match=message):
        TeacherCache.from_arrays(logits[order][:, columns], rows)


def test_few_rows_of_several_classes_at_chance_are_a_warning(capsys):
    TeacherCache.from_arrays([[-1.0, 1.0], [1.0, -1.0]], [[1, 0], [0, 1]], name="few")
    expected = "`few` must agree .* so few cannot show. Received: a mean of 0.00% of the pairs .* of 2 samples"
    assert re.search(expected, capsys.readouterr().out)


def test_the_sum_over_classes_varies_over_orders_of_the_rows_as_it_says():
    """Against all 720 orders of six rows, classes that go together among them."""
    generator = np.random.default_rng(7)
    ranks = generator.normal(size=(6, 3))
    ranks[:, 1] += ranks[:, 0]
    has = generator.integers(0, 2, (6, 3)).astype(float)
    ranks, has = ranks - ranks.mean(0), has - has.mean(0)
    sums = [np.sum(ranks[list(order)] * has) for order in itertools.permutations(range(6))]
    assert np.mean(sums) == pytest.approx(0, abs=1e-12)
    assert label_agreement._deviate_by_order(ranks, has) == pytest.approx(np.std(sums))


@pytest.mark.parametrize(
    ("logits", "kind", "message"),
    [
        ([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], None, "sum to 1, as of a softmax.*labels.argmax"),
        ([[0.25, 0.75], [0.5, 0.5], [2.0, 0.0]], "probabilities", "from 0 to 1. Received: numbers from 0 to 2"),
    ],
)
def test_what_cannot_be_of_several_classes(logits, kind, message):
    with pytest.raises(ValueError, match=message):
        TeacherCache.from_arrays(np.array(logits), [[1, 0], [0, 1], [1, 0]], kind=kind)


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 5, 2))
    features = keras.layers.Dense(4, name="features")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(features))


def test_views_are_those_of_a_cache_that_ran_the_teacher(tmp_path):
    teacher, views = network(), {"augment": data.crop_and_flip, "seed": 5, "views": 3}
    losses = [SoftTargets(), SimilarityPreserving("features", "features")]
    built = TeacherCache.build(teacher, IMAGES, tmp_path / "cache", losses=losses, progress=False, **views)
    both = keras.Model(teacher.input, [teacher.output, teacher.get_layer("features").output])
    # As another program would: batch by batch, in the order in which the views come.
    answers = [both(images) for images in data.view_batches(IMAGES, 10, **views).as_numpy_iterator()]
    logits, features = (np.concatenate(parts).reshape(3, COUNT, -1) for parts in zip(*answers, strict=True))
    seen = {"augment": data.crop_and_flip, "seed": 5}
    # An untrained teacher: the labels are those that it names.
    cache = TeacherCache.from_arrays(logits, features={"features": features}, **seen)
    pipeline = views | {"initial_epoch": 2}
    given, kept = read_rows(cache, **pipeline), read_rows(built, **pipeline)
    assert given.keys() == kept.keys() and len(given) == 2 * COUNT
    for key, row in kept.items():
        np.testing.assert_allclose(given[key], row, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="The teacher must have seen what the student sees"):
        cache.attach(data.triplet_dataset(IMAGES, LABELS, 7, seed=5))


def test_a_step_has_the_losses_of_the_teacher_itself():
    teacher, loss = network(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    cache = TeacherCache.from_arrays(teacher.predict(IMAGES, verbose=0))
    batches = data.triplet_dataset(IMAGES, LABELS, 8, seed=0, training=False)
    logs = []
    for model, source in ((teacher, batches), (None, cache.attach(batches))):
        keras.utils.set_random_seed(4)
        student = keras.Sequential([keras.Input((6, 5, 2)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
        distiller = Distiller(model, student, SoftTargets(temperature=4.0))
        distiller.compile("sgd", loss)
        logs.append(distiller.evaluate(source, verbose=0, return_dict=True))
    assert logs[0]["kd"] == pytest.approx(logs[1]["kd"], rel=1e-5) and logs[0]["agreement"] == logs[1]["agreement"]


@pytest.mark.parametrize(
    ("logits", "arguments", "message"),
    [
        (LOGITS[SHUFFLED], {}, r"agree with the labels .* rows seem to be in another order.*permuted.*or with ids"),
        (
            LOGITS[:, [1, 2, 0]],
            {},
            r"columns seem to be in another order.*class 0 have their largest output in column 2",
        ),
        (LOGITS[:-1], {}, r"here \(24, ...\), a row for each sample or id. Received: logits of shape \(23, 3\)"),
        (LOGITS[:, :2], {}, "column for each class of the labels. Received: 2 columns, and label 2"),
        (LOGITS[:, 0], {}, r"of shape \(samples, classes\), or"),
        (LOGITS[:0], {}, "not empty"),
        (
            np.where(np.arange(COUNT)[:, None] == 5, np.nan, LOGITS),
            {},
            "finite .* for sample 5 in view 0, and so 1 of 24",
        ),
        (LOGITS * 1e39, {}, "must be finite numbers in float32"),
        (LOGITS.astype(complex), {}, "must be numbers. Received: logits of dtype complex128"),
        (LOGITS.astype(object), {}, "dtype object"),
        (np.clip(LOGITS / 20 + 0.3, 0, 1), {}, "each row sums to 1. Received: numbers from .*kind='logits'"),
        (LOGITS, {"kind": "probabilities"}, "probabilities of which each row sums to 1"),
        (
            LOGITS,
            {"kind": "softmax"},
            "`kind` must be 'logits' or 'probabilities', or left out. Received: kind='softmax'",
        ),
        (LOGITS, {"ids": NAMES}, "as the samples' are: whole numbers, '0' for one. Received: texts"),
        (LOGITS, {"ids": NAMES, "sample_ids": NAMES[::-1][:5]}, "must be of the same samples"),
        (LOGITS, {"ids": np.arange(COUNT) + 2}, "none for 2 of 24 samples: 0, 1. The first of the ids is '2'"),
        (LOGITS, {"ids": np.arange(COUNT) // 2}, "must differ. Received: '0' twice"),
        (LOGITS, {"ids": np.arange(COUNT + 1)}, r"here \(25, ...\), a row for each sample or id"),
        (LOGITS, {"ids": np.arange(COUNT)[:, None]}, "Received: whole numbers of shape"),
        (LOGITS, {"sample_ids": NAMES}, "`sample_ids` go with `ids`"),
        (LOGITS, {"features": {"a": LOGITS[:5]}}, r"`logits/a` must be \(samples, ...\)"),
        (LOGITS, {"augment": data.crop_and_flip}, "must have an axis of views where images are augmented"),
        (np.stack([LOGITS] * 2), {}, "no more than one view where they are not"),
        (np.stack([LOGITS, LOGITS[SHUFFLED]]), {"augment": data.crop_and_flip}, "right of 24 samples in view 1"),
        (LOGITS, {"seed": -1}, "`seed` must be in"),
    ],
)
def test_what_cannot_be_right_is_refused(logits, arguments, message):
    with pytest.raises(ValueError, match=message):
        TeacherCache.from_arrays(logits, LABELS, **arguments)
