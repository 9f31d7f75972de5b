"""Which files are images, by what names they are found, and which are refused."""

import re
import unicodedata

import pytest
from PIL import Image
from tiny_datasets import FILES, VIZWIZ, dataset, edited, fault, ids, mask, picture

from lossmap.data.formats import read


def test_an_image_that_is_a_link_is_read_and_a_path_that_climbs_is_not(tmp_path):
    entry = dataset(tmp_path, "coco")
    path = tmp_path / "images" / FILES["coco"][0]
    path.rename(tmp_path / "elsewhere.jpg")
    path.symlink_to(tmp_path / "elsewhere.jpg")
    assert len(read(entry).images) == 3
    content = edited("coco", (("images", 0, "file_name"), "../elsewhere.jpg"))
    text = fault(dataset(tmp_path, "coco", content))
    assert "elsewhere.jpg: leaves the folder" in text


def test_images_are_known_by_suffix_or_first_bytes_and_all_else_is_counted(tmp_path):
    for name in ("a.jfif", "b.JPE", "c.tif", "d", "e.download", "f.png"):
        picture(tmp_path / name)
    names = (".DS_Store", "Thumbs.db", "._a.jpg", ".hidden.jpg", "notes.txt", "more.TXT", "README")
    for name in names:
        (tmp_path / name).write_text("no image")
    (tmp_path / "@eaDir").mkdir()
    found = read({"format": "image_folder", "images": str(tmp_path)})
    assert ids(found) == ["a.jfif", "b.JPE", "c.tif", "d", "e.download", "f.png"]
    assert found.left_out == {".txt files": 2, "files without suffix": 1, "hidden files": 1}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.heic", b"x", "HEIC"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),  # as telephones export them
        ("a", b"\xff\x0a\0\0", "JPEG XL"),
        ("a.svg", b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="x"/>', "SVG"),
        ("b", b"\xef\xbb\xbf <svg width='4'/>", "SVG"),
        ("a.tif", b"II*\0\x10\0\0\0CR\2\0", "a camera's raw format"),
        ("a.psd", b"8BPS\0\1", "Photoshop's format"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        ("a.DNG", b"II*\0\x08\0\0\0", "a camera's raw format"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw format"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused_by_name(name, content, kind, tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    text = fault({"format": "image_folder", "images": str(tmp_path)})
    assert f"{tmp_path}/{name}: is {kind}, which is not read. Convert it to PNG or JPEG, or move it away." in text


@pytest.mark.parametrize(("name", "kind"), [("p.heic", "HEIC"), ("p.jp2", "JPEG 2000"), ("p.dng", "a camera's raw")])
def test_a_jpeg_under_the_name_of_a_format_that_is_not_read_is_refused_by_name(name, kind, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    text = fault({"format": "image_folder", "images": str(tmp_path)})
    assert f"{name}: is named as {kind}" in text
    assert "which is not read, but holds another format. Rename it by what it holds, or convert it" in text


def test_an_avif_that_names_another_brand_first_is_read(tmp_path):
    file = tmp_path / "a"
    Image.new("RGB", (8, 8)).save(file, "AVIF")
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"mif1" + content[12:])
    assert ids(read({"format": "image_folder", "images": str(tmp_path)})) == ["a"]


CAFE = [unicodedata.normalize(form, "café/né.jpg") for form in ("NFC", "NFD")]


@pytest.mark.parametrize("disk", [0, 1])
def test_a_name_in_another_unicode_form_is_the_same_name(disk, tmp_path):
    content = edited("coco", (("images", 0, "file_name"), CAFE[1 - disk]))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / CAFE[disk], width=7)
    found = read(entry)
    assert found.images["path"][0] == f"{tmp_path}/images/{CAFE[disk]}"
    assert found.images["width"].tolist() == [7, 4, 4]


def test_names_that_differ_in_form_alone_are_never_mixed_up(tmp_path):
    content = edited("coco", *((("images", i, "file_name"), CAFE[i]) for i in range(2)))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / CAFE[1], width=9)
    assert re.search("images.0.: image 9: .*does not exist.* There is 'cafe.*spelt otherwise", fault(entry))
    assert "does not exist" in fault(entry | {"limit": 1})  # whether the other is chosen or not
    picture(tmp_path / "images" / CAFE[0], width=7)
    assert read(entry).images["width"].tolist() == [7, 9, 4]


def test_a_name_in_other_letters_is_refused_with_the_one_that_is_there(tmp_path):
    content = edited("coco", (("images", 0, "file_name"), "SUB/A.JPG"))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / "sub" / "a.jpg")
    assert "SUB/A.JPG: does not exist" in fault(entry)
    assert "There is 'sub/a.jpg', spelt otherwise: give it or its entry the other's name." in fault(entry)
    picture(tmp_path / "images" / "sub" / "A.jpg")
    assert "There is" not in fault(entry)  # which of the two?


def test_a_mask_in_another_unicode_form_is_found(tmp_path):
    content = {"annotations": {CAFE[0].replace("/", "-"): VIZWIZ["VizWiz_val_00000008.jpg"]}}
    entry = dataset(tmp_path, "vizwiz_grounding", content)
    picture(tmp_path / "images" / CAFE[0].replace("/", "-"))
    file = tmp_path / "masks" / CAFE[1].replace("/", "-").replace(".jpg", ".png")
    mask(file)
    assert read(entry).questions["mask_path"].tolist() == [str(file)]
