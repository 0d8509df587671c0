"""Image files to RGB pixels by fixed rules, and the quarantine of those that cannot be decoded.

Reading comes first: what keeps a file from being read is no property of the image, and ends the run.
The content of a file decides, never its name. Rules: alpha over white; palette and CMYK to RGB by Pillow; 16-bit gray
divided by 257; EXIF orientation applied; only the first picture of an MPO; animations, float and 32-bit images refused.
"""

import io
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finegpr.arrays import Singles
from finegpr.errors import InputError
from finegpr.faults import is_absent, out_of_memory, patiently, unreadable
from finegpr.object_stores import AnyPath, RemotePath
from finegpr.pixels.formats import HEAD_BYTES, READ, too_much_text, why_unread

MAX_PIXELS = 25_000_000
MIN_SIDE = 4
# A file is read whole: as many bytes as the largest picture has, uncompressed, in 16 bits and four channels.
MAX_BYTES = 8 * MAX_PIXELS

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

    Raises BadImage: missing, not a file, unidentified or the name of a format that is not read, too large (above 25
    million pixels, judged from the header before decoding, or 200 MB), too small (a side below 4), multi-frame,
    unsupported mode, truncated. Raises what ``read`` does for a file that is there and cannot be read, and WriteError
    for want of memory.
    A flipped byte inside JPEG data cannot be seen and is not reported.
    """
    with _named(path):
        return np.array(_picture(read(path)))


def read(path: AnyPath) -> bytes:
    """The bytes of an image file. Raises BadImage: missing, not a file, too large.

    Nothing else is a property of the image: raises UnreadableError for a file or folder without permission and a name
    that is too long, UnreachableError, after some attempts, where the disk, the store or the machine fails, and
    WriteError for want of memory.
    """
    try:
        data = path.read_bytes(MAX_BYTES + 1) if isinstance(path, RemotePath) else patiently(lambda: _bytes(path), path)
    except OSError as error:
        if is_absent(error):
            raise BadImage("missing") from None
        raise unreadable(path, error) from None
    except ValueError:  # a NUL in its name
        raise BadImage("missing") from None
    if len(data) > MAX_BYTES:
        raise BadImage("too large")
    return data


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # keeps a FIFO or a device, which could block, from being opened
        raise BadImage("not a file")
    if status.st_size > MAX_BYTES:
        raise BadImage("too large")
    return path.read_bytes()


def _picture(data: bytes) -> Image.Image:
    """The picture in the bytes of a file. Raises BadImage for what its decoder says of it, else MemoryError."""
    try:
        opened = Image.open(io.BytesIO(data), formats=READ)
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except Exception as error:  # decoders raise anything at all on hostile bytes
        _require_memory(error, MAX_BYTES)  # WebP takes the room for its pixels here
        raise BadImage(why_unread(data[:HEAD_BYTES], error)) from None
    with opened as image:
        num_pixels = image.width * image.height
        if num_pixels > MAX_PIXELS:
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
            _require_memory(error, len(data) + 8 * num_pixels)
            raise BadImage(too_much_text(error) or "truncated") from None


def _require_memory(error: Exception, num_bytes: int) -> None:
    """Raises MemoryError where a decoder failed for want of memory. Few of them say so; but then there is no room for
    ``num_bytes`` either, which the picture may take."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        raise MemoryError from None
    np.empty(num_bytes, dtype=np.uint8)  # asked for, not touched


@contextmanager
def _named(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise out_of_memory(f"decoding {path}") from None


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
    if upright.mode == "RGB":
        return upright
    if upright.mode in ("L", "1", "P", "CMYK", "YCbCr", "RGBX"):
        return upright.convert("RGB")
    raise BadImage("unsupported mode")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except MemoryError:
        raise
    except Exception:  # damaged metadata around sound pixels: leave the picture as it is stored
        return 1


def resize(pixels: NDArray[np.uint8] | Singles, *, height: int, width: int) -> NDArray[np.generic]:
    """Antialiased bilinear resize of (H, W, 3) uint8 or (H, W) float32 pixels: the kernel grows when shrinking."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def load(
    paths: Sequence[AnyPath], *, height: int, width: int, read: Callable[[AnyPath], bytes] = read
) -> tuple[NDArray[np.uint8], list[tuple[int, str]]]:
    """Decode and resize to uint8 (n, 3, height, width), as ``load_into`` does; with the bad images."""
    images = np.empty((len(paths), 3, height, width), dtype=np.uint8)
    return images, load_into(images.transpose(0, 2, 3, 1), paths, read=read)


def load_into(
    images: NDArray[np.uint8], paths: Sequence[AnyPath], *, read: Callable[[AnyPath], bytes] = read
) -> list[tuple[int, str]]:
    """Decode and resize into ``images`` (n, H, W, 3); the (index, reason) of bad ones, whose rows are zero.

    ``read`` gives a file's bytes, as ``read`` here does. Raises what ``decode`` does, but for BadImage.
    """
    height, width = images.shape[1:3]
    bad = []
    for index, path in enumerate(paths):
        try:
            with _named(path):
                resized = _picture(read(path)).resize((width, height), Image.Resampling.BILINEAR)
                images[index] = np.asarray(resized)
        except BadImage as error:
            images[index] = 0
            bad.append((index, error.reason))
    return bad


def find_bad(paths: Sequence[AnyPath]) -> list[tuple[int, str]]:
    """The (index, reason) of the images that ``load`` would call bad."""
    bad = []
    for index, path in enumerate(paths):
        try:
            with _named(path):
                _picture(read(path))
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
