"""What a file is, by its name and its first bytes: an image that is read, an image that is not, or something else."""

import os
import re

HEAD = 512  # bytes that tell

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff"),
    *(".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif"),
}
RAW = {  # what a camera's sensor saw: mostly TIFF by its first bytes, with a preview as its first picture
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw", ".orf"),
    *(".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
UNREAD = {  # images that are not read
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm"), "JPEG 2000"),
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop's format"),
    **dict.fromkeys((".eps",), "PostScript"),
    **dict.fromkeys((".xcf",), "GIMP's format"),
    **dict.fromkeys((".ico", ".icns"), "an icon"),
    **dict.fromkeys((".exr",), "an image of high dynamic range"),
    **dict.fromkeys((".tga", ".dds", ".qoi", ".pcx", ".dcm"), "an image of another format"),
    **dict.fromkeys(RAW, "a camera's raw format"),
}
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"}  # not the user's
READ = "read"
_BEGINNINGS = (  # what a file begins with -> what it is
    (rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a", READ),
    (rb"II\*\0.{4}CR", UNREAD[".cr2"]),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", READ),  # TIFF
    (rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", READ),
    (rb"P[1-6f][ \t\r\n]+(#|\d)", READ),
    (rb"....ftyp(avi[fs]|....(....)*avi[fs])", READ),  # its own brand, or one of those that it agrees with
    (rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", UNREAD[".heic"]),
    (rb"....ftypcrx ", UNREAD[".cr3"]),
    (rb"FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|\0MRM|FOVb", UNREAD[".raf"]),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", UNREAD[".jp2"]),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", UNREAD[".jxl"]),
    (rb"II\xbc", UNREAD[".jxr"]),
    (rb"8BPS", UNREAD[".psd"]),
    (rb"gimp xcf", UNREAD[".xcf"]),
    (rb"%!PS-Adobe-\S+ EPSF", UNREAD[".eps"]),
    (rb"\x76\x2f\x31\x01|#\?R(ADIANC|GB)E", UNREAD[".exr"]),
    (rb"qoif|DDS ", UNREAD[".qoi"]),
    (rb"(\xef\xbb\xbf)?\s*<(svg\b|(\?xml|!--|!DOCTYPE svg).*?<svg\b)", UNREAD[".svg"]),
)
_FIRST_BYTES = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in _BEGINNINGS)


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in small letters, with its dot; "" if it has none."""
    return os.path.splitext(name)[1].lower()


def is_ours(name: str) -> bool:
    """Whether a file or folder is the user's by its name, not hidden, and not one that a system leaves in folders."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def is_image(path: str) -> bool:
    """Whether a file is an image, read or not: by its suffix, or by its first bytes where that says nothing."""
    if suffix_of(path) in SUFFIXES or suffix_of(path) in UNREAD:
        return True
    try:
        if not os.path.isfile(path):  # a pipe, say, at which a reader waits for ever
            return False
        with open(path, "rb") as file:
            return _by_first_bytes(file.read(HEAD)) is not None
    except OSError:
        return False


def unread_kind(path: str, content: bytes) -> str | None:
    """The format of a file that is an image, and of none that is read; None of another file.

    Parameters: path; content, at least its first HEAD bytes. What its name says counts too: raw formats hide in TIFF,
    and a JPEG that is called .heic was named by mistake, which is for its owner to settle.
    """
    kind = _by_first_bytes(content[:HEAD])
    return UNREAD.get(suffix_of(path)) if kind in (None, READ) else kind


def misnamed(path: str, content: bytes) -> bool:
    """Whether a file has the name of a format that is not read, and the first bytes of one that is."""
    suffix = suffix_of(path)
    hidden = suffix in RAW and content[:2] in (b"II", b"MM")
    return suffix in UNREAD and not hidden and _by_first_bytes(content[:HEAD]) == READ


def _by_first_bytes(head: bytes):
    return next((kind for pattern, kind in _FIRST_BYTES if pattern.match(head)), None)
