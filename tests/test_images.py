"""Decoding: pixel values by hand for every kind of image, and a message for every kind of bad file."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from lossmap.data import images
from lossmap.data.images import (
    ImageError,
    ImageFacts,
    check_images,
    check_masks,
    load_image,
    load_mask,
    outside,
    pixels_digest,
)
from lossmap.errors import LossmapError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    """A PNG by hand. colour: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA; chunks: (type, data) before pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + pixels + chunk(b"IEND", b"")


def cut(content, share=0.5):
    return content[: int(len(content) * share)]


def corrupted_png():
    content = bytearray(encoded(NOISE, "PNG"))
    content[200:260] = bytes(60)
    return bytes(content)


HOSTILE_IMAGES = {  # name -> (the file's bytes, what the message says)
    "zero_bytes.jpg": (b"", "is empty"),
    "text.jpg": (b"this is not an image", "not an image of a known format"),
    "error_page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
    "zip.jpg": (b"PK\x03\x04" + bytes(100), "not an image"),
    "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', "is SVG, which is not read"),
    "postscript.eps": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n",
        "is PostScript, which is not read",
    ),
    "git_lfs_pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not an image"),
    "first_bytes_only.jpg": (b"\xff\xd8\xff\xe0", "not an image|damaged"),
    "first_bytes_only.png": (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
    "truncated.jpg": (cut(encoded(NOISE, "JPEG")), "damaged or cut short"),
    "truncated.png": (cut(encoded(NOISE, "PNG")), "damaged or cut short"),
    "truncated.gif": (cut(encoded(NOISE, "GIF")), "damaged or cut short"),
    "truncated.webp": (cut(encoded(NOISE, "WEBP")), "damaged or cut short"),
    "truncated.bmp": (cut(encoded(NOISE, "BMP")), "damaged or cut short"),
    "truncated.tif": (cut(encoded(NOISE, "TIFF")), "damaged or cut short"),
    "truncated.ppm": (cut(encoded(NOISE, "PPM")), "damaged or cut short"),
    "corrupted.png": (corrupted_png(), "damaged or cut short"),
    "no_pixels.png": (png(0, 0, 8, 0, []), "not an image|damaged"),
    "bomb.png": (png(60_000, 60_000, 8, 0, [b"\0"]), "more than 178,956,970 pixels"),
    "just_too_large.png": (png(13_378, 13_378, 8, 0, [b"\0"]), "more than 178,956,970 pixels"),
    "text_bomb.png": (
        png(1, 1, 8, 0, [b"\0"], (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))),
        "damaged or cut short",
    ),
    "animated.gif": (encoded(RED, "GIF", save_all=True, append_images=[BLUE]), "is animated"),
    "animated.png": (encoded(RED, "PNG", save_all=True, append_images=[BLUE]), "is animated"),
    "animated.webp": (encoded(RED, "WEBP", save_all=True, append_images=[BLUE]), "is animated"),
    "two_pages.tif": (encoded(RED, "TIFF", save_all=True, append_images=[BLUE]), "several pages"),
    "integers_of_32_bits.tif": (encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "32-bit pixels"),
    "floats.tif": (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "32-bit pixels"),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def pixels(folder, name, content):
    image = load_image(written(folder, name, content))
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


@pytest.mark.parametrize("name", HOSTILE_IMAGES)
def test_a_bad_file_is_named_with_its_fault_and_a_remedy(name, tmp_path):
    content, message = HOSTILE_IMAGES[name]
    path = written(tmp_path, name, content)
    with pytest.raises(ImageError, match=message) as raised:
        load_image(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text
    assert check_images([name], tmp_path) == [text]


def test_what_is_not_a_file_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    missing, folder, broken, pipe, null = check_images(
        ["missing.jpg", "folder", "broken.jpg", "pipe.jpg", "a\0b.jpg"], tmp_path
    )
    assert missing.startswith(f"{tmp_path}/missing.jpg: does not exist. Complete the download")
    assert all("is not a file" in found for found in (folder, pipe))
    assert f"broken.jpg: is a link to {tmp_path}/nowhere.jpg, which does not exist. Mend the link." in broken
    assert "null character" in null


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, "secret.png", encoded(RED, "PNG"))

    def refuse(self):  # not by permissions, which do not bind the superuser
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ImageError, match=r"secret\.png: can't be read \(Permission denied\)"):
        load_image(path)


def test_a_path_may_not_leave_the_image_folder_and_a_link_may(tmp_path):
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    written(tmp_path, "kept.png", encoded(RED, "PNG"))
    (root / "link.png").symlink_to(tmp_path / "kept.png")
    (root / "up").symlink_to(tmp_path)
    bad = ["../kept.png", f"{tmp_path}/kept.png", "sub/../../kept.png", "up/../kept.png", ".."]
    assert all(outside(path) for path in bad)
    assert all(f"leaves the folder {root}. Correct the path, or put" in found for found in check_images(bad, root))
    good = check_images(["link.png", "up/kept.png"], root)
    assert [fact.sha256 for fact in good] == [hashlib.sha256(encoded(RED, "PNG")).hexdigest()] * 2


def test_a_changed_image_is_noticed(tmp_path):
    path = written(tmp_path, "a.png", encoded(RED, "PNG"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_image(path, sha256=digest).getpixel((0, 0)) == (255, 0, 0)
    path.write_bytes(encoded(BLUE, "PNG"))
    with pytest.raises(ImageError, match=r"a\.png: has changed since the manifest was made.*run read_dataset again"):
        load_image(path, sha256=digest)


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path):
    row = struct.pack(">5H", 0, 128, 129, 32_896, 65_535)  # over 257: 0, .498, .502, 128, 255
    want = [[[v] * 3 for v in (0, 0, 1, 128, 255)]]
    assert pixels(tmp_path, "a.png", png(5, 1, 16, 0, [row])) == want
    assert pixels(tmp_path, "a.pgm", b"P5 5 1 65535\n" + row) == want
    grey = Image.fromarray(np.array([[0, 128, 129, 32_896, 65_535]], dtype=np.uint16))
    assert pixels(tmp_path, "a.tif", encoded(grey, "TIFF")) == want


def test_colour_of_16_bits_keeps_the_high_byte(tmp_path):
    row = struct.pack(">3H", 65_535, 32_896, 0)
    assert pixels(tmp_path, "a.png", png(1, 1, 16, 2, [row])) == [[[255, 128, 0]]]


def test_transparency_is_laid_on_white(tmp_path):
    row = bytes([255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 128])  # opaque red, clear black, half black: 255 - 128 = 127
    assert pixels(tmp_path, "rgba.png", png(3, 1, 8, 6, [row])) == [[[255, 0, 0], [255] * 3, [127] * 3]]
    assert pixels(tmp_path, "la.png", png(2, 1, 8, 4, [bytes([9, 255, 9, 0])])) == [[[9] * 3, [255] * 3]]
    palette = (b"PLTE", bytes([1, 2, 3, 4, 5, 6]))
    clear = (b"tRNS", bytes([0, 255]))
    assert pixels(tmp_path, "p.png", png(2, 1, 8, 3, [bytes([0, 1])], palette, clear)) == [[[255] * 3, [4, 5, 6]]]
    assert pixels(tmp_path, "opaque.png", png(2, 1, 8, 3, [bytes([0, 1])], palette)) == [[[1, 2, 3], [4, 5, 6]]]


def test_grey_black_and_white_and_cmyk_become_rgb(tmp_path):
    assert pixels(tmp_path, "l.png", png(2, 1, 8, 0, [bytes([7, 200])])) == [[[7] * 3, [200] * 3]]
    assert pixels(tmp_path, "1.png", png(2, 1, 1, 0, [bytes([0b01000000])])) == [[[0] * 3, [255] * 3]]
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    assert pixels(tmp_path, "cmyk.tif", encoded(cmyk, "TIFF")) == [[[255, 0, 0]]]
    red = np.asarray(load_image(written(tmp_path, "cmyk.jpg", encoded(cmyk, "JPEG"))))[0, 0].astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_agrees_with_pillow(form, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10)
    options = {"lossless": True} if form == "WEBP" else {}
    path = written(tmp_path, "a", encoded(image, form, exif=exif, **options))
    with Image.open(path) as opened:
        want = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    upright = load_image(path)
    assert np.array_equal(np.asarray(upright), want)
    assert upright.size == ((3, 2) if orientation <= 4 else (2, 3))
    assert check_images(["a"], tmp_path)[0][:2] == upright.size


def test_orientation_6_turns_clockwise(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[[1] * 3, [2] * 3]], dtype=np.uint8))  # left 1, right 2
    assert pixels(tmp_path, "a.png", encoded(image, "PNG", exif=exif)) == [[[1] * 3], [[2] * 3]]  # top 1, bottom 2


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_orientation(exif, tmp_path):
    assert load_image(written(tmp_path, "a.jpg", encoded(NOISE, "JPEG", exif=exif))).size == (32, 32)


def test_of_a_camera_file_with_preview_the_first_picture_counts(tmp_path):
    content = encoded(RED, "MPO", save_all=True, append_images=[BLUE])
    red = pixels(tmp_path, "a.jpg", content)[0][0]
    assert red[0] > 250
    assert red[2] < 5


def test_a_single_frame_gif_is_an_image(tmp_path):
    assert pixels(tmp_path, "a.gif", encoded(RED, "GIF"))[0][0] == [255, 0, 0]


def test_a_mask_is_true_where_it_is_white(tmp_path):
    path = written(tmp_path, "m.png", png(4, 1, 8, 0, [bytes([0, 127, 128, 255])]))
    assert load_mask(path).tolist() == [[False, False, True, True]]
    path = written(tmp_path, "bits.png", png(2, 1, 1, 0, [bytes([0b01000000])]))
    assert load_mask(path).tolist() == [[False, True]]
    assert not load_mask(written(tmp_path, "black.png", png(2, 1, 8, 0, [bytes(2)]))).any()


def test_a_mask_that_writes_1_for_white_is_refused(tmp_path):
    written(tmp_path, "m.png", png(2, 1, 8, 0, [bytes([0, 1])]))
    [found] = check_masks(["m.png"], tmp_path)
    assert "m.png: its brightest value is 1. Write the mask as white (255) on black (0)." in found


def test_one_picture_saved_twice_has_one_digest_of_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    upright, turned = Image.fromarray(pixels), Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees on its way to the file, as cameras do
    written(tmp_path, "plain.png", encoded(upright, "PNG"))
    written(tmp_path, "plain.bmp", encoded(upright, "BMP"))
    written(tmp_path, "turned.png", encoded(turned, "PNG", exif=exif))
    written(tmp_path, "reshaped.png", encoded(Image.fromarray(pixels.reshape(6, 4, 3)), "PNG"))
    facts = check_images(["plain.png", "plain.bmp", "turned.png", "reshaped.png"], tmp_path)
    assert len({fact.sha256 for fact in facts}) == 4
    plain, bmp, upright_again, reshaped = [fact.pixels_sha256 for fact in facts]
    assert plain == bmp == upright_again != reshaped


def test_checks_keep_order_and_do_not_depend_on_the_number_of_workers(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(images, "PER_WORKER", 1)
    names = []
    for i in range(6):
        content = encoded(Image.new("RGB", (i + 1, 2), "red"), "PNG")
        names.append(written(tmp_path, f"{i}.png", content).name)
    written(tmp_path, "2.png", b"bad")
    alone = check_images(names, tmp_path)
    assert alone == check_images(names, tmp_path, workers=2)
    assert "decoding images" in capfd.readouterr().err
    assert [fact[0] for i, fact in enumerate(alone) if i != 2] == [1, 2, 4, 5, 6]
    pixels = pixels_digest(Image.new("RGB", (1, 2), "red"))
    red = bytes([255, 0, 0] * 64)
    assert alone[0] == ImageFacts(1, 2, hashlib.sha256((tmp_path / "0.png").read_bytes()).hexdigest(), pixels, red)
    assert "2.png: is not an image" in alone[2]
    assert check_images([], tmp_path) == []


def test_a_killed_process_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PER_WORKER", 1)
    for name in ("a", "b"):
        written(tmp_path, name, b"")
    with pytest.raises(LossmapError, match="was killed, most likely for want of memory. Give the job more memory"):
        images._check(die, ["a", "b"], tmp_path, 2, "dying")


def die(path):
    os._exit(9)
