"""Losses of a replica's share, `gather="local"`, beside those of the whole batch; and what replicas tell each other."""

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import ContrastiveRepresentation, SoftTargets


def linear(seed, name):
    start = keras.initializers.GlorotUniform(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=start)], name=name)


def test_similarities_of_the_batch_and_of_each_share(probed):
    found = {gather: values["sp"] for gather, values in probed["ours"]["similarities_of_a_share"].items()}
    # The teacher sees the images as a, a, a, b, the student as a, b, a, b, a and b at right angles. Rows of G_t are
    # (1, 1, 1, 0) / sqrt(3), three times, and (0, 0, 0, 1); of G_s in turn (1, 0, 1, 0) / sqrt(2) and (0, 1, 0, 1) /
    # sqrt(2). Of two rows of norm 1, the squared difference is 2 - 2 times their product, which is here 2, 1 and 2
    # times 1 / sqrt(6), and 1 / sqrt(2).
    assert found["global"] == pytest.approx((8 - 2 * (5 / 6**0.5 + 1 / 2**0.5)) / 16, abs=1e-6)
    # Of a, a and a, b: 1 - 1 / sqrt(2), as in the example of the loss. Of a, b and a, b: 0.
    assert found["local"] == pytest.approx((1 - 1 / 2**0.5) / 2, abs=1e-6)


def test_shares_count_by_their_images(probed):
    step = probed["ours"]["step_on_similarities_of_shares"]
    np.testing.assert_allclose(step["moved"], step["expected"], rtol=0, atol=1e-6)


def test_a_strategy_of_one_replica_is_one_device(probed):
    alone, one_replica = probed["ours"]["steps_of_one_replica"]
    weights, after, said = one_replica
    assert weights != [[2, 0], [0, 2]] and "Loss 'student_loss' was not finite at step 1" in said
    # The step that is not finite moves nothing.
    assert after == weights
    np.testing.assert_allclose(weights, alone[0], rtol=0, atol=1e-6)


def test_a_label_of_one_replica_is_named(probed):
    said = probed["ours"]["a_label_of_one_share"]
    assert said.startswith("ValueError") and "Received: label 7" in said


def test_a_loss_of_one_replica_is_named_with_where_it_came_from(probed):
    said = probed["ours"]["an_image_of_one_share"]
    assert "Loss 'student_loss' was not finite at step 0" in said
    assert "the images were the first that were not finite" in said


def test_all_workers_stop_for_an_image_of_one(results):
    for worker in ("worker 0", "worker 1"):
        said = results[worker][1]["stopped"]
        assert "Loss 'student_loss' was not finite at step 0" in said
        assert "the images were the first that were not finite" in said


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="must be 'global' or 'local'. Received: gather='all'"):
        Distiller(linear(0, "t"), linear(1, "s"), SoftTargets(), gather="all")
    with pytest.raises(ValueError, match="must be 'global' or 'local'. Received: gather=None"):
        TriKD(linear(0, "t"), linear(1, "s"), gather=None)


def test_a_loss_that_keeps_something_of_every_sample_is_of_the_whole_batch():
    crd = ContrastiveRepresentation([0, 1, 2], 4, 3)
    with pytest.raises(ValueError, match="gather='local' with the loss 'crd'"):
        Distiller(linear(0, "t"), linear(1, "s"), [SoftTargets(), crd], gather="local")


@pytest.mark.parametrize("make", [lambda *models, **given: Distiller(*models, SoftTargets(), **given), TriKD])
def test_it_is_saved(make, tmp_path):
    model = make(linear(0, "teacher"), linear(1, "student"), gather="local")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.gather == "local"
    with pytest.raises(AttributeError, match="`gather` of a .* cannot be set"):
        loaded.gather = "global"
