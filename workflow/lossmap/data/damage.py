"""Damage that decoders pass in silence: a hole in the middle of a file, filled with zeros or with other bytes.

JPEG, WEBP and AVIF hold no checksum, and their decoders make pixels of whatever they find. What gives a hole away is
that afterwards the decoder is out of step: it runs out of data, or ends before the data do. A TIFF that is deflated has
checksums, at which its decoder does not look.
"""

import io
import re
import struct
import zlib
from collections.abc import Mapping
from typing import cast

import simplejpeg
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

HOLE = 256  # bytes of zeros: no AVIF encoder writes 17 of them, and file systems and downloads leave 512 or more
PADDING = 8  # bytes that an encoder may leave between a picture's last bit and its end marker
COMPRESSION, DEFLATED = 259, (8, 32946)  # a tag of TIFF, and its values for zlib's format
PIECES = ((273, 279), (324, 325))  # tags of TIFF: where its strips, or tiles, begin, and how long they are
SPARE = 32  # bytes at the end of a WEBP picture that its decoder can't do without, unless it lost its step


def find_damage(content: bytes, image: Image.Image) -> str | None:
    """What is wrong with a file that was decoded without an error, in a few words, or None.

    Parameters: content, the file's bytes; image, as opened by Pillow from them (format, mode and info are read).
    A hole of 4,096 zeros in a photograph is found in 98 of 100 JPEG files; one of a few bytes may be overlooked, as is
    any in what has no structure to lose: BMP, PPM, uncompressed TIFF.
    """
    match image.format:
        case "JPEG" | "MPO":
            return _jpeg(content, image.mode)
        case "WEBP":
            return _webp(content)
        case "AVIF":
            return _avif(content, image.info)
        case "TIFF":
            return _tiff(content, cast(TiffImageFile, image).tag_v2)
    return None


def _jpeg(content: bytes, mode: str) -> str | None:
    """What libjpeg warns of; Pillow decodes with it too, and drops its warnings."""
    try:
        simplejpeg.decode_jpeg(content, "CMYK" if mode == "CMYK" else "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        found = re.fullmatch(r"Corrupt JPEG data: (.+)", str(error))
        if found is None or found[1] == "bad ICC marker":  # of another kind than pixels: Pillow has decoded those
            return None
        left = re.fullmatch(r"(\d+) extraneous bytes before marker 0xd9", found[1])
        return None if left and int(left[1]) <= PADDING else found[1]
    return None


def _webp(content: bytes) -> str | None:
    """Its decoder says where data are too short, and not where they are too long: take the end away, and try."""
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[at : at + 8])
        if name in (b"VP8 ", b"VP8L") and size > 4 * SPARE:
            kept = content[at + 8 : at + 8 + size - SPARE]
            chunk = name + struct.pack("<I", len(kept)) + kept
            try:
                Image.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk)).load()
            except Exception:
                return None
            return "its picture ends before its data"
        at += 8 + size + size % 2
    return None


def _avif(content: bytes, info: dict) -> str | None:
    for beside in filter(None, map(info.get, ("exif", "icc_profile", "xmp"))):  # what may hold zeros
        content = content.replace(beside, b"")
    return f"it holds {HOLE} zeros in a row" if bytes(HOLE) in content else None


def _tiff(content: bytes, tags: Mapping) -> str | None:
    """Each strip or tile is a zlib stream of its own, with a checksum."""
    if tags.get(COMPRESSION) not in DEFLATED:
        return None
    for starts, lengths in PIECES:
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
            try:
                zlib.decompress(content[start : start + length])
            except zlib.error:
                return f"the pixels at byte {start:,} don't fit their checksum"
    return None
