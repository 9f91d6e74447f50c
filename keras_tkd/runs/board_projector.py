"""Embeddings with thumbnails and labels, as TensorBoard's projector reads them."""

import numpy as np
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector

from keras_tkd.runs.board_pictures import draw_sprite

__all__ = ["write_projector"]

_THUMBNAIL = 32  # pixels; a thousand of them are a picture of 1024x1024
_MOST_WIDTH = 128  # numbers of an embedding: TensorBoard reads them as text, which grows large
_SPRITE, _LABELS = "thumbnails.png", "labels.tsv"


def write_projector(folder, images, columns, embeddings):
    """Writes embeddings of some images beside the event files of a run.

    Of embeddings wider than 128, the first 128 principal components are written.

    Args:
        folder: the folder of the run, which exists.
        images: `(samples, height, width, channels)`, uint8.
        columns: dict from a heading to a text for each image, by which TensorBoard labels and colours the points.
        embeddings: dict from a name to `(samples, width)`.
    """
    Image.fromarray(draw_sprite(images, _THUMBNAIL)).save(folder / _SPRITE)
    # A tab or line break in the name of a class would be another column or image.
    rows = ["\t".join(map(_clean, row)) for row in zip(*columns.values(), strict=True)]
    (folder / _LABELS).write_text("\n".join(["\t".join(columns), *rows]) + "\n", encoding="utf-8")
    config = projector.ProjectorConfig()
    for name, values in embeddings.items():
        # As text: of a binary file TensorBoard finds out by an error that it is none, which not every such file makes.
        np.savetxt(folder / f"{name}.tsv", _narrow(values), fmt="%.6g", delimiter="\t")
        embedding = config.embeddings.add(tensor_name=name, tensor_path=f"{name}.tsv", metadata_path=_LABELS)
        embedding.sprite.image_path = _SPRITE
        embedding.sprite.single_image_dim.extend([_THUMBNAIL, _THUMBNAIL])
    (folder / "projector_config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")


def _narrow(values):
    """Turns wide embeddings so that the first numbers hold most of their spread, and leaves the others out."""
    if values.shape[1] <= _MOST_WIDTH:
        return values
    centred = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:_MOST_WIDTH].T


def _clean(text):
    return " ".join(str(text).split())
