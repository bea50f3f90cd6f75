"""Anything that shows a picture -> one uint8 RGB array, in the orientation in which people look at it."""

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from modified_lisa.errors import ImageError

__all__ = ["ImageSource", "image_size", "read_image", "resize_image"]

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray
"""What `read_image` takes."""

_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # its values that swap height and width
# Not ImageOps.exif_transpose: it writes the metadata again, and fails where they are odd but the picture is good.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: ImageSource) -> np.ndarray:
    """A new uint8 array (H, W, 3), RGB, from a file, a PIL image or an array; `ImageError` otherwise.

    Files and PIL images: EXIF orientation is applied (as ``cv2.imread`` does). Transparency, of a palette too,
    is laid over white. Of an animated file the first frame is read, of a PIL image the current one. CMYK and
    other colour spaces are converted without a colour profile. Greys of more than 8 bits:

    - 16 bits (``I;16`` and its variants): the full range, 65535 -> 255, that is divided by 257 and rounded;
    - 32 bits (``I``, ``F``): judged by their values. Floats all in 0..1 are fractions; else values in 0..255
      stay as they are; else values in 0..65535 are taken as 16 bits; any other range is stretched
      from its smallest value (0) to its largest (255). NaN and infinities are refused.

    Arrays: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, in bool, uint8, uint16 (full range) or
    floating point in 0..1. An array carries no orientation; it is taken as it stands.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image")
    path = _existing_file(source)
    try:
        # An open file, not the path: Pillow 13 garbles rotated TIFFs that it maps into memory by name.
        with path.open("rb") as file, Image.open(file) as image:
            return _from_pil(image, str(path))
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, zlib.error, ...
        raise _unreadable(path, error) from error


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3); ``bilinear`` or ``bicubic``, both antialiased.

    Pillow's filters, as the original LISA and the slow processors of transformers use them: the same bytes on
    every machine, whatever else is installed there. `resize.resize_like_pillow` does the same on a GPU.
    """
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    if image.shape[:2] == (height, width):
        return image
    # Rows first, said in two calls: newer versions of Pillow choose the order themselves, and it shows in the bytes.
    rows = Image.fromarray(image).resize((width, image.shape[0]), filters[interpolation])
    return np.array(rows.resize((width, height), filters[interpolation]))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) that `read_image` will give for this file, from its header alone; ImageError."""
    path = _existing_file(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow turns the size of a TIFF by itself.
            sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
    except Exception as error:
        raise _unreadable(path, error) from error
    if not width or not height:
        raise ImageError(f"{path} has no pixels: it is {width} x {height}")
    return (width, height) if sideways else (height, width)


def _existing_file(source: Any) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"got a {type(source).__name__} as an image; a path, a PIL image or a numpy array is expected"
        )
    path = Path(os.fsdecode(source))
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder; give the path of one image")
        size = path.stat().st_size
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {path}; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"{str(path)!r} cannot be read: {error}") from error
    if size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again")
    return path


def _unreadable(name: object, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(
            f"{name} is not an image in any format that Pillow knows; convert it to PNG or JPEG"
        )
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"{name} is too large to be decoded safely ({error}); make it smaller first")
    reason = str(error) or type(error).__name__
    return ImageError(f"{name} cannot be decoded ({reason}); it may be cut short or damaged")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata says nothing about how to turn the picture
        return 1


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    if not image.width or not image.height:
        raise ImageError(f"{name} has no pixels: it is {image.width} x {image.height}")
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        if turn is not None:  # one of them is 0
            image = image.transpose(turn)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _grey_to_rgb(_deep_grey(np.asarray(image), image.mode, name))
        if image.has_transparency_data:
            if image.mode == "La":  # premultiplied, which Pillow converts to LA alone
                image = image.convert("LA")
            return _over_white(np.asarray(image.convert("RGBA")).astype(np.float32) / 255)
        return np.array(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _deep_grey(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Greys of 16 or 32 bits -> uint8 (H, W), by the rule in `read_image`."""
    if mode.startswith("I;16"):
        return _from_16_bits(values)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds NaN or infinite values; replace them before")
    low, high = float(values.min()), float(values.max())
    values = values.astype(np.float64)
    if mode == "F" and low >= 0 and high <= 1:
        scaled = values * 255
    elif low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65535:
        scaled = values / 257
    else:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(scaled).astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; move the channels to the end" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(
            f"the array has shape {array.shape}; (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) is expected{hint}"
        )
    if not array.size:
        raise ImageError(f"the array has shape {array.shape}: it has no pixels")
    array = np.asarray(array)
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind == "f":
        # A resize may overshoot by a rounding error; anything more is another range of values.
        if not (array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise ImageError(
                f"the {array.dtype} array holds values from {array.min()} to {array.max()}; floating point images "
                "are 0..1 without NaN: divide by 255, or convert to uint8"
            )
        fractions = np.clip(array.astype(np.float32), 0, 1)
    elif kind == "b" or (kind == "u" and bits in (8, 16)):
        fractions = None
    else:
        raise ImageError(
            f"the array is {array.dtype}; bool, uint8, uint16 or floating point in 0..1 is expected: "
            "convert it with .astype(numpy.uint8) if it holds 0..255"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        scale = 1 if kind == "b" else 2**bits - 1
        return _over_white(array.astype(np.float32) / scale if fractions is None else fractions)
    if fractions is not None:
        array = np.rint(fractions * 255).astype(np.uint8)
    elif kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    elif bits == 16:
        array = _from_16_bits(array)
    return np.array(array, order="C") if array.shape[2:] == (3,) else _grey_to_rgb(array)


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 1) -> (H, W, 3), a new array."""
    return np.repeat(grey.reshape(*grey.shape[:2], 1), 3, axis=2)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) in 0..1 -> uint8 (H, W, 3), laid over white."""
    alpha = rgba[..., 3:]
    return np.rint((rgba[..., :3] * alpha + (1 - alpha)) * 255).astype(np.uint8)
