"""Image files: each is measured by its header before it is decoded, and comes out upright, of 8 bits, without alpha.

Which format a file has, its first bytes say, and not its name.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import threading

from keras_tkd.data.image_formats import open_jpeg, open_png, open_with_pillow, turn_upright

__all__ = [
    "BadImageError",
    "ENDINGS",
    "FORMATS",
    "ImageMeasures",
    "hash_content",
    "measure_image",
    "pillow_unlimited",
    "read_image",
]

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff")
FORMATS = "BMP, GIF, PPM, PGM, TIFF, WebP, PNG or JPEG"

# The first bytes of a file, by the names that Pillow has for the formats.
_SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "BMP": re.compile(rb"BM"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "PPM": re.compile(rb"P[1-6]\s"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
}
_PIXEL_BYTES = 8  # of the largest, uncompressed: red, green, blue and alpha of 16 bits
_FILE_BYTES = 2**26  # that any file may have: what is no pixel in it, such as a preview, is not bounded by them


class BadImageError(ValueError):
    """A file that is no image which can be read.

    Attributes:
        path: of the file.
        reason: a few words that follow the path.
        too_large: whether it is refused for its size, and nothing of it was decoded.
    """

    def __init__(self, path, reason, rule=None):
        self.path, self.reason, self.too_large = path, reason, rule is not None
        rule = rule or (
            f"An image must be a whole {FORMATS} file. Received: {{path}}, which {reason}. Repair it or remove it; or "
            "leave it out: `skip_bad_images` (--skip_bad_images)"
        )
        # Put in last: a path may have braces of its own.
        super().__init__(rule.replace("{path}", str(path)))


@dataclasses.dataclass(frozen=True)
class ImageMeasures:
    """Facts that are known of an image file before it is decoded.

    Attributes:
        shape: `(height, width, channels)` of the upright image.
        is_plain: whether `tf.io.decode_image` of the file's content is all that `read_image` does.
        bytes: size of the file.
        checksum: 64 bits of a hash of the file's content.
    """

    shape: tuple[int, int, int]
    is_plain: bool
    bytes: int
    checksum: int


def measure_image(path, max_pixels):
    """Returns the `ImageMeasures` of an image; nothing but its header is decoded.

    Args:
        path: of the file.
        max_pixels: how many pixels it may have.

    Raises:
        BadImageError: what is no image, or too large a one, or cannot be opened.
    """
    content = _read_content(path, max_pixels)
    header = _read_header(path, content, max_pixels)
    is_plain = header.is_plain and header.orientation == 1
    return ImageMeasures((header.height, header.width, header.channels), is_plain, len(content), hash_content(content))


def hash_content(content):
    """Returns 64 bits of a hash of a file's content, as `ImageMeasures` has it."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def read_image(path, channels, max_pixels):
    """Returns the pixels of an image, `(height, width, channels)`, uint8, upright.

    Pixels of 16 bits are scaled, `round(value / 257)`; what is transparent is put on white; CMYK becomes red, green and
    blue; of several images in a file it is the first one.

    Args:
        path: of the file.
        channels: 1 or 3; no fewer than `measure_image` says.
        max_pixels: how many pixels it may have.

    Raises:
        BadImageError: as `measure_image`; also what cannot be decoded.
    """
    # The header once more: the file may be another one since it was measured.
    header = _read_header(path, _read_content(path, max_pixels), max_pixels)
    try:
        pixels = header.decode(channels)
    except BadImageError:
        raise
    # Decoders raise whatever they stumble over in a damaged file: OSError, SyntaxError, KeyError, struct.error ...
    except Exception as error:
        raise BadImageError(path, "cannot be decoded") from error
    return turn_upright(pixels, header.orientation)


# Pipelines decode in many threads, in any order of beginning and ending: the first to begin takes Pillow's limit away,
# and the last to end puts it back.
_unlimited_lock = threading.Lock()
_unlimited = {"blocks": 0, "limit": None}


@contextlib.contextmanager
def pillow_unlimited():
    """Takes Pillow's own limit of pixels away for a while: `max_pixels` is checked instead, and may be larger."""
    import PIL.Image

    with _unlimited_lock:
        if not _unlimited["blocks"]:
            _unlimited["limit"], PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        _unlimited["blocks"] += 1
    try:
        yield
    finally:
        with _unlimited_lock:
            _unlimited["blocks"] -= 1
            if not _unlimited["blocks"]:
                PIL.Image.MAX_IMAGE_PIXELS = _unlimited["limit"]


def _read_header(path, content, max_pixels):
    kind = next((name for name, signature in _SIGNATURES.items() if signature.match(content)), None)
    if kind is None:
        raise BadImageError(path, "cannot be decoded")

    def check_size(height, width, allowed=max_pixels):
        # Now, and not when it is decoded: a few bytes of a file may stand for gigabytes of pixels.
        if height * width > allowed:
            raise BadImageError(
                path,
                f"has {height}x{width} pixels",
                f"An image may have at most {max_pixels:,} pixels. Received: {{path}}, whose header says "
                f"{height}x{width} pixels (height x width). Remove it; or if it is meant, allow more: `max_pixels` "
                "(--max_pixels)",
            )

    try:
        if kind in ("PNG", "JPEG"):
            header = (open_png if kind == "PNG" else open_jpeg)(content)
            check_size(header.height, header.width)
            return header
        return open_with_pillow(kind, content, check_size, max_pixels)
    except BadImageError:
        raise
    # As in `read_image`.
    except Exception as error:
        raise BadImageError(path, "cannot be decoded") from error


def _read_content(path, max_pixels):
    limit = max(_FILE_BYTES, _PIXEL_BYTES * max_pixels)
    try:
        size = os.path.getsize(path)
        if size > limit:
            raise BadImageError(
                path,
                f"has {size:,} bytes",
                f"An image's file may have at most {limit:,} bytes. Received: {{path}} with {size:,}. Remove it; or if "
                f"it is meant, allow more: {_PIXEL_BYTES} for each pixel of `max_pixels` (--max_pixels)",
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImageError(path, f"cannot be opened ({error.strerror})") from error
