"""Image files to RGB pixels by fixed rules, and the quarantine of those that cannot be read.

The content of a file decides, never its name. Rules: alpha over white; palette and CMYK to RGB by Pillow; 16-bit gray
divided by 257; EXIF orientation applied; only the first picture of an MPO; animations, float and 32-bit images refused.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finegpr.arrays import Singles
from finegpr.errors import InputError
from finegpr.object_stores import AnyPath, RemotePath
from finegpr.pixels.formats import HEAD_BYTES, READ, too_much_text, why_unread

MAX_PIXELS = 25_000_000
MIN_SIDE = 4
# A remote file is read whole: as many bytes as the largest picture has, uncompressed, in 16 bits and four channels.
MAX_REMOTE_BYTES = 8 * MAX_PIXELS

# Below, such images are refused by their header. Set once: threads that decode would undo each other's filters.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):  # noqa: N818 (the noun of the quarantine, not a failure of the program)
    """A file that cannot be used; ``reason`` is a short phrase such as ``truncated`` or ``too large``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(path: AnyPath) -> NDArray[np.uint8]:
    """Read an image file as RGB, uint8 (H, W, 3), upright.

    Raises BadImage: missing, not a file, no permission, unidentified or the name of a format that is not read, too
    large (above 25 million pixels, judged from the header before decoding), too small (a side below 4), multi-frame,
    unsupported mode, truncated. Raises InputError when a remote store does not answer.
    A flipped byte inside JPEG data cannot be seen and is not reported.
    """
    return np.array(_picture(path))


def _picture(path: AnyPath) -> Image.Image:
    file = _fetch(path) if isinstance(path, RemotePath) else path
    if isinstance(file, Path) and not file.is_file():  # keeps a FIFO or a device, which could block, from being opened
        raise BadImage("not a file" if file.exists() else "missing")
    try:
        opened = Image.open(file, formats=READ)
    except PermissionError:
        raise BadImage("no permission") from None
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except Exception as error:  # decoders raise anything at all on hostile bytes
        raise BadImage(why_unread(_head(file), error)) from None
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadImage("too large")
        if min(image.size) < MIN_SIDE:
            raise BadImage("too small")
        try:
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise BadImage("multi-frame")
            image.load()
            return _rgb(image)
        except BadImage:
            raise
        except Exception as error:  # as above: OSError, SyntaxError, zlib.error, struct.error, ...
            raise BadImage(too_much_text(error) or "truncated") from None


def _head(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:HEAD_BYTES]
    with file.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _fetch(path: RemotePath) -> io.BytesIO:
    try:
        data = path.read_bytes(MAX_REMOTE_BYTES + 1)
    except FileNotFoundError:
        raise BadImage("missing") from None
    if len(data) > MAX_REMOTE_BYTES:
        raise BadImage("too large")
    return io.BytesIO(data)


def _rgb(image: Image.Image) -> Image.Image:
    upright = image
    if (orientation := _orientation(image)) in _ORIENTATIONS:
        upright = image.transpose(_ORIENTATIONS[orientation])
    if upright.mode.startswith("I;16"):
        gray = np.asarray(upright).astype(np.uint16)  # Pillow's own conversion saturates at 255
        return Image.fromarray(np.repeat(((gray + 128.0) / 257.0).astype(np.uint8)[:, :, None], 3, axis=2))
    if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colours = upright.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    if upright.mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBX"):
        return upright.convert("RGB")
    raise BadImage("unsupported mode")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata around sound pixels: leave the picture as it is stored
        return 1


def resize(pixels: NDArray[np.uint8] | Singles, *, height: int, width: int) -> NDArray[np.generic]:
    """Antialiased bilinear resize of (H, W, 3) uint8 or (H, W) float32 pixels: the kernel grows when shrinking."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def load(paths: Sequence[AnyPath], *, height: int, width: int) -> tuple[NDArray[np.uint8], list[tuple[int, str]]]:
    """Decode and resize to uint8 (n, 3, height, width); with the (index, reason) of bad images, whose rows are zero."""
    images = np.zeros((len(paths), 3, height, width), dtype=np.uint8)
    bad = []
    for index, path in enumerate(paths):
        try:
            resized = _picture(path).resize((width, height), Image.Resampling.BILINEAR)
            images[index] = np.asarray(resized).transpose(2, 0, 1)
        except BadImage as error:
            bad.append((index, error.reason))
    return images, bad


def find_bad(paths: Sequence[AnyPath]) -> list[tuple[int, str]]:
    """The (index, reason) of the images that ``load`` would call bad."""
    bad = []
    for index, path in enumerate(paths):
        try:
            _picture(path)
        except BadImage as error:
            bad.append((index, error.reason))
    return bad


def check_quarantine(quarantined: Sequence[tuple[str, str]], num_images: int, *, of: str) -> None:
    """Refuse too many bad images: above max(20, 0.1 %) of ``num_images``, and always above 10 %.

    ``quarantined`` holds (path, reason). Raises InputError with the counts and the first three reasons.
    """
    limit = min(max(20.0, 0.001 * num_images), 0.1 * num_images)
    if len(quarantined) > limit:
        first = "; ".join(f"{path}: {reason}" for path, reason in quarantined[:3])
        raise InputError(
            f"{len(quarantined)} of {num_images} images of {of} cannot be used ({first}); at most {int(limit)} are "
            "tolerated: repair them, or index the folder without them, then measure or train again"
        )
