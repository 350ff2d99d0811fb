"""Image files of any size, made into what a model takes."""

import warnings
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
    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings():
            # Pillow warns of large photographs, and of EXIF that it cannot read.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                flat = _flattened(ImageOps.exif_transpose(image), mode)
    except FileNotFoundError:
        raise InputError(f"no image file {path}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a PNG or JPEG image") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot read the image {path}: {reason}") from error
    except Exception as error:  # Pillow raises many kinds on damage, and for its limit
        raise InputError(f"cannot read the image {path}: {error}") from error
    resized = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode "L" or "RGB", on black where it is transparent."""
    if image.mode.startswith("I"):  # 16 bits, which `convert` clips rather than scales
        grey = np.asarray(image)
        shown = grey != image.info.get("transparency", -1)
        return Image.fromarray((grey // 257 * shown).astype(np.uint8)).convert(mode)
    if not image.has_transparency_data:
        return image.convert(mode)
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert(mode)
