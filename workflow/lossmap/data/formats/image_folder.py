"""A folder of images, or of one sub-folder of images a class. No annotations."""

import os

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, is_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif")


def parse(entry: dict, problems: Problems) -> Annotations:
    """Images by name; their ids are their paths in the folder, and their label the sub-folder's name.

    Only files with an image's suffix are images; others are counted, hidden ones ignored.
    """
    root, found = entry["images"], Annotations()
    loose, folders, others = _list(root)
    files = [(None, name) for name in loose]
    for folder in folders:
        inner, deeper, inner_others = _list(os.path.join(root, folder))
        problems.extend(f"{root}/{folder}/{name}: is a folder inside a class's folder; move it up" for name in deeper)
        files += [(folder, f"{folder}/{name}") for name in inner]
        others += inner_others
    if loose and len(files) > len(loose):
        classes = sorted({folder for folder, _ in files if folder})
        problems.append(
            f"{root}: holds both images ({loose[0]}, ...) and sub-folders of images ({classes[0]}, ...);"
            " sort all images into classes, or none"
        )
    for label, file in sorted(files, key=lambda pair: pair[1]):
        if is_text(file):
            found.images.append(ImageEntry(file, file, root, label))
        else:
            problems.append(f"{root}: the file name {file!a} is not UTF-8; rename it")
    found.left_out = {"files without an image's suffix": others}
    return found


def _list(folder: str) -> tuple[list[str], list[str], int]:
    """Image names, sub-folder names, and the number of other files; hidden ones left out."""
    with os.scandir(folder) as entries:
        entries = sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    folders = [one.name for one in entries if os.path.isdir(one)]  # not is_dir(), which fails on a link to itself
    files = [one.name for one in entries if not os.path.isdir(one)]
    images = [name for name in files if name.lower().endswith(SUFFIXES)]
    return images, folders, len(files) - len(images)
