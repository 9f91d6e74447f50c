"""Pictures for TensorBoard, drawn by NumPy and Pillow: confusion matrices, triplets, thumbnails."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

__all__ = ["draw_confusion", "draw_sprite", "draw_triplet"]

_PAPER, _INK, _FAINT = (255, 255, 255), (32, 33, 36), (218, 220, 224)
_RIGHT, _WRONG = (26, 115, 232), (197, 57, 41)  # blue and red, which nearly everyone can tell apart
_LINE = 17  # pixels of a line of text
_TILE = 96
_MATRIX = 512
_NAMED_CLASSES = 32  # more names than these do not fit beside the rows


def draw_confusion(matrix, class_names):
    """Draws a confusion matrix: rows are the labels, columns what the model named.

    A cell is the darker the larger its share of the row: blue on the diagonal, red beside it. Where there is room,
    cells hold their counts, and rows and columns the names of the classes.

    Args:
        matrix: `(classes, classes)` counts, rows are the labels.
        class_names: one for each class.

    Returns:
        uint8 `(height, width, 3)`.
    """
    matrix = np.asarray(matrix)
    count = len(matrix)
    cell = max(2, min(40, _MATRIX // count))
    names = [_shorten(name) for name in class_names] if count <= _NAMED_CLASSES else []
    width = max((_measure(name) for name in names), default=0)
    margin = 8 + max(width, _LINE)
    side = count * cell
    image = Image.new("RGB", (margin + side + 8, margin + side + _LINE + 8), _PAPER)
    draw = ImageDraw.Draw(image)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    colors = np.where(np.eye(count, dtype=bool)[..., None], _RIGHT, _WRONG)
    # The root: of a hundred images one that is taken for another is to be seen.
    strength = np.sqrt(shares)[..., None]
    pixels = np.rint(_PAPER + strength * (colors - np.array(_PAPER))).astype(np.uint8)
    image.paste(Image.fromarray(np.kron(pixels, np.ones((cell, cell, 1), np.uint8))), (margin, margin))
    draw.rectangle((margin - 1, margin - 1, margin + side, margin + side), outline=_FAINT)
    for row, name in enumerate(names):
        middle = margin + (row + 0.5) * cell
        _write(draw, (margin - 4, middle), name, "right")
        if width < cell:
            _write(draw, (middle, margin - 4 - _LINE / 2), name, "middle")
        else:
            _write_upwards(image, middle, margin - 4, name)
    if cell >= 8 + _measure(str(matrix.max(initial=0))):
        for row, column in zip(*np.nonzero(matrix), strict=True):
            place = margin + (column + 0.5) * cell, margin + (row + 0.5) * cell
            ink = _PAPER if strength[row, column, 0] > 0.6 else _INK
            _write(draw, place, str(matrix[row, column]), "middle", ink)
    _write(draw, (margin, margin + side + 4 + _LINE / 2), "rows: labels   columns: what the model named", "left")
    return np.asarray(image)


def draw_triplet(images, names, distances):
    """Draws anchor, positive and negative side by side, with their classes and how far they are from the anchor.

    The frame of the two others is blue where the positive is the nearer one, as it should be, and red where it is not.

    Args:
        images: `(3, height, width, channels)`, uint8.
        names: the class of each, three strings.
        distances: from the anchor to the positive, and to the negative.

    Returns:
        uint8 `(height, width, 3)`.
    """
    step = _TILE + 16
    image = Image.new("RGB", (3 * step + 16, _TILE + 32 + 3 * _LINE), _PAPER)
    draw = ImageDraw.Draw(image)
    frame = _RIGHT if distances[0] < distances[1] else _WRONG
    roles = ("anchor", "", _FAINT), ("positive", distances[0], frame), ("negative", distances[1], frame)
    for place, (pixels, name, (role, distance, color)) in enumerate(zip(images, names, roles, strict=True)):
        left, top = 16 + place * step, 12
        draw.rectangle((left - 4, top - 4, left + _TILE + 3, top + _TILE + 3), fill=color)
        image.paste(Image.fromarray(_fit(pixels, _TILE)), (left, top))
        lines = [role, _shorten(name), f"distance {distance:.3g}" if distance != "" else ""]
        for line, text in enumerate(lines):
            _write(draw, (left + _TILE / 2, top + _TILE + 8 + (line + 0.5) * _LINE), text, "middle")
    return np.asarray(image)


def draw_sprite(images, side):
    """Draws thumbnails in rows of a square, as TensorBoard's projector reads them.

    Args:
        images: `(samples, height, width, channels)`, uint8.
        side: height and width of a thumbnail in pixels.

    Returns:
        uint8 `(height, width, 3)`.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sprite = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for place, pixels in enumerate(images):
        top, left = (place // columns) * side, (place % columns) * side
        sprite[top : top + side, left : left + side] = _fit(pixels, side)
    return sprite


def _fit(pixels, side):
    """Makes an image, of any size, a square of three channels, without another shape: the rest stays white."""
    # Grey, or the first three channels of more.
    channels = np.repeat(pixels[..., :1], 3, axis=-1) if pixels.shape[-1] < 3 else pixels[..., :3]
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Small pictures are enlarged as they are: a smooth digit of 8x8 pixels would be another than the model sees.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    square = np.full((side, side, 3), 255, np.uint8)
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(channels)).resize(size, how))
    top, left = (side - resized.shape[0]) // 2, (side - resized.shape[1]) // 2
    square[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return square


def _shorten(name, most=14):
    # Pillow without FreeType has a font of these characters alone, and an error for others.
    text = str(name).encode("latin-1", "replace").decode("latin-1")
    return text if len(text) <= most else f"{text[: most - 2]}.."


@functools.cache
def _load_font():
    # Once: Pillow would decode it anew for each text. Without FreeType it has a font of one size.
    return ImageFont.load_default(13) if features.check("freetype2") else ImageFont.load_default()


def _measure(text):
    return math.ceil(_load_font().getlength(text))


def _write(draw, place, text, side, ink=_INK):
    """Writes a line whose middle, left or right end is at a place, and which is centred there in height."""
    font = _load_font()
    left, top, right, bottom = font.getbbox(text or " ")
    shift = {"left": 0, "middle": (right - left) / 2, "right": right - left}[side]
    draw.text((place[0] - shift - left, place[1] - (top + bottom) / 2), text, fill=ink, font=font)


def _write_upwards(image, middle, bottom, text):
    """Writes a line that goes up from a place."""
    line = Image.new("RGB", (_measure(text) + 2, _LINE), _PAPER)
    _write(ImageDraw.Draw(line), (0, _LINE / 2), text, "left")
    line = line.rotate(90, expand=True)
    image.paste(line, (round(middle - line.width / 2), bottom - line.height))
