"""More hostile files than the readers' own tests hold: each is one error that names file and entry, or read right."""

import gzip
import json
import os
import re
import struct
import unicodedata
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import BLUE, NOISE, RED, cut, encoded, pixels, png, written
from tiny_datasets import COCO, CONTENT, CUB, FILES, SEED, VIZWIZ, dataset, edited, fault, ids, mask, picture

from lossmap.data.formats import read
from lossmap.data.images import check_images, check_masks

A, Q, IM = "annotations", "questions", "images"
FIRST = FILES["coco"][0]


def of(form, *path_and_value, key=A):
    *path, value = path_and_value
    return form, edited(form, (tuple(path), value), key=key)


ANNOTATIONS = {  # name -> (format, annotation files), what the message says
    # a file that is something else
    "UTF-16 with its mark": (("coco", {A: json.dumps(COCO).encode("utf-16")}), "is not UTF-8 text .byte 0."),
    "gzip": (("coco", {A: gzip.compress(json.dumps(COCO).encode())}), "is not UTF-8 text .byte 1."),
    "error page": (("seedbench", {A: "<!DOCTYPE html><title>404</title>"}), "is not JSON: .* line 1, column 1"),
    "a large file's pointer": (("karpathy", {A: "version https://git-lfs.github.com/spec/v1\n"}), "is not JSON"),
    "JSON lines": (("coco", {A: '{"id": 1}\n{"id": 2}\n'}), "is not JSON: Extra data at line 2, column 1"),
    "Python's own notation": (("coco", {A: str(COCO)}), "is not JSON: .*double quotes"),
    "raw line break in text": (("coco", {A: '{"images": "a\nb"}'}), "is not JSON: Invalid control character"),
    "objects nested too deeply": (("coco", {A: '{"a":' * 100_000}), "is not usable JSON"),
    "bare text": (("foodieqa", {A: '"images"'}), "outermost value is the text 'images', wanted a list"),
    "bare NaN": (("vqav2", {Q: "NaN", A: CONTENT["vqav2"][A]}), "outermost value is the number nan, wanted an object"),
    "questions for annotations": (("vqav2", {Q: CONTENT["vqav2"][Q], A: CONTENT["vqav2"][Q]}), 'lacks "annotations"'),
    # numbers
    "id NaN": (of("coco", IM, 0, "id", float("nan")), r'images\[0\]: "id" is the number nan, wanted an id'),
    "id 1e999": (("coco", {A: '{"images": [{"id": 1e999, "file_name": "a"}]}'}), '"id" is a huge number, wanted an id'),
    "zero and minus zero": (
        ("coco", {A: '{"images": [{"id": 0, "file_name": "a"}, {"id": -0, "file_name": "b"}]}'}),
        r"images\[1\]: image 0 was already given at .*images\[0\]",
    ),
    "image number below zero": (of("vqav2", Q, 0, "image_id", -7, key=Q), "val2014_-00000000007.jpg: does not exist"),
    "image number beyond all files": (of("vqav2", Q, 0, "image_id", 10**300, key=Q), r"val2014_10+\.jpg: does not"),
    "type beyond all types": (of("seedbench", Q, 3, "question_type_id", 10**40), "question type 10+ is not in the"),
    "type zero": (of("seedbench", Q, 0, "question_type_id", 0), "question type 0 is not in the file's"),
    "answer 1.0": (of("foodieqa", 0, "answer", 1.0), '"answer" is the number 1.0, wanted an id'),
    "answer true": (of("foodieqa", 0, "answer", True), '"answer" is true, wanted an id'),
    "answer in other digits": (of("foodieqa", 0, "answer", "１"), "'１', which is none of its 4 options"),
    "answer of thousands of digits": (of("foodieqa", 0, "answer", 10**4000), "which is none of its 4 options"),
    "box that is no number": (
        ("cub", edited("cub", (("bounding_boxes.txt",), "1 1 1 1 nan\n2 1 1 1 1\n3 1 1 1 inf\n"))),
        "(?s)line 1: the box is '1 1 1 nan', wanted four numbers.*line 3: the box is '1 1 1 inf'",
    ),
    # null and other types in place of values
    "caption null": (of("coco", A, 1, "caption", None), r'annotations\[1\]: "caption" is null, wanted text'),
    "caption a list": (of("coco", A, 1, "caption", ["A dog."]), r'"caption" is a list, wanted text'),
    "annotation null": (of("coco", A, 1, None), r"annotations\[1\]: is null, wanted an object"),
    "image null": (of("karpathy", IM, 1, None), r"images\[1\]: is null, wanted an object"),
    "sentence null": (of("karpathy", IM, 0, "sentences", 0, None), r"sentences\[0\]: is null, wanted an object"),
    "sentences an object": (of("karpathy", IM, 0, "sentences", {"raw": "x"}), '"sentences" is an object'),
    "folder null": (of("karpathy", IM, 0, "filepath", None), r'images\[0\]: "filepath" is null, wanted text'),
    "coco id null": (of("karpathy", IM, 0, "cocoid", None), r'images\[0\]: "cocoid" is null, wanted an id'),
    "types a list": (of("seedbench", "question_type", ["Scene"]), '"question_type" is a list, wanted an object'),
    "type numbers as text": (
        of("seedbench", "question_type", {"Counting": "5", "Scene": "1", "Text": "9", "Action": "10"}),
        "question_type 'Counting': \"Counting\" is the text '5', wanted a whole number",
    ),
    "two types of one number": (
        of("seedbench", "question_type", "Other", 5),
        "question_type 'Other': question type 5 was already given at .*'Instances Counting'",
    ),
    "record a list": (("vizwiz_grounding", {A: {FILES["vizwiz_grounding"][0]: ["soup"]}}), "is a list, wanted an obj"),
    "no name": (("vizwiz_grounding", {A: {"": {"question": "?", "answers": ["a"]}}}), '"file name" is empty text'),
    "question null": (of("vizwiz_grounding", FILES["vizwiz_grounding"][0], "question", None), '"question" is null'),
    "answers an object": (of("vizwiz_grounding", FILES["vizwiz_grounding"][0], "answers", {}), '"answers" is an empty'),
    "subset null": (of("vqav2", "data_subtype", None, key=Q), 'questions.json: "data_subtype" is null, wanted text'),
    "choice null": (of("foodieqa", 1, "choices_en", ["a", None, "b", "c"]), r'\[1\]: "choices_en" holds null'),
    "food a list": (of("foodieqa", 0, "food_meta", []), '"food_meta" is an empty list, wanted an object'),
    # paths
    "folder absolute": (of("karpathy", IM, 0, "filepath", "/etc"), "leaves the folder"),
    "up inside a path": (of("coco", IM, 0, "file_name", f"a/../../{FIRST}"), "leaves the folder"),
    "a slash at the end": (of("coco", IM, 0, "file_name", f"{FIRST}/"), f"{FIRST}/: does not exist"),
    "another system's path": (of("coco", IM, 0, "file_name", f"..\\{FIRST}"), "does not exist"),
    "spelt for the web": (of("coco", IM, 0, "file_name", f"%2e%2e/{FIRST}"), "does not exist"),
    "other case": (of("coco", IM, 0, "file_name", FIRST.upper()), "JPG: does not exist"),
    "home": (of("coco", IM, 0, "file_name", f"~/{FIRST}"), "does not exist"),
    "subset climbs": (of("vqav2", "data_subtype", "/../../val2014", key=Q), "leaves the folder"),
    "food absolute": (of("foodieqa", 0, "food_meta", "food_file", "/etc/passwd"), "leaves the folder"),
    "mask climbs": (("vizwiz_grounding", {A: {"../x.jpg": VIZWIZ["VizWiz_val_00000008.jpg"]}}), "leaves the folder"),
    "null in a line": (("cub", edited("cub", (("images.txt",), CUB["images.txt"].replace("46", "\0")))), "null char"),
    "cub absolute": (("cub", edited("cub", (("images.txt",), "1 /etc/passwd\n2 a\n3 b\n"))), "leaves the folder"),
    "one line has no end": (("cub", edited("cub", (("images.txt",), CUB["images.txt"].replace("\n", " ")))), "not in"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_hostile_annotations_are_one_error_that_names_the_entry(name, tmp_path):
    (form, content), message = ANNOTATIONS[name]
    text = fault(dataset(tmp_path, form, content))
    assert re.search(message, text), text
    assert str(tmp_path) in text


def test_hostile_but_legal_text_is_kept_as_it_is(tmp_path):
    """Right-to-left marks, a composed and a decomposed letter, zero-width signs, emoji, a million letters."""
    texts = ["\u202eمرحبا", "e\u0301", "é", "a\u200bb\ufeff", "\U0001f469\u200d\U0001f4bb", "x" * 1_000_000]
    content = edited("coco", ((A,), [{"image_id": 9, "caption": text} for text in texts]))
    assert read(dataset(tmp_path, "coco", content)).captions["caption"].tolist() == texts


def test_names_that_look_alike_are_two_images(tmp_path):
    names = [unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD")]
    for shade, name in enumerate(names):
        picture(tmp_path / name, shade=9 * shade)
    found = read({"format": "image_folder", "images": str(tmp_path)})
    assert sorted(ids(found)) == sorted(names)
    assert found.images["sha256"].nunique() == 2


def test_odd_file_names_are_read(tmp_path):
    names = ["-rf.png", "a\nb.png", "$(reboot).png", "'; --.png", "CON.png", " .png"]
    for name in names:
        picture(tmp_path / name)
    assert sorted(ids(read({"format": "image_folder", "images": str(tmp_path)}))) == sorted(names)


def test_line_ends_of_another_system_change_nothing(tmp_path):
    content = {A: {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in CUB.items()}}
    (tmp_path / "other").mkdir()
    ours, theirs = read(dataset(tmp_path, "cub")), read(dataset(tmp_path / "other", "cub", content))
    assert ours.images[["image_id", "label"]].equals(theirs.images[["image_id", "label"]])


# Places: what stands where a file or a folder should


def stand_in(kind, path, tmp_path):
    """Put something else at path."""
    if path.is_dir():
        path.rename(tmp_path / "moved")
    elif path.exists():
        path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":  # whoever reads it waits for ever
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "link to nothing":
            path.symlink_to(path.with_name("nothing"))
        case "file":
            path.write_text("x")


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device", "link to nothing"])
@pytest.mark.parametrize(("form", "place"), [("coco", f"images/{FIRST}"), ("image_folder", "images/cat/2.png")])
def test_what_stands_in_an_images_place_is_named(kind, form, place, tmp_path):
    entry = dataset(tmp_path, form)
    stand_in(kind, tmp_path / place, tmp_path)
    text = fault(entry)
    assert re.search(f"{place}: (is not a file|is a link to|is a folder inside a class's)", text), text


@pytest.mark.parametrize("between", [(), ("b",), ("b", "c.png")])
def test_a_link_that_leads_back_to_itself_is_named_as_such(between, tmp_path):
    entry = dataset(tmp_path, "coco")
    chain = [FIRST, *between, FIRST]
    (tmp_path / "images" / FIRST).unlink()
    for name, next_one in pairwise(chain):
        (tmp_path / "images" / name).symlink_to(next_one)
    text = fault(entry)
    assert f"images/{FIRST}: is a link to {chain[1]}, which leads back to itself. Mend the link." in text
    assert "does not exist" not in text


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device", "link to nothing"])
def test_what_stands_in_a_masks_place_is_named(kind, tmp_path):
    entry = dataset(tmp_path, "vizwiz_grounding")
    place = tmp_path / "masks/VizWiz_val_00000008.png"
    stand_in(kind, place, tmp_path)
    text = fault(entry)
    assert re.search(f"question VizWiz_val_00000008: {place}: (is not a file|is a link to)", text), text


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device", "link to nothing"])
@pytest.mark.parametrize(("form", "place"), [("coco", "annotations.json"), ("cub", "cub/classes.txt")])
def test_what_stands_in_an_annotation_files_place_is_named(kind, form, place, tmp_path):
    entry = dataset(tmp_path, form)
    stand_in(kind, tmp_path / place, tmp_path)
    assert f"{tmp_path / place}: is not a file." in fault(entry)


@pytest.mark.parametrize("kind", ["file", "pipe", "loop", "link to nothing"])
def test_what_stands_in_a_folders_place_is_named(kind, tmp_path):
    entry = dataset(tmp_path, "coco")
    stand_in(kind, tmp_path / "images", tmp_path)
    assert f"images: {tmp_path}/images is not a folder." in fault(entry)


def test_a_class_that_is_a_link_is_read_and_one_that_leads_back_is_named(tmp_path):
    entry = dataset(tmp_path, "image_folder")
    picture(tmp_path / "elsewhere/1.png")
    (tmp_path / "images/bird").symlink_to(tmp_path / "elsewhere")
    assert "bird/1.png" in ids(read(entry))
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    assert "images/loop/cat: is a folder inside a class's folder" in fault(entry)


# Images


def jpeg_of(width, height):
    """A JPEG whose header lies about its size."""
    content = bytearray(encoded(NOISE, "JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def flipped(content, place):
    content = bytearray(content)
    content[place] ^= 0xFF
    return bytes(content)


def without(content, chunk):
    """A PNG without its chunks of one type."""
    kept, at = content[:8], 8
    while at < len(content):
        size = 12 + struct.unpack(">I", content[at : at + 4])[0]
        kept += b"" if content[at + 4 : at + 8] == chunk else content[at : at + size]
        at += size
    return kept


def with_empty_rest(form):
    """A file of full length whose second half never arrived."""
    content = encoded(NOISE.resize((128, 128)), form)
    return cut(content) + bytes(len(content) - len(cut(content)))


def tiff_that_ends_nowhere():
    content = bytearray(encoded(RED, "TIFF"))
    content[4:8] = struct.pack("<I", 0x7FFFFFFF)  # where the first directory lies
    return bytes(content)


PNG = encoded(NOISE, "PNG")
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF")  # of uncompressed ones, any bytes are pixels
BAD_IMAGES = {  # name -> the file's bytes, what the message says
    "billions_of_pixels.jpg": (jpeg_of(65_500, 65_500), "more than 178,956,970 pixels"),
    "no_height.jpg": (jpeg_of(32, 0), "not an image|damaged"),
    "progressive_cut.jpg": (cut(encoded(NOISE, "JPEG", progressive=True)), "damaged or cut short"),
    "header_only.jpg": (encoded(NOISE, "JPEG")[: encoded(NOISE, "JPEG").index(b"\xff\xda")], "damaged or cut short"),
    "header_flipped.png": (flipped(PNG, 20), "not an image|damaged"),
    "pixels_flipped.png": (flipped(PNG, 60), "damaged or cut short"),
    "no_pixel_data.png": (without(PNG, b"IDAT"), "damaged or cut short"),
    "no_palette.png": (png(4, 1, 8, 3, [bytes(4)]), "damaged|not an image"),
    "depth_3.png": (png(4, 1, 3, 0, [bytes(4)]), "not an image|damaged"),
    "profile_bomb.png": (
        png(1, 1, 8, 0, [b"\0"], (b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000)))),
        "damaged or cut short",
    ),
    "nowhere.tif": (tiff_that_ends_nowhere(), "not an image|damaged"),
    **{f"empty_rest.{form}": (with_empty_rest(form), "damaged|not an image") for form in FORMATS},
    "truncated.avif": (cut(encoded(NOISE, "AVIF")), "not an image|damaged"),
    "truncated_head.webp": (encoded(NOISE, "WEBP")[:20], "not an image|damaged"),
    "no_size.gif": (b"GIF89a" + bytes(7) + b"\x3b", "not an image|damaged"),
    "no_frame.gif": (b"GIF89a\x04\x00\x04\x00\x00\x00\x00\x3b", "not an image|damaged"),
    "endless_width.ppm": (b"P6 " + b"9" * 30 + b" 1 255\n" + bytes(9), "not an image|damaged|pixels"),
    "no_maximum.pgm": (b"P5 2 1 0\n\0\0", "not an image|damaged"),
    "letters.pgm": (b"P2 2 1 255\nx y\n", "damaged|not an image"),
    "minus.bmp": (encoded(RED, "BMP").replace(struct.pack("<i", 4), struct.pack("<i", -4)), "not an image|pixels"),
    "icon.jpg": (encoded(RED, "ICO"), "not an image of a known format"),
    "jpeg_2000.jpg": (encoded(RED, "JPEG2000"), "is JPEG 2000, which is not read. Convert it"),
    "document.jpg": (encoded(RED, "PDF"), "not an image of a known format"),
    "text_in_utf16.jpg": ("image".encode("utf-16"), "not an image of a known format"),
    "animated.avif": (encoded(RED, "AVIF", save_all=True, append_images=[BLUE]), "is animated"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged files
def test_a_hostile_image_is_one_error_that_names_file_and_entry(name, tmp_path):
    content, message = BAD_IMAGES[name]
    entry = dataset(tmp_path, "coco")
    (tmp_path / "images" / FIRST).write_bytes(content)
    text = fault(entry)
    where = f"{tmp_path}/annotations.json: images[0]: image 9: {tmp_path}/images/{FIRST}: "
    assert re.search(re.escape(where) + f".*({message})", text), text
    assert text.count("\n") == 2  # what, which, what to do


@pytest.mark.parametrize("name", ["pixels_flipped.png", "billions_of_pixels.jpg", "animated.avif", "document.jpg"])
def test_a_hostile_mask_is_one_error_that_names_file_and_entry(name, tmp_path):
    content, message = BAD_IMAGES[name]
    entry = dataset(tmp_path, "vizwiz_grounding")
    place = written(tmp_path / "masks", "VizWiz_val_00000001.png", content)
    assert re.search(f"mask of question VizWiz_val_00000001: {place}: .*({message})", fault(entry))


def exif_of(orientation, kind=3):
    """EXIF with an orientation of any number, or stored as another type."""
    value = struct.pack("<HH", orientation, orientation) if kind == 3 else struct.pack("<I", orientation)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x0112, kind, 1) + value + bytes(4)


FLAT = Image.new("RGB", (6, 4), (10, 200, 30))


@pytest.mark.parametrize("exif", [exif_of(0), exif_of(9), exif_of(65_535), exif_of(6, kind=2), exif_of(6, kind=99)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_orientation_that_means_nothing_turns_nothing(exif, tmp_path):
    found = np.array(pixels(tmp_path, "a.jpg", encoded(FLAT, "JPEG", exif=exif, quality=95)))
    assert found.shape == (4, 6, 3)
    assert abs(found - [10, 200, 30]).max() <= 3


def test_exif_that_lies_about_the_size_is_not_believed(tmp_path):
    exif = Image.Exif()
    exif[0x0100], exif[0x0101], exif[0xA002], exif[0xA003] = 4000, 3000, 4000, 3000
    assert np.shape(pixels(tmp_path, "a.jpg", encoded(FLAT, "JPEG", exif=exif))) == (4, 6, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_what_follows_an_image_is_not_read(form, tmp_path):
    whole = encoded(FLAT, form)
    assert pixels(tmp_path, "a", whole + b"PK\x03\x04" + bytes(50)) == pixels(tmp_path, "b", whole)


def test_of_two_images_in_one_file_the_first_counts(tmp_path):
    red, blue = encoded(RED, "PNG"), encoded(BLUE, "PNG")
    assert pixels(tmp_path, "a.png", red + blue)[0][0] == [255, 0, 0]


def test_the_name_says_nothing_about_the_format(tmp_path):
    for i, form in enumerate(("PNG", "GIF", "BMP", "PPM", "TIFF")):
        assert pixels(tmp_path, f"{i}.jpg", encoded(RED, form))[0][0] == [255, 0, 0]


def test_16_bits_with_alpha_are_laid_on_white(tmp_path):
    row = struct.pack(">8H", 65_535, 0, 0, 65_535, 0, 0, 0, 0)  # opaque red, clear black
    assert pixels(tmp_path, "a.png", png(2, 1, 16, 6, [row])) == [[[255, 0, 0], [255] * 3]]
    row = struct.pack(">4H", 0, 65_535, 0, 0)  # opaque black, clear black
    assert pixels(tmp_path, "b.png", png(2, 1, 16, 4, [row])) == [[[0] * 3, [255] * 3]]


def test_one_colour_that_stands_for_transparent_is_white(tmp_path):
    clear = (b"tRNS", struct.pack(">3H", 9, 9, 9))
    assert pixels(tmp_path, "a.png", png(2, 1, 8, 2, [bytes([9, 9, 9, 1, 2, 3])], clear)) == [[[255] * 3, [1, 2, 3]]]


def test_black_and_white_may_be_stored_either_way(tmp_path):
    plain = Image.new("1", (2, 1))
    plain.putpixel((1, 0), 1)
    for photometric in (0, 1):
        content = bytearray(encoded(plain, "TIFF"))
        at = content.index(struct.pack("<HHI", 262, 3, 1)) + 8  # white is zero, or black is
        stored = content[at]
        content[at] = photometric
        values = [[0] * 3, [255] * 3] if photometric == stored else [[255] * 3, [0] * 3]
        assert pixels(tmp_path, "a.tif", bytes(content)) == [values]


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes_are_images(size, tmp_path):
    written(tmp_path, "a.png", encoded(Image.new("RGB", size), "PNG"))
    assert check_images(["a.png"], tmp_path)[0][:2] == size


def test_masks_of_every_kind_are_read_alike(tmp_path):
    """White on black in grey, colour, 16 bits, CMYK, with alpha: the same pixels count."""
    grey = Image.new("L", (4, 3))
    grey.paste(255, (1, 1, 3, 2))
    kinds = {"grey.png": grey, "colour.png": grey.convert("RGB"), "cmyk.tif": grey.convert("CMYK")}
    kinds |= {"bits.png": grey.convert("1"), "alpha.png": grey.convert("RGBA")}
    kinds["deep.png"] = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for name, image in kinds.items():
        image.save(tmp_path / name)
        assert check_masks([name], tmp_path) == [(4, 3)]
    found = {name: pixels(tmp_path, name, (tmp_path / name).read_bytes()) for name in kinds}
    assert all(values == found["grey.png"] for values in found.values())


def test_a_mask_of_another_size_names_both_sizes(tmp_path):
    entry = dataset(tmp_path, "vizwiz_grounding")
    mask(tmp_path / "masks/VizWiz_val_00000008.png", width=3, height=4)  # turned
    text = fault(entry)
    assert "VizWiz_val_00000008.png: is 3 x 4 pixels; its image, upright by its EXIF orientation, is 4 x 3" in text


def test_seed_types_beyond_the_known_are_not_taken_for_videos(tmp_path):
    content = {"questions": [dict(SEED["questions"][0], question_type_id=27)], "question_type": SEED["question_type"]}
    del content["questions"][0]["data_type"]
    assert "question type 27 is not in" in fault(dataset(tmp_path, "seedbench", {A: content}))


def test_the_file_of_every_format_is_named_where_it_is_binary(tmp_path):
    for form in ("karpathy", "coco", "seedbench", "vizwiz_grounding", "vqav2", "foodieqa"):
        entry = dataset(tmp_path / form, form)
        path = Path(entry.get("questions", entry[A]))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
        assert f"{path}: is not UTF-8 text" in fault(entry)
