"""Image files -> pixels: the only place that decodes images and masks."""

import errno
import functools
import hashlib
import io
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from lossmap.data.damage import find_damage
from lossmap.data.kinds import misnamed, unread_kind
from lossmap.errors import LossmapError

MAX_PIXELS = 178_956_970  # Pillow's own limit, 13,377 x 13,377: known from the header, before anything is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")  # not EPS and the like, which run other programs
THUMBNAIL_SIDE = 8
PER_WORKER = 300  # images that decode in the time that a process takes to start
ORIENTATION_TAG = 0x0112
# What makes an image upright, by EXIF orientation. ImageOps.exif_transpose does the same but also rewrites the EXIF
# block, and fails where another tag of it is damaged.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Picture = str | Path | Image.Image | np.ndarray  # an image, wherever it is


class ImageError(LossmapError):
    """An image file that can't be used: one line that names the file, the fault and the remedy."""


class ImageFacts(NamedTuple):
    """Width and height in pixels after EXIF orientation; the SHA-256 of the file's bytes, and of its pixels, which
    two files share where the same picture was saved twice (see `pixels_digest`); its thumbnail."""

    width: int
    height: int
    sha256: str
    pixels_sha256: str
    thumbnail: bytes


def load_image(path: str | Path, sha256: str | None = None) -> Image.Image:
    """An image as 8-bit RGB, upright by its EXIF orientation.

    Greyscale, palette, CMYK and LAB are converted by Pillow, without colour profiles, as vision pipelines do. 16-bit
    grey is scaled (v / 257, rounded), not clipped. Transparency is laid on white, as viewers do and as Idefics2's
    own processor does: the colours stored under transparent pixels are arbitrary. Of an MPO (a camera's JPEG with a
    preview) the first picture counts.

    Parameters: path; sha256, if given, of the file's bytes when the manifest was made, and the file was searched for
    damage that its decoder passes (see lossmap.data.damage).
    Raises: ImageError if the file is missing, empty, not an image, cut short or damaged, animated, larger than
    MAX_PIXELS, of 32-bit pixels (which have no agreed range), or of another sha256.
    """
    content = _read(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ImageError(
            f"{path}: has changed since the manifest was made. Put the first file back, or run read_dataset again."
        )
    return _decode(path, content, known=sha256 is not None)


def as_image(image: Picture, name: str = "image") -> Image.Image:
    """An image from wherever it is, as `load_image` gives it.

    Parameters: image, a file's path; a picture of Pillow's; or an array (height, width, 3) uint8, RGB, or (height,
        width) uint8, grey. name: what messages call one that has no path.
    Raises: ImageError as load_image, or if an array is none of these.
    """
    if isinstance(image, str | os.PathLike):
        return load_image(image)
    if isinstance(image, Image.Image):
        try:
            image.load()
            return _upright(name, image)
        except ImageError:
            raise
        except Exception as error:  # Pillow opens a file and reads it when it is needed
            raise ImageError(f"{name}: is damaged or cut short ({error}). Get it again.") from None
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name}: is a {type(image).__name__}; wanted a path, a PIL image or a NumPy array.")
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2 or not image.size:
        raise ImageError(
            f"{name}: is an array of {image.dtype}, shape {image.shape}; wanted uint8, height x width x 3 (RGB), or"
            " height x width (grey)."
        )
    return Image.fromarray(image).convert("RGB")


def load_mask(path: str | Path) -> np.ndarray:
    """A mask as (height, width) bool, True where it is white (above 127 of 255), upright by its EXIF orientation.

    Raises: ImageError as load_image, or if it is neither black nor has any white, as when 1 was written for white.
    """
    grey = np.asarray(load_image(path).convert("L"))
    if 0 < grey.max() < 128:
        raise ImageError(f"{path}: its brightest value is {grey.max()}. Write the mask as white (255) on black (0).")
    return grey > 127


def check_images(paths: list[str], root: str | Path, workers: int = 1) -> list[ImageFacts | str]:
    """Decode every image. Returns, in order, its facts, or the one-line problem with it.

    Parameters: paths, relative to root, with "/"; root, the image folder; workers, how many processes decode.
    Raises: LossmapError if a worker process dies.
    """
    return _check(_image_facts, paths, root, workers, "decoding images")


def check_masks(paths: list[str], root: str | Path, workers: int = 1) -> list[tuple[int, int] | str]:
    """Decode every mask. Returns, in order, its width and height, or the one-line problem with it. See check_images."""
    return _check(_mask_size, paths, root, workers, "decoding masks")


def outside(relative: str) -> bool:
    """Whether a path of the annotations leaves the image folder: absolute, or by "..". A link in the folder does not:
    its owner has placed it there."""
    pure = PurePosixPath(relative)
    return pure.is_absolute() or ".." in pure.parts


def leads_in_a_circle(path: str | Path) -> bool:
    """Whether a link leads, over others or not, back to itself, so that there is no end of it."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _check(look: Callable, paths: list[str], root: str | Path, workers: int, label: str) -> list:
    examine = functools.partial(_examine, look, os.fspath(root))
    bar = functools.partial(tqdm, total=len(paths), desc=label, unit="file", file=sys.stderr, mininterval=1)
    workers = min(workers, len(paths) // PER_WORKER)
    if workers <= 1:
        return list(bar(map(examine, paths)))
    # Processes are spawned, not forked: a fork of a process that has threads (pyarrow's, torch's) may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            return list(bar(pool.map(examine, paths, chunksize=min(32, -(-len(paths) // workers)))))
        except BrokenProcessPool:
            raise LossmapError(
                f"{root}: a process that decoded images was killed, most likely for want of memory."
                " Give the job more memory or fewer threads."
            ) from None


def _examine(look: Callable, root: str, relative: str):
    path = os.path.join(root, relative)
    if "\0" in relative:
        return f"{relative!r}: holds a null character. Correct the file name in the annotations."
    if outside(relative):
        return f"{path}: leaves the folder {root}. Correct the path, or put the file or a link to it into the folder."
    try:
        return look(path)
    except ImageError as error:
        return str(error)


def _image_facts(path: str) -> ImageFacts:
    content = _read(path)
    image = _decode(path, content)
    return ImageFacts(*image.size, hashlib.sha256(content).hexdigest(), pixels_digest(image), thumbnail(image))


def pixels_digest(image: Image.Image) -> str:
    """SHA-256 of an upright RGB image's size and pixels: what a model sees, whatever the file says beside it."""
    return hashlib.sha256(b"%d x %d " % image.size + image.tobytes()).hexdigest()


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """Means over the cells of a grid of side x side on an RGB image; rows first, a byte a channel."""
    return image.resize((side, side), Image.Resampling.BOX).tobytes()


def _mask_size(path: str) -> tuple[int, int]:
    height, width = load_mask(path).shape
    return width, height


def _read(path: str | Path) -> bytes:
    """The file's bytes, read once: what is hashed is what is decoded."""
    if not os.path.lexists(path):
        raise ImageError(f"{path}: does not exist. Complete the download, or correct the folder or the annotations.")
    if os.path.islink(path) and not os.path.exists(path):
        if leads_in_a_circle(path):
            raise ImageError(f"{path}: is a link to {os.readlink(path)}, which leads back to itself. Mend the link.")
        raise ImageError(f"{path}: is a link to {os.readlink(path)}, which does not exist. Mend the link.")
    if not os.path.isfile(path):
        raise ImageError(f"{path}: is not a file (a folder, a device). Put an image file there.")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: can't be read ({error.strerror}). Mend the file or its permissions.") from None
    if not content:
        raise ImageError(f"{path}: is empty (zero bytes). Get the file again.")
    return content


def _decode(path: str | Path, content: bytes, known: bool = False) -> Image.Image:
    try:
        unread = unread_kind(os.fspath(path), content)
        if misnamed(os.fspath(path), content):
            raise ImageError(
                f"{path}: is named as {unread}, which is not read, but holds another format. Rename it by what it"
                " holds, or convert it to PNG or JPEG."
            )
        if unread:
            raise ImageError(f"{path}: is {unread}, which is not read. Convert it to PNG or JPEG, or move it away.")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise ImageError(f"{path}: is animated or has several pages. Save the one to study as a file of its own.")
        if image.format == "PNG":  # load() looks at no checksum of pixels
            Image.open(io.BytesIO(content), formats=["PNG"]).verify()
        image.load()
        damage = None if known else find_damage(content, image)
        if damage:
            raise ImageError(f"{path}: is damaged ({damage}). Get the file again or, if it looks right, save it anew.")
        return _upright(path, image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: is not an image of a known format ({', '.join(FORMATS)}). Replace it.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: has more than {MAX_PIXELS:,} pixels. Scale it down.") from None
    except Exception as error:  # decoders raise whatever their parser stumbles on: OSError, SyntaxError, EOFError, ...
        raise ImageError(f"{path}: is damaged or cut short ({error}). Get the file again.") from None


def _upright(path: str | Path, image: Image.Image) -> Image.Image:
    orientation = image.getexif().get(ORIENTATION_TAG)
    image = _to_rgb(path, image)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # PPM: 16 bits held in 32
        scaled = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(f"{path}: has 32-bit pixels, whose range is not known. Save it with 8 or 16 bits.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
