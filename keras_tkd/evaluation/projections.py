"""Projections of embeddings onto a plane, to be looked at."""

import numpy as np

__all__ = ["project_by_pca", "project_by_tsne"]

_PERPLEXITY = 30


def project_by_pca(embeddings):
    """Projects embeddings onto their two principal components.

    Args:
        embeddings: `(samples, width)`, two samples or more.

    Returns:
        float64 `(samples, 2)`; the second column is 0 where embeddings have one number.

    Example: all variance is along the first axis.

    >>> np.abs(project_by_pca([[0.0, 5.0], [2.0, 5.0]])).round(6).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    from sklearn.decomposition import PCA

    embeddings = np.asarray(embeddings, "float64")
    if embeddings.shape[1] == 1:
        embeddings = np.pad(embeddings, ((0, 0), (0, 1)))
    # Equal embeddings, as a collapsed model's, have no variance that shares could be taken of.
    with np.errstate(invalid="ignore"):
        return PCA(n_components=2, svd_solver="full").fit_transform(embeddings)


def project_by_tsne(embeddings):
    """Projects embeddings by t-SNE, which keeps near what is near; distances between groups say little.

    It starts from the principal components and computes by one thread, so that the same embeddings give the same plane.

    Args:
        embeddings: `(samples, width)`, four samples or more.

    Returns:
        float64 `(samples, 2)`.

    Reference: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008; scikit-learn's `TSNE`.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = project_by_pca(embeddings)
    # As scikit-learn scales its own start.
    start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(_PERPLEXITY, (len(start) - 1) / 3)
    with threadpool_limits(limits=1):
        # Sums of several threads are rounded in the order in which these end.
        tsne = TSNE(init=start.astype("float32"), perplexity=perplexity, random_state=0)
        return tsne.fit_transform(np.asarray(embeddings, "float32")).astype("float64")
