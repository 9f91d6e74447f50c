"""Images in each format: from the content of a file to a header, and from there to pixels.

PNG and JPEG are decoded by TensorFlow, all other formats by Pillow.
"""

import collections.abc
import dataclasses
import io
import struct

import numpy as np

__all__ = ["Header", "open_jpeg", "open_png", "open_with_pillow", "turn_upright"]

_PNG_GREY = (0, 4)  # colour types: grey, grey with alpha
_PNG_ALPHA = (4, 6)
_PILLOW_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_PILLOW_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION = 0x0112  # tag of EXIF and TIFF
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP = 322, 323, 278  # tags of TIFF
_TILE_PIXELS = 2**20  # that a tile or strip may have in any case: of a small image, it is often larger than that
_ALL_ROWS = 2**31 - 1  # or more: how files say that all rows are one strip
_FLATTENED_PIXELS = 2**20  # at a time: on the way a pixel takes several times its room

# What makes an image upright, by its orientation in EXIF: whether rows and columns change places, and then whether the
# order of rows, and that of columns, is reversed.
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclasses.dataclass
class Header:
    """Size of an image, and how it is decoded, as the header of its file says.

    Attributes:
        height, width: in pixels, of the upright image.
        channels: 1 for grey, 3 for colour.
        decode: function from a number of channels, 1 or 3, to the pixels, uint8, not yet upright.
        orientation: what EXIF says.
        is_plain: whether `decode` is TensorFlow's function alone.
    """

    height: int
    width: int
    channels: int
    decode: collections.abc.Callable[[int], np.ndarray]
    orientation: int = 1
    is_plain: bool = False


def turn_upright(pixels, orientation):
    """Returns pixels, `(height, width, channels)`, as EXIF's orientation says that they stand."""
    swapped, rows, columns = _UPRIGHT[orientation]
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def open_png(content):
    """Returns the `Header` of a PNG."""
    import tensorflow as tf

    width, height, depth, colour_type = struct.unpack_from(">IIBB", content, 16)
    grey = colour_type in _PNG_GREY
    chunks = _list_png_chunks(content)
    alpha = colour_type in _PNG_ALPHA or b"tRNS" in chunks
    is_plain = depth < 16 and not alpha

    def decode(channels):
        if is_plain:
            return tf.io.decode_image(content, channels, expand_animations=False).numpy()
        own = 4 if alpha else 1 if grey else 3
        pixels = tf.io.decode_png(content, own, tf.uint16 if depth == 16 else tf.uint8).numpy()
        # TensorFlow has no two channels: grey with alpha comes as three equal ones with alpha.
        return _to_opaque_bytes(pixels[..., [0, 3]] if grey and alpha else pixels, channels)

    return _upright(height, width, 1 if grey else 3, decode, chunks.get(b"eXIf", b""), is_plain)


def _list_png_chunks(content):
    """Returns the contents of a PNG's chunks that are no pixels, by their names."""
    chunks, position = {}, 8
    while position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name in (b"tRNS", b"eXIf"):
            chunks[name] = content[position + 8 : position + 8 + length]
        position += 12 + length
    return chunks


def open_jpeg(content):
    """Returns the `Header` of a JPEG."""
    import tensorflow as tf

    height, width, channels = map(int, tf.io.extract_jpeg_shape(content).numpy())

    # TensorFlow converts CMYK by itself.
    def decode(channels):
        return tf.io.decode_image(content, channels, expand_animations=False).numpy()

    return _upright(height, width, 1 if channels == 1 else 3, decode, _find_jpeg_exif(content), is_plain=True)


def _find_jpeg_exif(content):
    """Returns what a JPEG's EXIF segment holds, or nothing."""
    position = 2
    while position + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, position)
        # What follows the start of a scan are pixels, and what is no marker is none of ours.
        if marker < 0xFF00 or marker == 0xFFDA:
            break
        segment = content[position + 4 : position + 2 + length]
        if marker == 0xFFE1 and segment.startswith(b"Exif\0\0"):
            return segment
        # Any number of bytes 0xFF may stand before a marker.
        position += 1 if marker == 0xFFFF else 2 + length
    return b""


def open_with_pillow(kind, content, check_size, max_pixels):
    """Returns the `Header` of an image in another format.

    Args:
        kind: Pillow's name of the format.
        content: bytes of the file.
        check_size: function `(height, width, allowed=max_pixels)` that raises for too large a size, before memory is
            taken for it.
        max_pixels: how many pixels the image may have.
    """
    import PIL.Image
    import PIL.ImageOps

    # Pillow opens files lazily, but for WebP, whose canvas is taken at once.
    if kind == "WEBP":
        check_size(*_measure_webp(content))
    image = PIL.Image.open(io.BytesIO(content), formats=[kind])
    check_size(image.height, image.width)
    exif = b""
    if kind == "TIFF":
        # Tiles and strips are decoded whole, and may be declared larger than the image.
        rows = image.tag_v2.get(_ROWS_PER_STRIP, 1)
        for height, width in (
            (image.tag_v2.get(_TILE_LENGTH, 1), image.tag_v2.get(_TILE_WIDTH, 1)),
            (1 if rows >= _ALL_ROWS else rows, max(image.size)),
        ):
            check_size(height, width, max(max_pixels, _TILE_PIXELS))
    elif kind == "WEBP":
        exif = image.info.get("exif", b"")
    # Pillow scales a PGM's values to 16 bits. Of other formats, nobody says what 32 bits mean.
    if image.mode == "F" or (image.mode == "I" and kind != "PPM"):
        raise ValueError(f"Pixels of mode {image.mode}")
    grey = image.mode in _PILLOW_GREY

    def decode(channels):
        # TIFF's orientation is honoured by Pillow, when the image is loaded.
        image.load()
        if image.mode.startswith("I"):
            return _to_opaque_bytes(np.asarray(image).astype(np.uint16)[..., np.newaxis], channels)
        alpha = image.mode in _PILLOW_ALPHA or "transparency" in image.info
        pixels = np.asarray(image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")))
        return _to_opaque_bytes(pixels.reshape(*pixels.shape[:2], -1), channels)

    return _upright(image.height, image.width, 1 if grey else 3, decode, exif)


def _measure_webp(content):
    """Returns `(height, width)` of a WebP, as its first chunk says."""
    chunk = content[12:16]
    if chunk == b"VP8X":
        width, height = content[24:27], content[27:30]
        return 1 + int.from_bytes(height, "little"), 1 + int.from_bytes(width, "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", content, 26)
    return height & 0x3FFF, width & 0x3FFF


def _upright(height, width, channels, decode, exif, is_plain=False):
    orientation = _read_orientation(exif.removeprefix(b"Exif\0\0"))
    if _UPRIGHT[orientation][0]:
        height, width = width, height
    return Header(height, width, channels, decode, orientation, is_plain)


def _read_orientation(exif):
    """Returns the orientation, 1 to 8, that EXIF says; 1 where it says none, or is damaged: the pixels are whole."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if value in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


def _to_opaque_bytes(pixels, channels):
    """Puts pixels on white where they have alpha, scales them to 8 bits, and repeats grey where colour is asked for.

    Args:
        pixels: `(height, width, 1..4)`, uint8 or uint16; alpha is the last of two or four channels.
        channels: 1 or 3.
    """
    height, width, own = pixels.shape
    white = np.iinfo(pixels.dtype).max
    alpha = own in (2, 4)
    result = np.empty((height, width, channels), np.uint8)
    step = max(1, _FLATTENED_PIXELS // max(1, width))
    for start in range(0, height, step):
        rows = pixels[start : start + step]
        divisor = 1
        if alpha:
            opacity = rows[..., -1:].astype(np.uint64)
            rows = rows[..., :-1] * opacity + white * (white - opacity)
            divisor *= white
        if pixels.dtype == np.uint16:
            divisor *= 257  # 65535 / 255
        if divisor > 1:
            # Rounded to the nearest: all divisors are odd, and no value lies in the middle.
            rows = (rows.astype(np.uint64) + divisor // 2) // divisor
        result[start : start + step] = rows
    return result
