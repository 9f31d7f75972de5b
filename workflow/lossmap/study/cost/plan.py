"""What a study will cost: disk, hours of a GPU, its memory, jobs. Arithmetic on configurations; nothing is run."""

from dataclasses import dataclass, field
from math import prod

from lossmap.data.counts import Count
from lossmap.errors import LossmapError
from lossmap.reconstruct.sizes import batch_size, round_steps, share_sizes, step_limit
from lossmap.reconstruct.specs import LINEAR as LINEAR_RUNGS
from lossmap.study.cost.models import LanguageCost, VisionCost
from lossmap.study.cost.networks import ConnectorCost, NetworkCost, connector_cost, network_cost
from lossmap.study.definition import OWN
from lossmap.study.derived import connectors_of, measured_datasets, networks_of, part_ranges
from lossmap.vlm.prompts import ANSWER_TOKENS, caption_prompt

BYTES = {"float16": 2, "float32": 4}
# An A100's float32 is a sixteenth of its bfloat16, of float16 too.
FLOAT32_SLOWER = 16
# Of the chat template and the question, about; the image's come on top.
PROMPT_TOKENS = 64
SPEAKERS = {"captions": "caption_images", "answers": "answer_questions", "choices": "choose_options"}  # task -> rule
# In the order in which they are shown.
KINDS = (
    EXTRACTION := "extraction",
    LINEAR := "linear rungs",
    NETWORKS := "networks",
    LOSSES := "patch losses, ladder",
    SPEECH := "captions, answers, choices",
    NEIGHBOURS := "neighbours, indexes, probe",
)


@dataclass(frozen=True)
class Rates:
    """What a GPU sustains. flops: operations per second in bfloat16. bandwidth: bytes per second from its memory."""

    flops: float
    bandwidth: float

    def seconds(self, flops: float, dtype: str = "bfloat16") -> float:
        """Time for this many operations."""
        return flops * (FLOAT32_SLOWER if dtype == "float32" else 1) / self.flops


@dataclass(frozen=True)
class Work:
    """Some jobs of one kind.

    jobs: rule -> how many. flops, seconds: of one GPU. memory: bytes on a GPU, at most. reads: bytes of embeddings
    read. outputs: path -> bytes.
    images, pre, post: of an embedding store: images, bytes of one image on each side.
    """

    kind: str
    model: str
    dataset: str = ""
    jobs: dict[str, int] = field(default_factory=dict)
    flops: float = 0
    seconds: float = 0
    memory: float = 0
    reads: int = 0
    outputs: dict[str, int] = field(default_factory=dict)
    images: int = 0
    pre: int = 0
    post: int = 0


def stored_datasets(config: dict) -> list[str]:
    """Datasets that the study's default target embeds: those that it measures, or all where it measures none."""
    return measured_datasets(config) or list(config["datasets"])


def plan_study(
    config: dict,
    counts: dict[str, Count],
    vision: dict[str, VisionCost],
    language: dict[str, LanguageCost],
    rates: Rates,
    notes: list[str],
) -> list[Work]:
    """All work of a study, by kind, then by model.

    Parameters: counts, of each of `stored_datasets`; vision and language, of each model whose configuration is known,
        language only where it `speaks`; notes, to which what can't be planned is added.
    """
    unknown = [dataset for dataset in stored_datasets(config) if counts[dataset].images is None]
    if unknown:
        notes.append(f"Nobody knows how many images {', '.join(unknown)} will have: what needs them is not planned.")
    works = []
    for name, model in vision.items():
        works += plan_extraction(config, counts, name, model, rates)
        try:
            works += plan_reconstruction(config, counts, name, model, rates) if "reconstruction" in config else []
        except LossmapError as error:
            notes.append(f"{name}: reconstruction is not planned. {error}")
        if name in language:
            works += plan_speech(config, counts, name, model.model_type, language[name], rates)
        works += plan_neighbours(config, counts, name, model, rates)
    return sorted(works, key=lambda work: KINDS.index(work.kind))


def stored_bytes(config: dict, model: VisionCost) -> tuple[int, int]:
    """Bytes of one image before and after the connector, as stored."""
    how = config["extraction"]
    pre, post = (BYTES[how["dtype"]] * prod(shape) for shape in (model.pre_shape, model.post_shape))
    return pre, post if how["store_post"] else 0


def plan_extraction(config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates) -> list[Work]:
    """One entry for each dataset whose number of images is known."""
    how, works = config["extraction"], []
    pre, post = stored_bytes(config, model)
    for dataset in stored_datasets(config):
        if (images := counts[dataset].images) is None:
            continue
        folder = f"results/{config['study']}/embeddings/{dataset}/{name}"
        ranges = part_ranges(images, how["part_size"])
        parts = {f"{folder}/{name}": (stop - first) * (pre + post) for first, stop, name in ranges}
        works.append(
            Work(
                EXTRACTION,
                name,
                dataset,
                {"extract": len(parts)},
                images * model.flops,
                rates.seconds(images * model.flops, how["compute_dtype"]),
                model.weights + how["batch_size"] * model.activations,
                outputs=parts,
                images=images,
                pre=pre,
                post=post,
            )
        )
    return works


@dataclass(frozen=True)
class Ladder:
    """What a model's reconstructors cost. connectors: by name. networks: by connector and network."""

    connectors: dict[str, ConnectorCost]
    networks: dict[tuple[str, str], NetworkCost]

    def of(self, connector: str) -> list[NetworkCost]:
        """The networks of one connector."""
        return [one for (at, _), one in self.networks.items() if at == connector]

    def rung_flops(self, connector: str) -> int:
        """Operations of all rungs of one connector and share, for one image."""
        return self.connectors[connector].ridge_flops + sum(one.forward_flops for one in self.of(connector))


def ladder_cost(reconstruction: dict, name: str, model: VisionCost, batch: int) -> Ladder:
    """Parameters: batch, images in one. Raises: LossmapError if a control or a network is impossible for this model."""
    settings, connectors, networks = reconstruction["training"], {}, {}
    images_at_once = -(-batch // (settings["processes"] * settings["accumulate"]))
    for connector, spec in connectors_of(reconstruction).items():
        cost = connector_cost(spec, model.pre_grid, model.pre_shape, model.post_shape, model.post_grid)
        connectors[connector] = cost
        for network in networks_of(reconstruction, name, connector):
            spec = {key: value for key, value in reconstruction["networks"][network].items() if key != "models"}
            networks[connector, network] = network_cost(spec, model.pre_shape, cost, images_at_once)
    return Ladder(connectors, networks)


def plan_reconstruction(
    config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates
) -> list[Work]:
    """Closed-form rungs, networks, losses; nothing where the number of images of one of the datasets is unknown."""
    how = config["reconstruction"]
    if any(counts[dataset].images is None for dataset in {how["train"], how["ladder"], *how["evaluate"]}):
        return []
    batch, _ = _training(how, counts[how["train"]].images)
    ladder, (pre, post) = ladder_cost(how, name, model, batch), stored_bytes(config, model)
    read = {at: pre + post * connector.reads_post for at, connector in ladder.connectors.items()}
    return [
        _linear_rungs(config, counts, name, ladder, read, rates),
        *_networks(config, counts, name, ladder, read, model, rates),
        _losses(config, counts, name, ladder, read, model, rates),
    ]


def _linear_rungs(config, counts, name, ladder, read, rates):
    how = config["reconstruction"]
    images, connectors = counts[how["train"]].images, ladder.connectors
    flops = images * sum(one.statistics_flops + one.linear_flops for one in connectors.values())
    return Work(
        LINEAR,
        name,
        jobs={"measure_statistics": 1, "fit_linear": 1},
        flops=flops,
        seconds=rates.seconds(flops, "float32"),
        memory=max(one.linear_memory for one in connectors.values()),
        reads=images * sum(read.values()),
        outputs={
            f"{_reconstructors(config, name)}/{connector}/ridge-{share}.safetensors": one.linear_disk
            for connector, one in connectors.items()
            for share in how["shares"]
        },
    )


def _training(reconstruction: dict, images: int) -> tuple[int, int]:
    """Images in a batch, and steps of a training at most."""
    given = reconstruction["training"]
    held_out, shares = share_sizes(images, reconstruction["held_out"], reconstruction["shares"])
    batch = given["batch"] or batch_size(min(shares.values()))
    return batch, step_limit((images - held_out) // batch, given["epochs"])


def _networks(config, counts, name, ladder, read, model, rates):
    how, settings = config["reconstruction"], config["reconstruction"]["training"]
    images, shares = counts[how["train"]].images, len(how["shares"])
    held_out, _ = share_sizes(images, how["held_out"], how["shares"])
    # All shares may take as many steps: those of the whole training set. Most come to rest earlier.
    batch, steps = _training(how, images)
    looks = 1 + -(-steps // round_steps(held_out, batch))
    trained, mapped, reads = 0, 0, 0
    for (at, _), one in ladder.networks.items():
        connector = ladder.connectors[at]
        trained += shares * (steps * batch * one.training_flops + looks * held_out * one.forward_flops)
        held = 4 * (prod(connector.post_shape) + prod(model.pre_shape)) * images <= settings["memory"]
        passed = shares * (images if held else steps * batch + looks * held_out)
        mapped, reads = mapped + passed * connector.flops, reads + passed * read[at]
    if not ladder.networks:
        return []
    work = Work(
        NETWORKS,
        name,
        jobs={"train_reconstructor": shares * len(ladder.networks)},
        flops=trained + mapped,
        # Controls are computed in float32, whenever their images are read.
        seconds=rates.seconds(trained) + rates.seconds(mapped, "float32"),
        memory=max(one.memory for one in ladder.networks.values()),
        reads=reads,
        outputs={
            f"{_reconstructors(config, name)}/{connector}/{network}-{share}.safetensors": one.disk
            for (connector, network), one in ladder.networks.items()
            for share in how["shares"]
        },
    )
    return [work]


def _losses(config, counts, name, ladder, read, model, rates):
    how = config["reconstruction"]
    shares, images = len(how["shares"]), counts[how["ladder"]].images
    flops, reads, outputs = 0, images * sum(read.values()), {}
    for at, connector in ladder.connectors.items():
        flops += images * (connector.flops + shares * ladder.rung_flops(at))
    # For each patch, three losses of every rung, and its norm.
    numbers = 3 * (len(LINEAR_RUNGS) + len(ladder.of(OWN))) + 1
    for dataset in how["evaluate"]:
        images = counts[dataset].images
        flops, reads = flops + images * ladder.rung_flops(OWN), reads + images * read[OWN]
        path = f"results/{config['study']}/patch_loss/{dataset}/{name}.zarr"
        outputs[path] = BYTES["float32"] * images * model.pre_shape[0] * numbers
    return Work(
        LOSSES,
        name,
        jobs={"measure_ladder": 1, "measure_patch_loss": len(how["evaluate"])},
        flops=flops,
        seconds=rates.seconds(flops, "float32"),
        memory=max(  # the rungs of a connector, all shares together
            shares * (connector.linear_disk + sum(one.disk for one in ladder.of(at)))
            for at, connector in ladder.connectors.items()
        ),
        reads=reads,
        outputs=outputs,
    )


def _reconstructors(config, name):
    return f"results/{config['study']}/reconstructors/{name}"


def speaks(config: dict) -> list[tuple[str, str]]:
    """Task and dataset of everything that models are asked."""
    return [(task, dataset) for task in SPEAKERS for dataset in config[task]["datasets"]]


def plan_speech(
    config: dict, counts: dict[str, Count], name: str, model_type: str, language: LanguageCost, rates: Rates
) -> list[Work]:
    """Captions, answers and choices, of those datasets whose numbers are known. language: of prompts as long as
    PROMPT_TOKENS says."""
    batch, dtype = config["generation"]["batch_size"], config["generation"]["compute_dtype"]
    # To say a token, all weights and caches are read once for the whole batch.
    step = max(
        rates.seconds(batch * language.token_flops, dtype),
        (language.weights + batch * language.cache) / rates.bandwidth,
    )
    jobs, flops, seconds, memory = {}, 0.0, 0.0, 0.0
    for task, dataset in speaks(config):
        prompts = counts[dataset].images if task == "captions" else counts[dataset].questions
        if prompts is None:
            continue
        said = new_tokens(config, task, model_type)
        jobs[SPEAKERS[task]] = jobs.get(SPEAKERS[task], 0) + 1
        flops += prompts * (language.prompt_flops + (said - 1) * language.token_flops)
        seconds += rates.seconds(prompts * language.prompt_flops, dtype) + -(-prompts // batch) * (said - 1) * step
        memory = max(memory, language.weights + batch * (language.activations + said * language.token_cache))
    return [Work(SPEECH, name, jobs=jobs, flops=flops, seconds=seconds, memory=memory)] if jobs else []


def new_tokens(config: dict, task: str, model_type: str) -> int:
    """The most tokens that a model may say."""
    if task == "choices":
        return 1
    usual = ANSWER_TOKENS if task == "answers" else caption_prompt(config[task]["prompts"], model_type)[1]
    return config[task].get("max_new_tokens") or usual


def plan_neighbours(config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates) -> list[Work]:
    """Searches among all pairs of a dataset's images; the probe's hours are left out, for it takes a few images."""
    sections = ("overlap", "retrieval", "geometry", "galleries")
    searched = {dataset for section in sections for dataset in config[section]["datasets"]}
    known = {dataset for dataset in searched if counts[dataset].images is not None}
    geometry = known & set(config["geometry"]["datasets"])
    pooled = model.pre_shape[1] + model.post_shape[1]
    flat = prod(model.pre_shape) + prod(model.post_shape)
    # Each by two metrics; of geometry, all patches too.
    numbers = {dataset: 2 * (pooled + flat * (dataset in geometry)) for dataset in known}
    flops = sum(2 * counts[dataset].images ** 2 * numbers[dataset] for dataset in known)
    jobs = {"find_neighbours": len(known), "compare_indexes": len(geometry), "probe_patches": len(geometry)}
    work = Work(NEIGHBOURS, name, jobs=jobs, flops=flops, seconds=rates.seconds(flops, "float32"))
    return [work] if known else []
