"""Holes in the middle of image files that decoders pass in silence; and whole images of every kind, which must pass."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from lossmap.data.damage import PADDING, find_damage
from lossmap.data.images import ImageError, check_images, check_masks, load_image

PHOTOGRAPHS = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
SHADES = np.linspace(0, 255, 300).astype(np.uint8)
WHOLE = {
    "photograph": PHOTOGRAPHS[0].resize((320, 214)),
    "grey": PHOTOGRAPHS[1].convert("L"),
    "black": Image.new("RGB", (800, 800)),
    "white": Image.new("RGB", (800, 800), "white"),
    "text": Image.new("RGB", (700, 700), "white"),
    "shades": Image.fromarray(np.tile(SHADES, (300, 1))),
    "noise": Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)),
    "one pixel": Image.new("RGB", (1, 1)),
    "strip": PHOTOGRAPHS[0].resize((700, 3)),
}
WHOLE["text"].paste(PHOTOGRAPHS[0].resize((60, 40)), (9, 9))
ENCODINGS = [
    *[("JPEG", {"quality": quality, "progressive": way}) for quality in (5, 60, 95) for way in (False, True)],
    *[("JPEG", {"optimize": True}), ("JPEG", {"subsampling": 0}), ("JPEG", {"subsampling": 1})],
    *[("JPEG", {"restart_marker_blocks": 3}), ("JPEG", {"restart_marker_rows": 1, "progressive": True})],
    *[("WEBP", {"quality": quality, "method": method}) for quality in (1, 80, 100) for method in (0, 4)],
    *[("WEBP", {"lossless": True, "quality": 0, "method": 0}), ("WEBP", {"lossless": True})],
    *[("AVIF", {"quality": quality, "speed": 10}) for quality in (10, 90)],
    *[("TIFF", {"compression": way}) for way in ("tiff_adobe_deflate", "tiff_deflate", "tiff_lzw", "packbits", "raw")],
]


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def found(content):
    """What is found in a file, or "" where its decoder itself refuses it."""
    image = Image.open(io.BytesIO(content))
    try:
        image.load()
    except Exception:
        return ""
    return find_damage(content, image)


def with_hole(content, at, hole):
    return content[:at] + hole + content[at + len(hole) :]


@pytest.mark.parametrize(("form", "options"), ENCODINGS, ids=str)
def test_no_whole_image_is_taken_for_damaged(form, options):
    assert {name: found(encoded(image, form, **options)) for name, image in WHOLE.items()} == dict.fromkeys(WHOLE)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        *[("JPEG", {"quality": 90, "progressive": way}) for way in (False, True)],
        *[("JPEG", {"quality": 90, "optimize": True}), ("JPEG", {"quality": 90, "restart_marker_blocks": 8})],
        *[("WEBP", {"quality": 90}), ("AVIF", {"quality": 90, "speed": 10})],
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
    ids=str,
)
def test_a_hole_of_4096_zeros_in_a_photograph_is_found(form, options):
    """Not each: where a decoder falls into step again and ends where the data do, nothing can be seen."""
    rng, holes, seen = np.random.default_rng(0), 50 if form == "JPEG" else 15, 0
    for _ in range(holes):
        content = encoded(PHOTOGRAPHS[rng.integers(2)], form, **options)
        seen += found(with_hole(content, int(rng.integers(900, len(content) - 4200)), bytes(4096))) is not None
    assert seen >= 0.93 * holes


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
def test_other_bytes_in_a_hole_are_found(form):
    options = {"compression": "tiff_deflate"} if form == "TIFF" else {"quality": 90}
    rng, content = np.random.default_rng(0), encoded(PHOTOGRAPHS[0], form, **options)
    holes = [with_hole(content, int(rng.integers(900, len(content) - 4200)), rng.bytes(4096)) for _ in range(20)]
    assert sum(found(hole) is not None for hole in holes) >= 19


def test_a_damaged_file_is_refused_by_name_and_a_known_one_is_not_searched_again(tmp_path):
    content = encoded(PHOTOGRAPHS[0], "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(with_hole(content, 20_000, bytes(4096)))
    [text] = check_images(["a.jpg"], tmp_path)
    assert text.startswith(f"{tmp_path}/a.jpg: is damaged (")
    assert text.endswith("). Get the file again or, if it looks right, save it anew.")
    assert check_masks(["a.jpg"], tmp_path) == [text]
    with pytest.raises(ImageError, match="is damaged"):
        load_image(tmp_path / "a.jpg")


def test_what_is_beside_the_pixels_is_not_looked_at():
    exif = Image.Exif()
    exif[0x927C] = bytes(5000)  # a camera's own notes
    for form in ("AVIF", "JPEG", "WEBP"):
        assert found(encoded(PHOTOGRAPHS[0].resize((64, 48)), form, exif=exif, icc_profile=bytes(3000))) is None
    assert found(encoded(PHOTOGRAPHS[0].convert("CMYK"), "JPEG")) is None
    assert found(encoded(PHOTOGRAPHS[0], "MPO", save_all=True, append_images=[PHOTOGRAPHS[1]])) is None
    assert found(encoded(PHOTOGRAPHS[0], "JPEG") + bytes(5000)) is None


@pytest.mark.parametrize(("extra", "refused"), [(1, False), (PADDING, False), (500, True)])
def test_an_encoder_may_leave_a_few_bytes_before_the_end_marker(extra, refused):
    content = encoded(PHOTOGRAPHS[0], "JPEG")
    assert (found(content[:-2] + bytes(extra) + content[-2:]) is not None) == refused
