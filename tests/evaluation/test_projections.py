"""Projections of embeddings onto a plane."""

import numpy as np
import pytest

from keras_tkd.evaluation.projections import project_by_pca, project_by_tsne


def make_groups():
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3)[:2] * 40, 20, axis=0)
    return centres + generator.normal(size=(40, 3))


def test_principal_components_are_those_of_the_singular_values():
    embeddings = make_groups()
    left, values, _ = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)
    # Up to the sign of each.
    assert np.abs(project_by_pca(embeddings)) == pytest.approx(np.abs(left[:, :2] * values[:2]))


def test_embeddings_of_one_number_are_a_line():
    plane = project_by_pca([[1.0], [2.0], [4.0]])
    assert plane.shape == (3, 2) and not plane[:, 1].any()
    assert np.abs(np.diff(plane[:, 0])) == pytest.approx([1.0, 2.0])


def test_tsne_keeps_near_what_is_near_and_says_the_same_twice():
    embeddings = make_groups()
    plane = project_by_tsne(embeddings)
    distances = np.linalg.norm(plane[:, None] - plane, axis=-1) + np.diag([np.inf] * 40)
    nearest = distances.argmin(axis=1)
    assert ((nearest < 20) == (np.arange(40) < 20)).all()
    assert np.array_equal(plane, project_by_tsne(embeddings))


@pytest.mark.filterwarnings("error")
def test_few_and_equal_images_are_taken_without_a_word():
    assert not project_by_pca(np.ones((5, 4))).any()
    assert np.isfinite(project_by_tsne(np.ones((5, 4)))).all()
