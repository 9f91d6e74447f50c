"""Pictures of a report, inside the page."""

import base64
import io

import numpy as np

from keras_tkd.reports.page.blocks import Picture

__all__ = ["make_picture"]

_LARGE = 32 * 32  # pixels, from which a photograph takes less as JPEG than as PNG


def make_picture(pixels, text, lines):
    """Makes a `Picture` of uint8 pixels `(height, width, channels)`, one channel or three."""
    from PIL import Image

    pixels = np.asarray(pixels, "uint8")
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    large = pixels.shape[0] * pixels.shape[1] > _LARGE
    content = io.BytesIO()
    if large:
        image.save(content, "JPEG", quality=85)
    else:
        image.save(content, "PNG", optimize=True)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(f"data:image/{'jpeg' if large else 'png'};base64,{data}", text, list(lines))
