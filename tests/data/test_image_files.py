"""Image files of each format: their pixels, and that nothing is decoded of what is too large."""

import fractions
import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
import tensorflow as tf

from keras_tkd.data.image_files import ENDINGS, BadImageError, measure_image, pillow_unlimited, read_image

ALLOWED = 10_000


def read(path, content, channels=None, max_pixels=ALLOWED):
    """The pixels of a file's content, as its header announces them."""
    path.write_bytes(content)
    shape = measure_image(path, max_pixels).shape
    pixels = read_image(path, channels or shape[-1], max_pixels)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels.shape == (*shape[:2], channels or shape[-1])
    return pixels


def pillow(image, kind, mode=None, **options):
    """What Pillow writes of an array, or of an image of its own."""
    image = PIL.Image.fromarray(np.array(image, np.uint8), mode) if isinstance(image, list) else image
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width, height, depth, colour_type, rows, *chunks):
    """A PNG; `rows` without the filter's byte before each."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    step = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + step] for start in range(0, len(rows), step))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    more = b"".join(chunk(kind, body) for kind, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def tiff(width, height, data, samples=1, photometric=1, **more):
    """An uncompressed TIFF of bytes; `more` are other tags by their names, `tag_274=6`."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: photometric, 273: 0, 277: samples, 278: height}
    tags |= {279: len(data)} | {int(name.removeprefix("tag_")): value for name, value in more.items()}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + b"\0\0\0\0" + data


def bmp(width, height, data=b""):
    """A BMP of 24 bits: rows from the bottom, blue first, filled up to four bytes."""
    header = struct.pack("<IiiHHIIIIII", 40, width, height, 1, 24, 0, len(data), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54) + header + data


def gif(width, height, frame=None):
    """A GIF of one pixel of grey, whatever size it declares for itself and its frame."""
    frame = struct.pack("<HHHHB", 0, 0, *(frame or (width, height)), 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + frame + b"\2\2D\1\0;"


def webp(kind, body):
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def exif(orientation, order=">"):
    """EXIF of two tags, the second of which is the orientation."""
    tags = struct.pack(f"{order}HHHIHHHHIHH", 2, 0x0100, 3, 1, 7, 0, 0x0112, 3, 1, orientation, 0)
    return (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8) + tags + b"\0\0\0\0"


COLOURS = [[[1, 2, 3], [40, 50, 60]], [[70, 80, 90], [250, 251, 252]]]
GREYS = [[[7], [8], [9]], [[10], [0], [255]]]
ROWS = bytes([90, 80, 70, 252, 251, 250, 0, 0]) + bytes([3, 2, 1, 60, 50, 40, 0, 0])
FLAT = bytes(value for row in COLOURS for pixel in row for value in pixel)
GREY = [[7, 8, 9], [10, 0, 255]]
WHOLE = {
    "bmp": (bmp(2, 2, ROWS), COLOURS),
    "gif": (pillow(COLOURS, "GIF"), COLOURS),
    "webp": (pillow(COLOURS, "WEBP", lossless=True), COLOURS),
    "ppm": (b"P6 2 2 255\n" + FLAT, COLOURS),
    "plain ppm": (b"P3\n# words\n2 2\n255\n" + b" ".join(b"%d" % value for value in FLAT), COLOURS),
    "pgm": (b"P5\n3 2\n255\n\7\x08\x09\x0a\0\xff", GREYS),
    "plain pgm": (b"P2 3 2 255 7 8 9 10 0 255", GREYS),
    # 1 of 3 is 85 of 255.
    "dark pgm": (b"P2 3 1 3 0 1 3", [[[0], [85], [255]]]),
    # A bit is black.
    "pbm": (b"P4 3 1\n\xa0", [[[0], [255], [0]]]),
    "tiff": (tiff(3, 2, bytes([7, 8, 9, 10, 0, 255])), GREYS),
    "colour tiff": (tiff(2, 2, FLAT, samples=3, photometric=2), COLOURS),
    "packed tiff": (pillow(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "deflated tiff": (pillow(GREY, "TIFF", compression="tiff_deflate"), GREYS),
    "png": (png(2, 2, 8, 2, FLAT), COLOURS),
    "grey png": (png(3, 2, 8, 0, bytes([7, 8, 9, 10, 0, 255])), GREYS),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_pixels_of_each_format(name, tmp_path):
    content, pixels = WHOLE[name]
    # A name that lies changes nothing.
    assert read(tmp_path / "image.jpg", content).tolist() == pixels
    if len(pixels[0][0]) == 1:
        repeated = [[pixel * 3 for pixel in row] for row in pixels]
        assert read(tmp_path / "image.jpg", content, channels=3).tolist() == repeated


def test_of_several_images_it_is_the_first(tmp_path):
    first, second = (PIL.Image.fromarray(np.full((2, 2, 3), value, np.uint8)) for value in (10, 200))
    for kind, options in (("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        content = pillow(first, kind, save_all=True, append_images=[second], **options)
        assert read(tmp_path / "several", content).ravel().tolist() == [10] * 12


def encode_noise(seed, shape, encode, **options):
    return encode(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), **options).numpy()


SOFT = PIL.Image.fromarray(np.add.outer(np.arange(24), np.arange(40)).astype(np.uint8)[..., None].repeat(3, -1) * 4)
ALREADY = {
    "jpeg": encode_noise(0, (17, 23, 3), tf.io.encode_jpeg, quality=80),
    "grey jpeg": encode_noise(1, (17, 23, 1), tf.io.encode_jpeg, quality=80),
    "progressive jpeg": encode_noise(2, (17, 23, 3), tf.io.encode_jpeg, progressive=True),
    "whole colours": pillow(SOFT, "JPEG", subsampling=0),
    "halved colours": pillow(SOFT, "JPEG", subsampling=2),
    "cmyk": pillow(SOFT.convert("CMYK"), "JPEG"),
    "png": encode_noise(3, (17, 23, 3), tf.io.encode_png),
    "grey png": encode_noise(4, (17, 23, 1), tf.io.encode_png),
    "palette": pillow(SOFT.quantize(8), "PNG"),
    "bits": pillow(SOFT.convert("1"), "PNG"),
    "four bits": png(2, 1, 4, 0, b"\x7f"),
}


@pytest.mark.parametrize("name", ALREADY)
def test_png_and_jpeg_are_what_tensorflow_decodes(name, tmp_path):
    """To the bit: figures of data sets that were read before hang on it."""
    content = ALREADY[name]
    for channels in (1, 3) if "grey" in name or "bits" in name else (3,):
        expected = tf.io.decode_image(content, channels, expand_animations=False).numpy()
        np.testing.assert_array_equal(read(tmp_path / "image", content, channels), expected)


def test_sixteen_bits_are_rounded(tmp_path):
    """All 65,536 values: white stays white, and each becomes the nearest of the 256."""
    values = np.arange(2**16).reshape(256, 256)
    nearest = np.abs(values[..., None] - 257 * np.arange(256)).argmin(-1)
    rows = values.astype(">u2").tobytes()
    little = values.astype("<u2").tobytes()
    for content in (
        png(256, 256, 16, 0, rows),
        b"P5 256 256 65535\n" + rows,
        tiff(256, 256, little, tag_258=16),
    ):
        pixels = read(tmp_path / "image", content, max_pixels=2**16)
        np.testing.assert_array_equal(pixels[..., 0], nearest)


def test_sixteen_bits_of_colour(tmp_path):
    # 300 / 257 = 1.17, 400 / 257 = 1.56, 65535 / 257 = 255
    rows = struct.pack(">3H", 300, 400, 65535)
    assert read(tmp_path / "image", png(1, 1, 16, 2, rows)).tolist() == [[[1, 2, 255]]]


def on_white(value, opacity, white=255):
    """What a share of a value and the rest of white make, as eight bits."""
    share = fractions.Fraction(opacity, white)
    return round((share * value + (1 - share) * white) * 255 / white)


PAIRS = [(value, opacity) for value in (0, 1, 100, 254, 255) for opacity in (0, 1, 127, 128, 200, 254, 255)]
LAYERS = [[[value, 255 - value, 30, opacity] for value, opacity in PAIRS]]
CLEAR = [[[on_white(v, a), on_white(255 - v, a), on_white(30, a)] for v, a in PAIRS]]
BYTES = bytes(value for pixel in LAYERS[0] for value in pixel)


@pytest.mark.parametrize(
    "content",
    [
        png(len(PAIRS), 1, 8, 6, BYTES),
        tiff(len(PAIRS), 1, BYTES, samples=4, photometric=2, tag_338=2),
        pillow(LAYERS, "WEBP", lossless=True, exact=True),
    ],
    ids=["png", "tiff", "webp"],
)
def test_transparency_is_put_on_white(content, tmp_path):
    assert read(tmp_path / "image", content).tolist() == CLEAR


def test_transparent_grey_is_put_on_white(tmp_path):
    content = png(len(PAIRS), 1, 8, 4, bytes(value for pair in PAIRS for value in pair))
    assert read(tmp_path / "image", content).ravel().tolist() == [on_white(*pair) for pair in PAIRS]
    deep = [(value * 257 + 3 * (value < 255), opacity * 257) for value, opacity in PAIRS]
    content = png(len(PAIRS), 1, 16, 4, b"".join(struct.pack(">HH", *pair) for pair in deep))
    assert read(tmp_path / "image", content).ravel().tolist() == [on_white(*pair, 65535) for pair in deep]


def test_a_transparent_colour_is_white(tmp_path):
    # Of a palette each entry has an opacity, and those that are left out are opaque: 255 - 155 * 51 / 255 = 224.
    palette = (b"PLTE", bytes([100, 100, 100, 9, 8, 7])), (b"tRNS", bytes([51]))
    assert read(tmp_path / "image", png(2, 1, 8, 3, b"\0\1", *palette)).tolist() == [[[224, 224, 224], [9, 8, 7]]]
    # Of grey and colour, one value is transparent altogether.
    assert read(tmp_path / "image", png(2, 1, 8, 0, b"\5\6", (b"tRNS", b"\0\5"))).ravel().tolist() == [255, 6]
    colours = png(2, 1, 8, 2, b"\1\2\3\1\2\4", (b"tRNS", b"\0\1\0\2\0\3"))
    assert read(tmp_path / "image", colours).tolist() == [[[255, 255, 255], [1, 2, 4]]]
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([100, 100, 100, 9, 8, 7])
    image.putpixel((1, 0), 1)
    assert read(tmp_path / "image", pillow(image, "GIF", transparency=0)).tolist() == [[[255, 255, 255], [9, 8, 7]]]


def test_cmyk_is_converted(tmp_path):
    # What cyan leaves of the light, times what black leaves of it: 245 * 215 / 255 = 206.6, 198.1, 189.7
    image = PIL.Image.new("CMYK", (16, 16), (10, 20, 30, 40))
    assert np.abs(read(tmp_path / "image", pillow(image, "TIFF")) - [206.6, 198.1, 189.7]).max() < 1
    assert np.abs(read(tmp_path / "image", pillow(image, "JPEG", quality=100)) - [206.6, 198.1, 189.7]).max() < 3


# What an upright image of the rows 1 2 3 and 4 5 6 is, by the sides on which EXIF says that the first row and the first
# column are: top and left, top and right, bottom and right, bottom and left, left and top, right and top, right and
# bottom, left and bottom.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    # There is none of these.
    0: [[1, 2, 3], [4, 5, 6]],
    9: [[1, 2, 3], [4, 5, 6]],
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_makes_images_upright(orientation, order, tmp_path):
    stored, expected = np.array(UPRIGHT[1], np.uint8), np.array(UPRIGHT[orientation])
    told = exif(orientation, order)
    data = stored.tobytes()
    grey = PIL.Image.fromarray(stored)
    for content in (
        png(3, 2, 8, 0, data, (b"eXIf", told)),
        pillow(grey.convert("RGB"), "WEBP", lossless=True, exif=b"Exif\0\0" + told),
        tiff(3, 2, data, **({"tag_274": orientation} if 1 <= orientation <= 8 else {})),
    ):
        np.testing.assert_array_equal(read(tmp_path / "image", content)[..., 0], expected)
    # Blocks of one colour each: JPEG loses nothing that a block's middle would show.
    blocks = PIL.Image.fromarray(np.kron(stored * 40, np.ones((8, 8), np.uint8)))
    content = pillow(blocks, "JPEG", quality=100, exif=b"Exif\0\0" + told)
    # Before a marker, any number of bytes 0xFF may stand.
    for jpeg in (content, content.replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)):
        assert np.abs(read(tmp_path / "image", jpeg)[4::8, 4::8, 0] - 40.0 * expected).max() <= 1


@pytest.mark.parametrize("told", [b"", b"MM", exif(6)[:9], exif(6)[:20], b"XX" + exif(6)[2:], b"MM\0*\xff\xff\xff\xff"])
def test_damaged_exif_turns_nothing(told, tmp_path):
    content = png(3, 1, 8, 0, b"\1\2\3", (b"eXIf", told))
    assert read(tmp_path / "image", content).ravel().tolist() == [1, 2, 3]


HUGE = struct.pack("<I", 60_000 - 1)[:3] + struct.pack("<I", 50_000 - 1)[:3]
BOMBS = {
    "bmp": bmp(60_000, 50_000),
    "gif": gif(60_000, 50_000),
    "frame of a gif": gif(1, 1, frame=(60_000, 50_000)),
    "ppm": b"P6 60000 50000 255\n",
    "plain pgm": b"P2 60000 50000 255 1",
    "tiff": tiff(60_000, 50_000, b"\0"),
    "packed tiff": tiff(60_000, 50_000, b"\0", tag_259=8),
    # In place of strips, tiles.
    "tile of a tiff": tiff(1, 1, b"\0", tag_259=8, tag_322=60_000, tag_323=50_000, tag_324=8, tag_325=1),
    "strip of a tiff": tiff(60, 1, b"\0", tag_259=8, tag_278=50_000_000),
    "webp": webp(b"VP8X", b"\0\0\0\0" + HUGE),
    # 14 bits each.
    "lossy webp": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383)),
    "lossless webp": webp(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14)),
    "png": png(60_000, 50_000, 8, 2, bytes(50_000)),
}


@pytest.mark.parametrize("limit", [1_000, 2**26])
@pytest.mark.parametrize("name", BOMBS)
def test_what_is_too_large_is_not_decoded(name, limit, tmp_path, monkeypatch):
    def decode(*_, **__):
        raise AssertionError("an image was decoded")

    (tmp_path / "bomb").write_bytes(BOMBS[name])
    for place, function in (
        (tf.io, "decode_image"),
        (tf.io, "decode_png"),
        (PIL.ImageFile.ImageFile, "load"),
        (PIL.Image.core, "new"),
        (PIL.Image.core, "fill"),
    ):
        monkeypatch.setattr(place, function, decode)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", decode)
    message = rf"at most {limit:,} pixels. Received: .*/bomb, .*--max_pixels"
    for function, *arguments in ((measure_image, limit), (read_image, 3, limit)):
        with pytest.raises(BadImageError, match=message) as error, pillow_unlimited():
            function(tmp_path / "bomb", *arguments)
        assert error.value.too_large


def test_tiles_of_small_images_are_larger_than_these(tmp_path):
    for rows in (2**32 - 1, 64):
        content = tiff(3, 1, b"\1\2\3", tag_278=rows)
        assert read(tmp_path / "image", content, max_pixels=3).ravel().tolist() == [1, 2, 3]


def test_as_many_pixels_as_are_allowed_beyond_pillows_own_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2)
    for content in (bmp(2, 2, ROWS), tiff(2, 2, FLAT, samples=3, photometric=2), pillow(SOFT.resize((2, 2)), "WEBP")):
        with pillow_unlimited():
            assert read(tmp_path / "image", content, max_pixels=4).shape == (2, 2, 3)
        with pytest.raises(BadImageError, match="at most 3 pixels"), pillow_unlimited():
            read(tmp_path / "image", content, max_pixels=3)
    assert PIL.Image.MAX_IMAGE_PIXELS == 2


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("share", [0, 0.1, 0.4, 0.7, 0.95])
def test_a_part_of_a_file_is_no_image(name, share, tmp_path):
    content = WHOLE[name][0]
    # The last number of a plain file may be cut into a smaller one.
    cut = content[: int(share * (len(content) - 5))]
    if name == "packed tiff":
        # Pillow writes the directory after the pixels, and what little follows it is padding.
        cut = content[: int(share * len(content) / 2)]
    with pytest.raises(BadImageError, match="whole BMP, GIF, .* file. Received: .*/image, which cannot be decoded"):
        read(tmp_path / "image", cut)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_32_bits_are_refused(mode, tmp_path):
    """Nobody says which of their values is white."""
    with pytest.raises(BadImageError, match="cannot be decoded"):
        read(tmp_path / "image", pillow(PIL.Image.new(mode, (2, 2)), "TIFF"))


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(BadImageError, match=r"Received: .*/\{gone\}.png, which cannot be opened \(No such file"):
        measure_image(tmp_path / "{gone}.png", ALLOWED)


def test_endings_are_lower_case():
    assert all(ending == ending.lower() and ending.startswith(".") for ending in ENDINGS)
    assert {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"} <= set(ENDINGS)
