"""A folder of images, or of one sub-folder of images a class. No annotations."""

import os
from collections import Counter

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, is_text
from lossmap.data.kinds import is_image, is_ours, suffix_of


def parse(entry: dict, problems: Problems) -> Annotations:
    """Images by name; their ids are their paths in the folder, and their label the sub-folder's name.

    Images are found by their suffix or, where that is missing or says nothing, by their first bytes; those of formats
    that can't be read are among them, so that they are refused by name. Links to files and to folders are followed. All
    other files are counted by their kind, but for those that systems leave in folders (.DS_Store, Thumbs.db).
    """
    root, found = entry["images"], Annotations()
    loose, folders, others = _list(root)
    files: list[tuple[str | None, str]] = [(None, name) for name in loose]
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
    found.left_out = dict(sorted(others.items()))
    return found


def _list(folder: str) -> tuple[list[str], list[str], Counter]:
    """Image names, sub-folder names, and the numbers of other files by their kind."""
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda one: one.name)
    folders = {one.name for one in entries if os.path.isdir(one)}  # not is_dir(), which fails on a link to itself
    images, others = [], Counter[str]()
    for name in (one.name for one in entries if one.name not in folders):
        if is_ours(name) and is_image(os.path.join(folder, name)):
            images.append(name)
        elif is_ours(name):
            others[f"{suffix_of(name)} files" if suffix_of(name) else "files without suffix"] += 1
        elif name.startswith(".") and not name.startswith(("._", ".DS_Store")):
            others["hidden files"] += 1
    return images, sorted(filter(is_ours, folders)), others
