"""Which formats of pictures are read, and what is said of a file in another one."""

from PIL import PngImagePlugin, features

READ = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
HEAD_BYTES = 64
"""How much of a file ``why_unread`` needs."""

_MEBIBYTES_OF_TEXT = 64
# Renderers write their settings, and cameras colour profiles of some megabytes, into a PNG; the orientation may stand
# there too, so that it is not passed over. Pillow's own limit is 1 MiB for each piece.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MEBIBYTES_OF_TEXT * 2**20

_INSTEAD = "which is not read; save it as JPEG or PNG"
_STARTS = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"%PDF": "PDF",
    b"8BPS": "a Photoshop file",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x00\x00\x01\x00": "an icon",
    b"\x1aE\xdf\xa3": "a video",
    **{b"P%d%c" % (kind, space): "PPM" for kind in range(1, 8) for space in b" \t\r\n"},
}
# What a file of the ISO base media format (ftyp) says that it can be read as.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    b"crx ": "a raw photo (CR3)",
}


def why_unread(head: bytes, error: Exception) -> str:
    """Why no decoder takes a file that begins with ``head`` and made Pillow raise ``error``: a short phrase.

    ``unidentified`` where nothing is known of it, as of a file of a known format that is damaged at its beginning.
    """
    if too_much_text(error):
        return too_much_text(error)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; fetch the image with `git lfs pull`"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]
        found = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "a video")
        if "AVIF" in (found, *(_BRANDS.get(brand) for brand in brands)):
            return "unidentified" if features.check("avif") else f"AVIF, {_INSTEAD}"
        return f"{found}, {_INSTEAD}"
    return next((f"{name}, {_INSTEAD}" for start, name in _STARTS.items() if head.startswith(start)), "unidentified")


def too_much_text(error: Exception) -> str:
    """A phrase for what is beside the pixels of a PNG and above the limit; empty for any other error."""
    if "MAX_TEXT" not in str(error):
        return ""
    return f"more than {_MEBIBYTES_OF_TEXT} MB of text or colour profile; save it without"
