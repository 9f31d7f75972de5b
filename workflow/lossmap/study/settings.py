"""A study's configuration: checked in full before anything runs, with every fault in one error."""

from pathlib import Path

from pydantic import ValidationError

from lossmap.data.sources import entry_problems, input_paths
from lossmap.errors import LossmapError, study_file
from lossmap.study.control_checks import control_problems
from lossmap.study.definition import ALL, Study
from lossmap.study.derived import BEHAVIOUR, EXAMPLES, evaluated, examples_of, receives_of, task_of, view_of
from lossmap.study.reading import placed
from lossmap.study.sources import MADE, is_made
from lossmap.study.wording import faults_of, nearest
from lossmap.vlm.checkpoint_check import checkpoint_problems, configuration_problems
from lossmap.vlm.checkpoints import SHIPPED, known_configuration, local_checkpoint


def check_study(
    config: dict, paths: bool = True, source: str | None = None, places: dict[tuple, str] | None = None
) -> dict:
    """Check a study against its definition and against itself, and fill in defaults.

    Parameters: config, as read from the file; paths, whether the files of models and datasets must be there;
    source, what messages call the file, if not what the workflow was given; places, where each key stands (`lines_of`).
    Returns: a new dict with every key present.
    Raises: LossmapError listing every fault: unknown, missing or ill-typed keys (with the nearest known key), unknown
    datasets, models, formats and families, checkpoints without revision, paths that don't exist, controls that
    don't fit a model.
    """
    try:
        config, problems = Study.model_validate(config).model_dump(by_alias=True), []
    except ValidationError as error:
        problems = faults_of(error, config, Study, places or {})
    if not problems:
        config["retrieval"].setdefault("overlap_k", max(config["overlap"]["k"]))
        if "reconstruction" in config:
            config["reconstruction"].setdefault("ladder", config["reconstruction"]["evaluate"][0])
        problems = [
            *(
                f"datasets: {name}: {line}"
                for name, entry in config["datasets"].items()
                for line in entry_problems(entry)
            ),
            *_brace_problems(config),
            *_model_problems(config, paths),
            *_reference_problems(config),
        ]
    if not problems and paths:
        problems = _missing_paths(config) + control_problems(config)
    if problems:
        raise LossmapError.listing(
            f"The configuration of this study has {len(problems)} fault{'s' * (len(problems) > 1)}:",
            sorted(placed(problem, places or {}) for problem in problems),
            f"Mend {source or study_file()}. The comments of the default study, config.yaml, explain every key.",
        )
    return config


def is_hub_like(checkpoint: str) -> bool:
    """Whether what is no folder here can be a hub id, owner/name."""
    return checkpoint.count("/") == 1 and not checkpoint.startswith((".", "/", "~", SHIPPED, MADE))


def _brace_problems(config: dict) -> list[str]:
    """Paths that Snakemake would take for patterns."""
    given = [(f"models: {name}: checkpoint", model["checkpoint"]) for name, model in config["models"].items()]
    given += [
        (f"datasets: {name}: {key}", value)
        for name, entry in config["datasets"].items()
        for key, value in entry.items()
        if isinstance(value, str)
    ]
    return [
        f"{place}: {path} holds {{ or }}, which Snakemake takes for a wildcard; rename it, or give a link to it"
        for place, path in given
        if set(path) & set("{}")
    ]


def _model_problems(config: dict, paths: bool) -> list[str]:
    problems, asked = [], any(config[section]["datasets"] for section in BEHAVIOUR)
    for name, model in config["models"].items():
        checkpoint, side = model["checkpoint"], model.get("image_size")
        view, receives = view_of(model), receives_of(model)
        folder = local_checkpoint(checkpoint)
        if folder.is_dir():
            if "revision" in model:
                problems.append(f"models: {name}: revision means nothing to a folder; {checkpoint} is one")
            if paths:
                problems += [
                    f"models: {name}: {line}" for line in checkpoint_problems(folder, side, asked, view, receives)
                ]
            continue
        if folder.is_file():
            problems.append(f"models: {name}: {checkpoint} is a file; give the folder that holds the whole checkpoint")
        elif not is_hub_like(checkpoint):
            problems += [f"models: {name}: checkpoint folder {checkpoint} does not exist"] * paths
        elif "revision" not in model:
            problems.append(
                f"models: {name}: {checkpoint} is no folder here; as a hub id it needs revision: a 40-digit commit "
                "hash, so that the study can be repeated"
            )
        elif paths and (known := known_configuration(checkpoint, model["revision"])):
            problems += [
                f"models: {name}: {line}"
                for line in configuration_problems(known, side, asked, checkpoint, view, receives)
            ]
    return problems


def _reference_problems(config: dict) -> list[str]:
    problems = []
    for section in ("overlap", "retrieval", *BEHAVIOUR, "geometry", "galleries"):
        for dataset in config[section]["datasets"]:
            if dataset not in config["datasets"]:
                problems.append(
                    f"{section}: datasets: {dataset!r} is not among datasets{nearest(dataset, [*config['datasets']])}"
                )
    if config["galleries"]["shown"] > config["galleries"]["k"]:
        problems.append("galleries: shown: must not be more than k, whose overlap is told beside the images")
    problems += _reconstruction_problems(config)
    problems += _reader_problems(config)
    problems += _head_problems(config)
    problems += _behaviour_problems(config)
    problems += _browser_problems(config)
    problems += _comparison_problems(config)
    problems += [
        f"figures: names: {name!r} is not among models{nearest(name, [*config['models']])}"
        for name in config["figures"]["names"]
        if name not in config["models"]
    ]
    figure2 = config.get("figure2")
    if figure2:
        for key in ("dataset", "model"):
            known = list(config[f"{key}s"])
            if figure2[key] not in known:
                problems.append(f"figure2: {key}: {figure2[key]!r} is not among {key}s{nearest(figure2[key], known)}")
        if figure2["dataset"] not in config["overlap"]["datasets"]:
            problems.append(f"figure2: dataset: {figure2['dataset']!r} is not among overlap: datasets")
        if "euclidean" not in config["overlap"]["metrics"]:
            problems.append("figure2: it shows Euclidean neighbours, so overlap: metrics must hold euclidean")
    return problems


def _comparison_problems(config: dict) -> list[str]:
    problems = []
    for base, tuned in config["compare"]:
        known = list(config["models"])
        problems += [
            f"compare: {name!r} is not among models{nearest(name, known)}"
            for name in dict.fromkeys((base, tuned))
            if name not in known
        ]
        if base == tuned:
            problems.append(f"compare: {base!r} is compared with itself")
    measured = [*config["overlap"]["datasets"], *evaluated(config)]
    if config["compare"] and not measured and not any(config[section]["datasets"] for section in BEHAVIOUR):
        problems.append("compare: needs overlap, reconstruction, captions, answers or choices to compare")
    return problems


def _reconstruction_problems(config: dict) -> list[str]:
    reconstruction = config.get("reconstruction")
    if not reconstruction:
        return []
    known = {"datasets": [*config["datasets"]], "models": [*config["models"]]}
    known["networks"] = [*reconstruction["networks"]]
    wanted = [(key, "datasets", [reconstruction[key]]) for key in ("train", "ladder")]
    wanted.append(("evaluate", "datasets", reconstruction["evaluate"]))
    wanted += [
        (f"networks: {name}: models", "models", network.get("models", []))
        for name, network in reconstruction["networks"].items()
    ]
    wanted += [
        (f"controls: {name}: networks", "networks", control.get("networks", []))
        for name, control in reconstruction["controls"].items()
        if control.get("networks") != ALL
    ]
    problems = [
        f"reconstruction: {key}: {name!r} is not among {kind}{nearest(name, known[kind])}"
        for key, kind, names in wanted
        for name in names
        if name not in known[kind]
    ]
    problems += [
        f"reconstruction: tables: {table}: {name!r} is not among reconstruction: evaluate"
        for table, names in reconstruction["tables"].items()
        for name in names
        if name not in reconstruction["evaluate"]
    ]
    if reconstruction["train"] in (reconstruction["ladder"], *reconstruction["evaluate"]):
        problems.append(
            f"reconstruction: train: {reconstruction['train']!r} is also measured; images that trained a reconstructor "
            "tell nothing of what it can recover"
        )
    return problems


def _reader_problems(config: dict) -> list[str]:
    """Datasets without questions, or asked otherwise than the training questions."""
    readers = config.get("readers")
    if not readers:
        return []
    named = {"train": [readers["train"]], "datasets": readers["datasets"]}
    problems, asked = [], set()
    for key, names in named.items():
        for name in names:
            if name not in config["datasets"]:
                problems.append(f"readers: {key}: {name!r} is not among datasets{nearest(name, [*config['datasets']])}")
            elif (task := task_of(config, name)) is None:
                formats = ", ".join((*BEHAVIOUR["answers"], *BEHAVIOUR["choices"]))
                problems.append(
                    f"readers: {key}: {name} has format {config['datasets'][name].get('format')}, which holds no"
                    f" questions (formats that do: {formats})"
                )
            else:
                asked.add(task)
                if key == "datasets" and name not in config[task]["datasets"]:
                    problems.append(
                        f"readers: datasets: {name!r} must be among {task}: datasets, too; readers are compared with"
                        " the model"
                    )
    if len(asked) > 1:
        problems.append("readers: some datasets hold open questions and others options; wanted all of one kind")
    if readers["train"] in readers["datasets"]:
        problems.append(
            f"readers: train: {readers['train']!r} is also measured; images that trained a reader tell nothing of what "
            "it can read"
        )
    return problems


def _head_problems(config: dict) -> list[str]:
    """Networks whose width their heads can't share."""
    return [
        f"{section}: networks: {name}: width {network['width']} isn't a multiple of heads, {network['heads']}"
        for section in ("reconstruction", "readers")
        for name, network in config.get(section, {}).get("networks", {}).items()
        if "heads" in network and network["width"] % network["heads"]
    ]


def _behaviour_problems(config: dict) -> list[str]:
    problems = []
    for section, formats in BEHAVIOUR.items():
        for dataset in config[section]["datasets"]:
            form = config["datasets"].get(dataset, {}).get("format")
            if form and form not in formats:
                problems.append(
                    f"{section}: datasets: {dataset} has format {form}, which holds no {section} to score against "
                    f"(formats that do: {', '.join(formats)})"
                )
    measured = evaluated(config)
    problems += [
        f"captions: datasets: {dataset!r} must be among reconstruction: evaluate, too; captions stand beside losses"
        for dataset in config["captions"]["datasets"]
        if dataset in config["datasets"] and dataset not in measured
    ]
    for figure, section in (("figure1", "answers"), ("figure7", "answers"), ("figure12", "captions")):
        if figure not in config:
            continue
        dataset, model = config[figure]["dataset"], config[figure].get("model")
        if dataset not in config[section]["datasets"] or dataset not in measured:
            problems.append(
                f"{figure}: dataset: {dataset!r} must be among {section}: datasets and reconstruction: evaluate"
            )
        elif section == "answers" and "masks" not in config["datasets"][dataset]:
            problems.append(f"{figure}: dataset: {dataset!r} has no answer masks")
        if model is not None and model not in config["models"]:
            problems.append(f"{figure}: model: {model!r} is not among models{nearest(model, [*config['models']])}")
    return problems


def _browser_problems(config: dict) -> list[str]:
    tables, most = len(examples_of(config)) * len(config["models"]), config["browser"]["examples"]
    if EXAMPLES * tables <= most:
        return []
    return [
        f"browser: examples: {most} are too few: at least {EXAMPLES} are shown of each model, dataset and task, of "
        f"which there are {tables}; wanted {EXAMPLES * tables}"
    ]


def _missing_paths(config: dict) -> list[str]:
    return [
        f"datasets: {name}: {path} does not exist"
        for name, entry in config["datasets"].items()
        for path in input_paths(entry)
        if not is_made(path, config["miniature"]["folder"]) and not Path(path).exists()
    ] + [
        f"datasets: {name}: {key}: {entry[key]} is a file; give the folder"
        for name, entry in config["datasets"].items()
        for key in ("images", "masks")
        if key in entry and Path(entry[key]).is_file()
    ]
