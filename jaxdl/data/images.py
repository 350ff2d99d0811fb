"""Image files of any size, made into what a model takes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxdl.errors import InputError


def read(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Reads a PNG or JPEG file and resizes it: bilinear, antialiased, whole image.

    Args:
      path: the file. Its EXIF rotation is applied; transparent parts become black.
      shape: (height, width, channels) of the result; 1 channel is luminance, 3 are RGB.

    Returns:
      uint8 [height, width, channels].

    Raises:
      InputError: no such file, not such an image, damaged, or far too large to be one
        (Pillow's limit against decompression bombs).
    """
    height, width, channels = shape
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except FileNotFoundError:
        raise InputError(f"no image file {path}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is not a usable PNG or JPEG image: {error}"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damage
        raise InputError(f"cannot read the image {path}: {error}") from error
    black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
    flat = Image.alpha_composite(black, upright)
    mode = "L" if channels == 1 else "RGB"
    resized = flat.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)
