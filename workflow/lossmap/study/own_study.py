"""The text of a study of someone's own model and images, with settings that fit the number of images."""

import re
from dataclasses import dataclass

import yaml

K = (10, 50, 100)  # neighbours, as in the default study
PART = 4  # a k is at most this part of the images: unrelated embeddings would share a quarter of their neighbours
LIMIT = 5000  # images that are embedded, unless someone raises it: 30 GB of LLaVA's
GALLERY, SHOWN = 10, 5  # neighbours of galleries: of the overlap, and shown


@dataclass(frozen=True)
class Photos:
    """A folder of images. entry: the dataset's, in a study; found: what `count_contents` counts of the images that the
    entry chooses; images, classes: how many the folder holds."""

    name: str
    entry: dict
    found: dict
    images: int
    classes: int

    def described(self) -> str:
        """How many there are, in words."""
        holds = f"{self.images:,} images" + (f" in {self.classes:,} classes" if self.classes else "")
        return f"spread evenly over {holds}" if self.found["images"] < self.images else holds


def name_of(path: str, otherwise: str) -> str:
    """A name for results, made of the last part of a path or hub id. otherwise: where that holds nothing to use."""
    last = path.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._") or otherwise


def neighbours_of(images: int) -> list[int]:
    """Each k that is at most a quarter of the images; a quarter itself, at least 1, where there is none."""
    return [k for k in K if k <= images // PART] or [max(1, images // PART)]


def write_study(study: str, model: tuple[str, dict], photos: Photos, train: Photos | None) -> str:
    """YAML of a study of one model on a folder of images.

    Parameters: study, its name; model, name and entry; photos, the images that are measured; train, those that train
        reconstructors.
    """
    name, images = _flow(photos.name), photos.found["images"]
    k = neighbours_of(images)
    lines = [
        "# Written by lossmap init. All settings: docs/settings.md, in the folder that lossmap --help names.",
        "# Paths are relative to the folder in which the study is run.",
        "",
        f"study: {_flow(study)} # results go to results/{study}/",
        "",
        "models: # one a line; they are compared with each other",
        f"  {_flow(model[0])}: {_flow(model[1])}",
        "",
        "datasets:",
        *(f"  {_flow(one.name)}: {_flow(one.entry)} # {one.described()}" for one in (photos, train) if one),
        "",
        "extraction:",
        "  compute_dtype: float32 # bfloat16 on a GPU: half the time and memory",
        "",
        "overlap: # share of each image's nearest neighbours that the connector preserves",
        f"  datasets: [{name}]",
        f"  k: {k} # at most a quarter of the images: of more neighbours, many are shared by chance",
        "",
        *_retrieval(photos.found, name),
        "geometry: # why neighbours change: near-ties, alignment, dimensions needed",
        f"  datasets: [{name}]",
        f"  k: {k}",
        "",
        "galleries: # images whose neighbours were preserved best and worst, with these neighbours",
        f"  datasets: [{name}]",
        f"  k: {min(GALLERY, images - 1)}",
        f"  shown: {min(SHOWN, images - 1)}",
        "",
        *_reconstruction(photos, train),
    ]
    return "\n".join(lines) + "\n"


def _retrieval(found: dict, name: str) -> list[str]:
    """By class, where there are classes and another image of one to be found."""
    if found["classes"] < 2 or found["alone_in_class"] == found["images"]:
        return []
    return [
        "retrieval: # of images of the same class, which is the sub-folder's name",
        f"  datasets: [{name}]",
        f"  recall: {[k for k in (1, 5) if k < found['images']]}",
        "",
    ]


def _reconstruction(photos: Photos, train: Photos | None) -> list[str]:
    if train:
        return [
            "reconstruction: # how much of each patch can be recovered after the connector: losses, maps, the verdict",
            f"  train: {_flow(train.name)}",
            f"  evaluate: [{_flow(photos.name)}]",
        ]
    other = _flow(f"{photos.name}-train")
    return [
        "# Patch losses, their maps and the verdict need a second folder, of other images of the same kind, on which",
        "# reconstructors are trained: lossmap init ... --train FOLDER; or write here, below datasets,",
        f"#   {other}: {{format: image_folder, images: FOLDER}}",
        "# and",
        f"# reconstruction: {{train: {other}, evaluate: [{_flow(photos.name)}]}}",
    ]


def _flow(value) -> str:
    """A value in YAML, on one line, that may stand inside brackets."""
    text = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.strip()[1:-1]
