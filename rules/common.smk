"""Named input functions, settings and code hashes of rules. Nothing scientific."""

import json
import os
import re
import shlex
import sys
from functools import lru_cache
from hashlib import sha256
from math import prod
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.persistence import PersistenceBase
from snakemake.settings.types import DeploymentMethod, ExecMode


def folder_of_package():
    """The folder that holds the package, and nothing else that Python could import. Of an installed package that is one
    here, with a link to it: what is installed beside it must stay out of the environments that conda makes."""
    if (Path(workflow.basedir) / "workflow/lossmap").is_dir():
        return Path(workflow.basedir) / "workflow"
    package, folder = Path(workflow.basedir).parent, Path(".snakemake/lossmap").absolute()
    link, made = folder / "lossmap", folder / uuid4().hex
    if not link.exists() or not link.samefile(package):
        folder.mkdir(parents=True, exist_ok=True)
        made.symlink_to(package)
        made.replace(link)  # at once: jobs on other nodes come here, too
    return folder


PACKAGE_FOLDER = folder_of_package()
sys.path.insert(0, str(PACKAGE_FOLDER))

from lossmap.study.codehash import code_hash, exhibit_hash, keep as keep_hashes
from lossmap.study.exhibit import TOPICS, exhibits_of, of_all
from lossmap.study.products import family_key, product_version
from lossmap.study.console import install as install_console
from lossmap.study.reruns import plan_by_content
from lossmap.miniature.files import ANNOTATIONS, FOLDERS, paths_in
from lossmap.data.sources import input_paths
from lossmap.study.sources import files_digest, is_made, sources_digest
from lossmap.errors import STUDY_FILE, LossmapError
from lossmap.reconstruct.specs import LINEAR, canonical
from lossmap.study.reading import default_study, lines_of, read_study
from lossmap.study.definition import OWN
from lossmap.study.derived import (
    connectors_of,
    decoders_of,
    evaluated,
    examples_of,
    measured_datasets,
    networks_of,
    part_ranges,
    sequence_alone,
    task_of,
    trained_on,
    view_of,
)
from lossmap.study.settings import check_study
from lossmap.study.specs import MakeSummary, ShownExhibit, spec_of
from lossmap.study.checks import check_annotations, check_contents
from lossmap.study.control_checks import configuration_here
from lossmap.vlm.checkpoints import fetch_configuration, folders_of
from lossmap.vlm.families import read_family


def report_command():
    """Snakemake on this study, without taking the lock."""
    files = [part for path in workflow.overwrite_configfiles for part in ("--configfile", str(path))]
    values = [f"{key}={json.dumps(value)}" for key, value in workflow.config_settings.config.items()]
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow.main_snakefile)]
    how = ["--nolock", "--cores", "1", *files, *(["--config", *values] if values else [])]
    return shlex.join([*snakemake, *how])


# Every command finds the package and, without conda, the Python that runs Snakemake, wherever it is started.
# `report` is Snakemake again, on the same study, without the lock that the running one holds.
uses_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
own_python = "PYTHONNOUSERSITE=1" if uses_conda else f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
prefix = (
    "set -euo pipefail; "
    f"export PYTHONPATH={shlex.quote(str(PACKAGE_FOLDER))} {own_python}; "
    f'report() ( {report_command()} --report "$@" ); '
)
shell.prefix(prefix.replace("{", "{{").replace("}", "}}"))


def study_files():
    """The study's files as a person calls them from here."""
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in map(Path, workflow.configfiles)]


def name_study():
    """Let every message name what a person edits to change a setting; jobs inherit it."""
    given = ["what --config gives"] if workflow.config_settings.config else []
    os.environ[STUDY_FILE] = " or ".join(map(str, [*study_files(), *given]))


def note_in_the_job():
    """A job on a node of a cluster notes itself what its outputs were made with. Snakemake leaves that to its main
    process: were that killed before, they would count as up to date whatever the settings are by then."""
    finished = PersistenceBase.finished

    async def noted(persistence, job):
        how = persistence.dag.workflow.remote_execution_settings
        with patch.object(how, "immediate_submit", True):  # in which case Snakemake has the job take the note
            await finished(persistence, job)

    PersistenceBase.finished = noted


if workflow.remote_exec:
    note_in_the_job()
else:
    plan_by_content(DAG)
    install_console(logger, workflow.output_settings)

# A study given with --configfile replaces the default one; the two are never merged.
if not workflow.overwrite_configfiles:

    configfile: str(default_study())


name_study()

try:
    places = {}
    for path in study_files():
        if path.suffix in (".yaml", ".yml"):  # no pipe, which can't be read twice
            read_study(path)  # what Snakemake has read holds the last of two equal keys
            places |= lines_of(path)
    config = check_study(config, places=places)
    if workflow.exec_mode == ExecMode.DEFAULT:  # once, not in every job
        check_annotations(config)
except LossmapError as error:
    raise WorkflowError(error)

MINIATURE = config["miniature"]["folder"]
EXHIBITS = list(exhibits_of(config))
EVALUATED = evaluated(config)
TRAINED = trained_on(config)
PAGES = [
    f"results/{config['study']}/{name}.html"
    for name in ("summary", "browser")
    if EXHIBITS and (EVALUATED or name != "browser")
]


wildcard_constraints:
    study=re.escape(config["study"]),
    trained="|".join(TRAINED) or "none",
    dataset="|".join(re.escape(name) for name in config["datasets"]),
    model="|".join(re.escape(name) for name in config["models"]),
    base="|".join(re.escape(name) for name in config["models"]),
    tuned="|".join(re.escape(name) for name in config["models"]),
    first="[0-9]+",
    stop="[0-9]+",


def in_results(path):
    """A path below the study's results."""
    return f"results/{config['study']}/{path}"


def outputs_of(exhibit):
    """What an exhibit's rule makes, as the report shows it."""
    topic = exhibit.module.TOPIC
    place = [other.name for other in EXHIBITS if other.module.TOPIC == topic].index(exhibit.name)

    def shown(path, kind):
        name = Path(path).stem
        labels = {"no.": f"{1 + place:02d}", "result": exhibit.title(name), "kind": kind, "file": name}
        return report(path, caption="../workflow/report/exhibit.rst", category=TOPICS[topic], labels=labels)

    kinds = {"html": "table", "png": "figure"}  # that the report shows
    made = {
        ending: [shown(path, kinds[ending]) if ending in kinds else path for path in paths]
        for ending, paths in exhibit.outputs(f"results/{config['study']}").items()
    }
    return {ending: paths[0] if ending in ("csv", "rst", "html") else paths for ending, paths in made.items()}


def files_of_exhibits(*endings, kinds=None):
    """Files of the exhibits of the study, of these kinds or of all: those with these endings, or all."""
    return [
        path
        for exhibit in EXHIBITS
        if kinds is None or exhibit.kind in kinds
        for ending, paths in exhibit.outputs(f"results/{config['study']}").items()
        if not endings or ending in endings
        for path in paths
    ]


def named_inputs(exhibit):
    """What an exhibit is made of, as its command takes it."""
    return [f"{name}={in_results(path)}" for name, paths in exhibit.inputs.items() for path in paths]


def spec(step):
    """What a step receives of the study: checked when jobs are planned, and again by the job."""

    def of_job(wildcards):
        named = {name: value for name, value in wildcards.items() if name != "study"}
        return canonical(spec_of(step).of(config, **named).model_dump())

    return of_job


def summary_settings():
    """What the summary shows."""
    shown = [
        ShownExhibit(
            name=exhibit.name,
            title=exhibit.title(),
            topic=exhibit.module.TOPIC,
            paper=exhibit.module.PAPER,
            headline=hasattr(exhibit.module, "HEADLINE"),
            page=exhibit.has_page,
            figures=exhibit.figures,
        )
        for exhibit in EXHIBITS
    ]
    about = {"study": config["study"], "models": list(config["models"]), "browser": bool(EVALUATED)}
    about["views"] = {name: view_of(model) for name, model in config["models"].items()}
    about["sequence_alone"] = sequence_alone(config)
    return canonical(MakeSummary(exhibits=shown, **about).model_dump())


def manifest_files(name, datasets):
    """A table of the manifests of these datasets."""
    return [in_results(f"data/{dataset}/{name}.parquet") for dataset in datasets]


def source_state(wildcards):
    """What Snakemake can't see of what a dataset reads: a sub-folder that gained or lost a file, an older file."""
    return sources_digest(config["datasets"][wildcards.dataset], MINIATURE)


def measures():
    """All figures and tables, and the report on them; the embeddings, where a study measures nothing."""
    if not EXHIBITS:
        return index_of_every_store()
    return [f"results/{config['study']}/report.zip", *PAGES, *files_of_exhibits()]


def dataset_files(wildcards):
    """What a dataset consists of, but for folders that the workflow has not made: `source_state` watches those, and
    Snakemake's cache between workflows takes none."""
    paths = input_paths(config["datasets"][wildcards.dataset])
    return [path for path in paths if is_made(path, MINIATURE) or not Path(path).is_dir()]


def files_of_checkpoint(model, *names):
    """Files of a checkpoint folder, of an adapter's with its base's; nothing for a hub id, which its revision pins."""
    folders = folders_of(config["models"][model]["checkpoint"])
    return sorted({str(path) for folder in folders for name in names for path in folder.glob(name)})


def checkpoint_files(wildcards):
    """What the vision side of a model is made of."""
    names = (
        "config.json",
        "adapter_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "*.safetensors*",
    )
    return files_of_checkpoint(wildcards.model, *names)


def digest_of(files):
    """What Snakemake can't see of files that an input function names: that one was replaced by an older one."""
    return lambda wildcards: files_digest(files(wildcards))


def threads_of_extraction(wildcards):
    """A job that loads a small model for few images spends its time on starting: more threads would only keep cores
    from other jobs. One for each 2 GB of weights that are passed through, an image at a time."""
    weights = sum(Path(path).stat().st_size for path in files_of_checkpoint(wildcards.model, "*.safetensors"))
    work = (int(wildcards.stop) - int(wildcards.first)) * weights
    return min(8, 1 + work // 2**31) if weights else 8


def threads_of_store(wildcards, input):
    """The same for what reads embeddings: a thread for each 64 MB of them."""
    index = Path(str(input.embeddings))
    store = json.loads(index.read_text()) if index.is_file() else {}
    if "arrays" not in store:  # not there yet: counted again before the job starts
        return 8
    values = sum(prod(store["arrays"][side]["shape"]) for side in ("pre", "post"))
    return min(8, 1 + 2 * store["images"] * values // 2**26)


def digest_of_images(wildcards):
    """Which images a part holds, in which order, with which content: an image that is added touches no part before."""
    path = Path(f"results/{wildcards.study}/data/{wildcards.dataset}/images.sha256")
    lines = image_digests(path, path.stat().st_mtime_ns)
    return sha256("".join(lines[int(wildcards.first) : int(wildcards.stop)]).encode()).hexdigest()


@lru_cache(maxsize=8)
def image_digests(path, date):
    """A line for each image of a dataset, read once for all its parts, and again when its date is another."""
    return path.read_text().splitlines()


def family_of(product):
    """What a product depends on of its model's family. A hub checkpoint's configuration says which that is: a run gets it
    first, and a dry run does without."""
    return lambda wildcards: _family_of(product, config["models"][wildcards.model])


def _family_of(product, model):
    folder = configuration_here(model)
    if folder is None and workflow.dryrun:
        return "known once the checkpoint's configuration is here"
    try:
        model_type, _ = read_family(folder or fetch_configuration(model["checkpoint"], model.get("revision")))
    except LossmapError as error:
        raise WorkflowError(error)
    return canonical(family_key(product, model_type))


def parts(wildcards):
    """The parts of a store, by fixed ranges. Planned only once every dataset that is measured has been read and checked."""
    datasets = list(dict.fromkeys([*measured_datasets(config), wildcards.dataset]))
    if refused := lost_by_checks(wildcards, datasets):
        return refused
    contents = {}
    for dataset in datasets:
        read = checkpoints.read_dataset.get(study=wildcards.study, dataset=dataset)
        contents[dataset] = json.loads(Path(read.output.summary).read_text())
    try:
        check_contents(config, contents)
    except LossmapError as error:
        raise WorkflowError(error)
    for trained in TRAINED:  # no measured image is among those that train
        checkpoints.check_training_images.get(study=wildcards.study, trained=trained)
    folder = f"results/{wildcards.study}/embeddings/{wildcards.dataset}/{wildcards.model}"
    ranges = part_ranges(contents[wildcards.dataset]["images"], config["extraction"]["part_size"])
    return [f"{folder}/{name}" for _, _, name in ranges]


def lost_by_checks(wildcards, datasets):
    """What the checks of a study have lost when they refused it, where an earlier run has left an index of this store.

    Snakemake doesn't miss the output of a checkpoint whose results are there, and would find nothing to be done: the old
    results would stand for images that were refused. As inputs that are new, these are made before all else.
    """
    results = Path(f"results/{wildcards.study}")
    checks = [results / f"data/{dataset}/manifest.json" for dataset in datasets]
    checks += [results / f"{trained}/images.json" for trained in TRAINED]
    left = (results / f"embeddings/{wildcards.dataset}/{wildcards.model}.json").exists()
    return [str(path) for path in checks if left and not path.exists()]


def index_of_every_store():
    return expand(
        "results/{study}/embeddings/{dataset}/{model}.json",
        study=config["study"],
        dataset=config["datasets"],
        model=config["models"],
    )


def texts_digest():
    """The texts of the report, wherever they lie: an edited one makes it anew."""
    texts = sorted(Path(workflow.basedir).glob("workflow/report/*.rst"))
    return sha256(canonical({path.name: path.read_text(encoding="utf-8") for path in texts}).encode()).hexdigest()
