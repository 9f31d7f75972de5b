"""What follows from a study's settings. A study is a dict as `check_study` returns it. Nothing is loaded."""

from lossmap.reconstruct.specs import LINEAR
from lossmap.study.definition import ALL, OWN
from lossmap.vlm.receives import ALL as RECEIVES_ALL
from lossmap.vlm.view_limits import PROCESSOR, SQUARE, View

# What a model is asked about a dataset -> the formats whose datasets have what is needed to score it.
BEHAVIOUR = {
    "captions": ("karpathy", "coco"),
    "answers": ("vizwiz_grounding", "vqav2"),
    "choices": ("seedbench", "foodieqa"),
}
IMAGES_AT_ONCE = 16  # that are reconstructed, where no batch is given
EXAMPLES = 4  # of each model, dataset and task, at least: highest and lowest loss of right and of wrong answers


def measured_datasets(config: dict) -> list[str]:
    """The datasets whose embeddings a study measures."""
    reconstruction = config.get("reconstruction")
    return list(
        dict.fromkeys(
            [
                *config["overlap"]["datasets"],
                *config["retrieval"]["datasets"],
                *([reconstruction["train"], reconstruction["ladder"]] if reconstruction else []),
                *evaluated(config),
                *([config["readers"]["train"]] if "readers" in config else []),
                *(name for section in (*BEHAVIOUR, "geometry", "galleries") for name in config[section]["datasets"]),
            ]
        )
    )


def trained_on(config: dict) -> dict[str, list[str]]:
    """What is trained, by the folder of its results -> the dataset that trains it, and those that are measured with it:
    none of their images may be the same."""
    found = {}
    if reconstruction := config.get("reconstruction"):
        measured = sorted({reconstruction["ladder"], *reconstruction["evaluate"]})
        found["reconstructors"] = [reconstruction["train"], *measured]
    if readers := config.get("readers"):
        found["readers"] = [readers["train"], *readers["datasets"]]
    return found


def evaluated(study: dict) -> list[str]:
    """The datasets of which the patches' losses are measured."""
    return study["reconstruction"]["evaluate"] if "reconstruction" in study else []


def task_of(config: dict, dataset: str) -> str | None:
    """What is asked of the questions of a dataset: "answers" in a model's own words, or "choices" among options; None
    where its format holds no questions."""
    form = config["datasets"][dataset].get("format")
    return next((task for task in ("answers", "choices") if form in BEHAVIOUR[task]), None)


def examples_of(config: dict) -> list[tuple[str, str]]:
    """Task and dataset of each table of examples: what was predicted where losses are measured; the images alone where
    nothing was."""
    measured = evaluated(config)
    told = [(task, dataset) for task in BEHAVIOUR for dataset in config[task]["datasets"] if dataset in measured]
    asked = {dataset for _, dataset in told}
    return told + [("images", dataset) for dataset in measured if dataset not in asked]


def connectors_of(reconstruction: dict) -> dict[str, dict]:
    """Name -> settings: a model's own connector and the controls."""
    controls = {
        name: {key: value for key, value in control.items() if key != "networks"}
        for name, control in reconstruction["controls"].items()
    }
    return {OWN: {"kind": OWN}, **controls}


def networks_of(reconstruction: dict, model: str, connector: str = OWN) -> list[str]:
    """The networks that are trained to undo a connector of a model."""
    chosen = ALL if connector == OWN else reconstruction["controls"][connector].get("networks", [])
    return [
        name
        for name, network in reconstruction["networks"].items()
        if model in network.get("models", [model]) and (chosen == ALL or name in chosen)
    ]


def decoders_of(reconstruction: dict, model: str, connector: str = OWN) -> list[str]:
    """The capacity ladder, from the weakest: what needs no training, then the networks in the order of the study."""
    return [*LINEAR, *networks_of(reconstruction, model, connector)]


def images_at_once(reconstruction: dict) -> int:
    """How many images are reconstructed at a time."""
    return reconstruction["training"]["batch"] or IMAGES_AT_ONCE


def compared_datasets(study: dict) -> dict[str, list[str]]:
    """What two models are compared by -> the datasets that have it; shared: all of these."""
    datasets = {
        "lists": study["overlap"]["datasets"],
        "losses": evaluated(study),
        **{kind: study[kind]["datasets"] for kind in BEHAVIOUR},
    }
    return {**datasets, "shared": list(dict.fromkeys(name for names in datasets.values() for name in names))}


def part_ranges(images: int, size: int) -> list[tuple[int, int, str]]:
    """First image, stop and file name of every part of a store."""
    starts = [(first, min(first + size, images)) for first in range(0, images, size)]
    return [(first, stop, f"part-{first:06d}-{stop:06d}.zarr") for first, stop in starts]


def most_neighbours(config: dict, dataset: str) -> int:
    """How many neighbours of each image of a dataset the study needs."""
    return max(k for _, k in neighbours_wanted(config, dataset))


def neighbours_wanted(config: dict, dataset: str) -> list[tuple[str, int]]:
    """Each number of neighbours that the study asks of a dataset, with the key that asks for it."""
    wanted = []
    if dataset in config["overlap"]["datasets"]:
        wanted += [("overlap: k", k) for k in config["overlap"]["k"]]
    if dataset in config["retrieval"]["datasets"]:
        wanted += [("retrieval: recall", k) for k in config["retrieval"]["recall"]]
        wanted.append(("retrieval: overlap_k", config["retrieval"]["overlap_k"]))
    if dataset in config["geometry"]["datasets"]:
        wanted += [("geometry: k", k) for k in config["geometry"]["k"]]
        wanted.append(("geometry: its intrinsic dimension", 2))
    if dataset in config["galleries"]["datasets"]:
        wanted += [(f"galleries: {key}", config["galleries"][key]) for key in ("k", "shown")]
    if config.get("figure2", {}).get("dataset") == dataset:
        wanted.append(("figure2: k", config["figure2"]["k"]))
    return wanted


def view_of(model: dict) -> View:
    """How a model of a study sees images: its view, by default square where image_size is given, else processor."""
    return model.get("view") or (SQUARE if model.get("image_size") else PROCESSOR)


def receives_of(model: dict) -> str:
    """What is measured of what a model's language model receives: see `lossmap.vlm.receives`."""
    return model.get("receives") or RECEIVES_ALL


def sequence_alone(study: dict) -> list[str]:
    """The models of which less is measured than their language model receives."""
    return [name for name, model in study["models"].items() if receives_of(model) != RECEIVES_ALL]
