"""Decoding rules and the quarantine: bad files are named, never crash, never enter as pixels."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from finegpr.errors import InputError
from finegpr.pixels.decode import BadImage, check_quarantine, decode, load, resize

golden = Path(__file__).parents[1] / "golden"


def photo(width: int = 40, height: int = 96) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 5, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def reason(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        decode(path)
    return caught.value.reason


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.avif"])
def test_the_content_decides_the_format(tmp_path: Path, name: str) -> None:
    photo().save(tmp_path / name, quality=95)
    renamed = (tmp_path / name).rename(tmp_path / "renamed.txt")
    pixels = decode(renamed)
    assert pixels.shape == (96, 40, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(photo()).astype(int)).mean() < 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "unidentified"), (b"<html>404 not found</html>", "unidentified"), (b"\x00" * 5000, "unidentified")],
)
def test_what_is_no_image_is_unidentified(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason(tmp_path / "a.jpg") == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "HEIC, which is not read"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "unidentified"),  # it is read, and broken
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video, which is not read"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a raw photo (CR3), which is not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000, which is not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL, which is not read"),
        (b"P6\n40 96\n255\n", "PPM, which is not read"),
        (b"%PDF-1.7", "PDF, which is not read"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a pointer of Git LFS; fetch the image with `git ",
        ),
        (b"\0\0\0\x18ftyp", "a video"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "unidentified"),
    ],
)
def test_a_format_that_is_not_read_is_named_whatever_the_file_is_called(
    tmp_path: Path, head: bytes, expected: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(head + bytes(300))
    assert reason(tmp_path / "a.jpg").startswith(expected)


def test_formats_of_pillow_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("JPEG2000", "PPM", "DDS", "ICO", "QOI"):
        photo().save(tmp_path / "a.jpg", format=name)
        assert reason(tmp_path / "a.jpg").endswith(", which is not read; save it as JPEG or PNG"), name


@pytest.mark.parametrize("place", ["before", "after"])
def test_text_and_colour_profiles_of_a_png_may_be_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(3):
        texts.add_itxt(f"scene{number}", "x" * 3_000_000, zip=True)
    texts.add_text("settings", "y" * 3_000_000, zip=True)
    photo().save(tmp_path / "a.png", pnginfo=texts, icc_profile=bytes(3_000_000))
    if place == "after":  # the pixels come first, then the texts
        data = (tmp_path / "a.png").read_bytes()
        chunks, at = [], 8
        while at < len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            chunks.append(data[at:end])
            at = end
        chunks.sort(key=lambda chunk: [b"IHDR", b"IDAT"].index(chunk[4:8]) if chunk[4:8] in (b"IHDR", b"IDAT") else 2)
        (tmp_path / "a.png").write_bytes(data[:8] + b"".join(chunks))
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), np.asarray(photo()))
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**20)
    assert reason(tmp_path / "a.png") == "more than 64 MB of text or colour profile; save it without"


def test_missing_files_folders_and_pipes_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "none.jpg") == "missing"
    assert reason(tmp_path) == "not a file"
    assert reason(tmp_path / "pipe.jpg") == "not a file"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
def test_every_truncation_is_noticed(tmp_path: Path, suffix: str) -> None:
    photo().save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    end = len(data) - (2 if suffix == "jpg" else 64)  # the end of a PNG is checksums, no pixels
    cuts = {*np.linspace(1, end, 20).astype(int).tolist(), end}
    for cut in cuts:
        (tmp_path / "cut").write_bytes(data[:cut])
        assert reason(tmp_path / "cut") in ("truncated", "unidentified"), cut


@pytest.mark.parametrize("side", [6_000, 10_000, 20_000, 60_000])
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    # Decoding would end in "truncated": there are no pixels behind the header.
    assert reason(tmp_path / "bomb.png") == "too large"


def test_slivers_are_too_small_but_long_images_are_not(tmp_path: Path) -> None:
    photo(1, 96).save(tmp_path / "sliver.png")
    photo(1, 1).save(tmp_path / "dot.png")
    photo(4, 20_000).save(tmp_path / "long.png")
    assert reason(tmp_path / "sliver.png") == reason(tmp_path / "dot.png") == "too small"
    images, bad = load([tmp_path / "long.png"], height=32, width=16)
    assert not bad
    assert images.shape == (1, 3, 32, 16)


def test_animations_are_refused_and_mpo_gives_its_first_picture(tmp_path: Path) -> None:
    frames = [photo(), photo().transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif", "a.avif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert reason(tmp_path / name) == "multi-frame"
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode(tmp_path / "a.mpo").astype(int) - np.asarray(frames[0])).mean() < 6


def test_sixteen_bit_gray_is_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256 * 64).reshape(256, 64).astype(np.uint16)
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        pixels = decode(tmp_path / name)
        assert abs(pixels.mean() - 127.5) < 1
        assert pixels.min() == 0
        assert pixels.max() == 255
        assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


def test_float_and_32_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((16, 16), 100_000, np.int32)).save(tmp_path / "long.tif")
    assert reason(tmp_path / "float.tif") == reason(tmp_path / "long.tif") == "unsupported mode"


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "rgba.png")
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "p.png", transparency=0)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    assert decode(tmp_path / "rgba.png")[0, 0].tolist() == [255, 127, 127]
    assert decode(tmp_path / "la.png")[0, 0].tolist() == [255, 255, 255]
    assert decode(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]
    assert decode(tmp_path / "p.png")[1, 1].tolist() == [200, 100, 50]
    assert decode(tmp_path / "keyed.png")[0, 0].tolist() == [255, 255, 255]


def test_gray_bilevel_and_cmyk_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "l.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "1.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert decode(tmp_path / "l.png")[0, 0].tolist() == [77, 77, 77]
    assert decode(tmp_path / "1.png")[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(decode(tmp_path / "cmyk.jpg")[0, 0], [255, 0, 0], atol=3)


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo().save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), np.rot90(np.asarray(photo()), turn))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_picture(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(tmp_path / "a.jpg").shape == (96, 40, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), kind=st.sampled_from("jpw"))
def test_hostile_bytes_give_pixels_or_a_reason(tmp_path: Path, flips: list[tuple[int, int]], kind: str) -> None:
    path = tmp_path / "a"
    photo().save(path, format={"j": "JPEG", "p": "PNG", "w": "WEBP"}[kind])
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(BadImage):
        assert decode(path).ndim == 3


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_thousand_damaged_files_are_decoded_or_named(tmp_path: Path) -> None:
    """Cut, overwritten, doubled and shuffled files of every format: RGB pixels or one of the stated reasons."""
    random = np.random.default_rng(0)
    whole = {}
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        photo().save(tmp_path / kind, format=kind)
        whole[kind] = (tmp_path / kind).read_bytes()
    outcomes: dict[str, int] = {}
    for number in range(1000):
        kind = list(whole)[number % len(whole)]
        data = bytearray(whole[kind])
        place = int(random.integers(len(data)))
        match number // len(whole) % 5:
            case 0:
                del data[place:]
            case 1:
                del data[place : place + int(random.integers(1, 64))]
            case 2:
                data[place : place + 8] = random.bytes(8)
            case 3:
                data[place:place] = data[: int(random.integers(1, len(data)))]
            case 4:
                for each in random.integers(len(data), size=20):
                    data[each] ^= int(random.integers(1, 256))
        path = tmp_path / "damaged.jpg"
        path.write_bytes(data)
        try:
            pixels = decode(path)
        except BadImage as error:
            outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            outcomes["decoded"] = outcomes.get("decoded", 0) + 1
    known = {"decoded", "truncated", "unidentified", "too large", "too small", "multi-frame", "unsupported mode"}
    assert set(outcomes) <= known, outcomes
    assert outcomes["truncated"] > 100
    assert outcomes["decoded"] > 100


def test_load_gives_zero_rows_and_reasons_for_bad_images(tmp_path: Path) -> None:
    photo().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    images, bad = load([tmp_path / "bad.png", tmp_path / "good.png"], height=32, width=16)
    assert images.shape == (2, 3, 32, 16)
    assert bad == [(0, "unidentified")]
    assert not images[0].any()
    expected = resize(np.asarray(photo()), height=32, width=16)
    np.testing.assert_array_equal(images[1].transpose(1, 2, 0), expected)


def test_resize_is_the_antialiased_bilinear_of_the_golden_vectors() -> None:
    with np.load(golden / "gan_resize.npz") as vectors:
        for case in ("r0", "r1"):
            height, width = vectors[f"{case}_size"].tolist()
            given_pixels = vectors[f"{case}_in"]
            expected = vectors[f"{case}_bilinear_aa"]
            exact = resize(given_pixels.astype(np.float32), height=height, width=width)
            np.testing.assert_allclose(exact, expected, atol=1.5e-5 * max(1.0, np.abs(expected).max()))


def test_resizing_bytes_differs_from_resizing_numbers_by_rounding_alone() -> None:
    pixels = np.asarray(photo(20, 48))
    resized = resize(pixels, height=33, width=16)
    for channel in range(3):
        exact = resize(pixels[:, :, channel].astype(np.float32), height=33, width=16)
        np.testing.assert_allclose(resized[:, :, channel], exact, atol=1.1)


@pytest.mark.parametrize(
    ("num_bad", "num_images", "refused"),
    [
        (0, 5, False),
        (1, 9, True),
        (1, 10, False),
        (20, 200, False),
        (21, 210, True),
        (21, 2000, True),
        (100, 100_000, False),
        (101, 100_000, True),
    ],
)
def test_the_quarantine_limit(num_bad: int, num_images: int, refused: bool) -> None:
    quarantined = [(f"{index}.jpg", "truncated") for index in range(num_bad)]
    if refused:
        with pytest.raises(InputError, match=rf"{num_bad} of {num_images} images of the source .*0.jpg: truncated"):
            check_quarantine(quarantined, num_images, of="the source")
    else:
        check_quarantine(quarantined, num_images, of="the source")
