"""What a study's file may say: every key with its type, range, default and meaning, defined here and nowhere else.

Validation, defaults, the JSON schema for editors and the reference page of the documentation are made from it. Keys
that only some studies have, such as `figure1`, are left out of what a study says where its file leaves them out.
The Snakefile imports this: nothing heavy.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lossmap.readers.specs import NETWORKS as READERS
from lossmap.readers.specs import ControlKind
from lossmap.reconstruct.specs import CONTROLS, LINEAR, NETWORKS

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of what files and folders are named after
TAKEN = ("miniature", "zoo", "slurm-logs")  # folders of results/
OWN = "own"  # the model's connector, among the controls
ALL = "all"  # networks, of a control


def _unique(values: list) -> list:
    if len(set(map(repr, values))) < len(values):
        raise ValueError(f"is {values!r}, wanted entries that differ")
    return values


def _not(*taken: str, because: str):
    def check(name: str) -> str:
        if name in taken:
            raise ValueError(because.format(name=name))
        return name

    return AfterValidator(check)


def left_out(description: str, **constraints) -> Any:
    """A field that has no default: what a study says lacks it where its file does."""
    return Field(default=None, exclude_if=lambda value: value is None, description=description, **constraints)


def section(description: str, kind: type) -> Any:
    """A section of which every key has a default."""
    return Field(default_factory=kind, description=description)


Name = Annotated[str, StringConstraints(pattern=NAME)]
Names = Annotated[list[Name], AfterValidator(_unique)]
Path = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Counts = Annotated[list[Positive], Field(min_length=1), AfterValidator(_unique)]
Metrics = Annotated[list[Literal["euclidean", "cosine"]], Field(min_length=1), AfterValidator(_unique)]
Precision = Literal["float32", "bfloat16", "float16"]
Share = Annotated[float, Field(gt=0, lt=1)]  # neither none nor all
Seed = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Keys of a mapping: no others, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class MiniatureImages(Section):
    """How many images each miniature dataset gets."""

    coco_train: int = Field(2000, alias="coco-train", ge=2)
    coco_karpathy: int = Field(400, alias="coco-karpathy", ge=2)
    flickr30k: int = Field(300, ge=2)
    seedbench: int = Field(400, ge=2)
    vizwiz: int = Field(400, ge=2)
    vqav2: int = Field(400, ge=2)
    cub: int = Field(600, ge=2)
    foodieqa: int = Field(200, ge=2)
    vqav2_train: int = Field(1200, alias="vqav2-train", ge=2)


class Miniature(Section):
    """The miniature datasets, drawn from real handwritten digits."""

    folder: Annotated[str, StringConstraints(pattern=r"^results/[A-Za-z0-9._/-]+$")] = Field(
        "results/miniature", description="where they are written; another seed or other sizes need another folder"
    )
    seed: Seed = Field(2025, description="another seed, other scenes")
    images: MiniatureImages = section("how many images each dataset gets", MiniatureImages)


class Limits(Section):
    """Limits of a model's own image processor, those that it has; what is left out stays as the checkpoint has it."""

    max_pixels: Positive | None = left_out("of an image (Qwen)")
    min_pixels: Positive | None = left_out("of an image (Qwen)")
    longest_edge: Positive | None = left_out("of an image, in pixels (Mistral 3, Idefics2)")
    shortest_edge: Positive | None = left_out("of an image, in pixels (Idefics2)")
    max_soft_tokens: Positive | None = left_out("of an image (Gemma 4): 70, 140, 280, 560 or 1120")
    tiles: Positive | None = left_out("of an image, at most, beside the view of the whole (families that cut tiles)")


class Model(Section):
    """A vision-language model: a folder, or a hub id with the commit that was meant."""

    checkpoint: Path = Field(description="folder, or hub id")
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = left_out(
        "of a hub id: the commit, 40 hex digits, so that the study can be repeated"
    )
    image_size: int | None = left_out(
        "of a square view: its side in pixels, where a model takes any size", ge=8, le=4096
    )
    view: Literal["processor", "square"] | Limits | None = left_out(
        "how images are seen: processor, as the model's own image processor cuts and resizes them; square, in one"
        " square view; or limits of the processor; left out: square where image_size is given, else processor"
    )
    receives: Literal["all", "sequence"] | None = left_out(
        "what is measured of a model with DeepStack (Qwen3-VL): all, what its language model receives of an image, the"
        " merger's output and the DeepStack features side by side, of all layers that they are made of; sequence, the"
        " merger's input and output alone, of which captions, answers and choices can't be made; left out: all. A study"
        " may list the checkpoint twice, once each. Other models receive the sequence alone: left out"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "Model":
        if self.image_size is not None and self.view not in (None, "square"):
            raise ValueError("has image_size, which is of a square view, and another view; leave one of them out")
        if self.view == Limits():
            raise ValueError("view: holds no limits; write processor, square, or some")
        return self


class Dataset(Section):
    """A dataset in its published format. Which keys a format takes: see the page on formats."""

    format: str = Field(description="the published annotation format")
    images: Path = Field(description="folder of the images")
    annotations: Path | None = left_out("file or folder of the annotations")
    questions: Path | None = left_out("file of the questions (vqav2)")
    masks: Path | None = left_out("folder of the answer masks (vizwiz_grounding)")
    split: str | None = left_out("of formats with splits")
    limit: Positive | None = left_out("so many images, spread evenly over all")
    sample: Positive | None = left_out("so many images, drawn by seed")
    seed: Seed | None = left_out("of sample; 0 if left out")


class Extraction(Section):
    """Embeddings before and after the connector."""

    part_size: Positive = Field(4096, description="images per part; one part is one job and one folder")
    batch_size: Positive = Field(32, description="images per forward pass")
    dtype: Literal["float16", "float32"] = Field("float16", description="of the stored embeddings")
    compute_dtype: Precision = Field("float32", description="of the model; bfloat16 on a GPU")
    store_post: bool = Field(True, description="false: post is computed from pre when it is read")


class Overlap(Section):
    """k-NN overlap ratio (KNOR): Figures 2 and 3."""

    datasets: Names = Field([], description="datasets that are measured")
    k: Counts = Field([10, 50], description="neighbours; each must be smaller than the number of images")
    metrics: Metrics = Field(["euclidean", "cosine"], description="Euclidean distance; inner product of unit vectors")
    permutations: int = Field(200, ge=20, description="of the null distribution")


class Retrieval(Section):
    """Image retrieval by class: Tables 2 and 8."""

    datasets: Names = Field([], description="datasets with classes")
    recall: Counts = Field([1, 5], description="R@r: a query finds its class among its r nearest")
    metrics: Metrics = Field(["euclidean", "cosine"], description="as of overlap")
    overlap_k: Positive | None = left_out("the overlap that recall is compared with; left out: the largest overlap: k")


class Network(Section):
    """What all trained decoders share."""

    dropout: float | None = left_out("share of hidden units that are left out in training", ge=0, lt=1)
    models: Names | None = left_out("only for these models; left out: for all")


class Mlp(Network):
    """A multilayer perceptron on each token."""

    kind: Literal["mlp"]
    widths: list[Positive] = Field(description="hidden units of each layer")


class Transformer(Network):
    """A transformer over all tokens of an image."""

    kind: Literal["transformer"]
    width: Positive = Field(description="of its tokens; a multiple of heads")
    layers: Positive
    heads: Positive


class Control(Section):
    """What all connectors of known loss share."""

    networks: Names | Literal["all"] | None = left_out(
        "trained on it beside the linear decoders: names, or all; left out: none"
    )


class PlainControl(Control):
    """A control without settings."""

    kind: Literal["identity", "rotation", "pooling", "other_image", "other_image_and_patch"]


class InvertibleControl(Control):
    """A random network that loses nothing."""

    kind: Literal["invertible_mlp"]
    layers: Positive | None = left_out("of the network")
    slope: float | None = left_out("of its activation below 0", gt=0, le=1)


class PcaControl(Control):
    """Leading principal components of each block of patches."""

    kind: Literal["pca"]
    rank: Positive | None = left_out("components; left out: as many dimensions as the model's connector puts out")


CONTROL_KINDS = {
    kind: model
    for model in (PlainControl, InvertibleControl, PcaControl)
    for kind in get_args(model.model_fields["kind"].annotation)
}


class TrainingLoop(Section):
    """What all that is trained shares."""

    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    buffer: Positive = Field(4096, description="images shuffled together")
    memory: int = Field(
        2_147_483_648, ge=0, description="bytes: a training set that needs no more is held in memory, a larger streamed"
    )
    threads: Positive = Field(1, description="of each process; the weights depend on it")
    checkpoint_minutes: float = Field(10, gt=0, description="a run that is killed goes on from its last checkpoint")


class Training(TrainingLoop):
    """How networks are trained."""

    epochs: Positive | None = Field(
        None,
        description="passes over all training images, at most: who is not at rest by then has not converged; null: "
        "100, or as many as 3,000 steps take, if that is more. A smaller share may take as many steps",
    )
    batch: Positive | None = Field(None, description="images; null: a tenth of the smallest share, 16 to 128")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the first stage; null: found by a short trial of several on the held-out images"
    )
    patience: Positive = Field(
        3, description="looks at the held-out images without a fall of their error until the learning rate is lowered"
    )
    accumulate: Positive = Field(1, description="pieces of a batch, where GPU memory is short")
    whiten: bool = Field(
        True, description="the first layer learns in decorrelated inputs, and is folded back at the end: fewer epochs"
    )
    processes: Positive = Field(
        1, description="GPUs, or processes on a CPU, that share each batch; the weights depend on it, within rounding"
    )


class ReconstructionTables(Section):
    """Datasets of the paper's tables."""

    table3: Names = Field([], description="captions")
    table6: Names = Field([], description="norm differences")
    table9: Names = Field([], description="losses")


class Reconstruction(Section):
    """What can be recovered from the connector's output: Tables 1, 3, 6, 9, the ladder and the verdict."""

    train: Name = Field(description="dataset whose images train the reconstructors")
    evaluate: Names = Field(description="datasets whose patches' losses are measured")
    ladder: Name | None = left_out(
        "dataset on which all decoders and controls are compared; left out: the first of evaluate"
    )
    held_out: Share = Field(
        0.2, description="of the training images: for learning rates, early stopping and the choice of the regulariser"
    )
    shares: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1), AfterValidator(_unique)] = Field(
        [25, 100], description="percentages of the other training images: does more data help?"
    )
    seed: Seed = 0
    networks: dict[
        Annotated[Name, _not(*LINEAR, because="{name!r} is taken by a linear decoder")],
        Annotated[Mlp | Transformer, Field(discriminator="kind")],
    ] = Field(
        {name: Mlp(**network) for name, network in NETWORKS.items()},
        min_length=1,
        description="the ladder's trained decoders, weakest first; below them: mean, position_mean, ridge",
    )
    controls: dict[
        Annotated[Name, _not(OWN, because="{name!r} is taken by the model's own connector")],
        Annotated[PlainControl | InvertibleControl | PcaControl, Field(discriminator="kind")],
    ] = Field(
        {name: CONTROL_KINDS[control["kind"]](**control) for name, control in CONTROLS.items()},
        description="connectors of known loss on the same embeddings",
    )
    training: Training = section("how networks are trained", Training)
    settled_within: float = Field(
        0.01, ge=0, le=1, description="of FVU: settled, if twice the network or the images promises to gain less"
    )
    tables: ReconstructionTables = section("datasets of the paper's tables", ReconstructionTables)


class Generation(Section):
    """Text from the stored embeddings; the vision encoder is not loaded."""

    batch_size: Positive = 32
    compute_dtype: Precision = "float32"


class Captions(Section):
    """CIDEr: Tables 3 and 4, Figure 12."""

    datasets: Names = Field([], description="datasets with captions")
    prompts: Literal["default", "paper"] = Field(
        "default", description="one wording for all models; paper: the paper's, which differ by model"
    )
    max_new_tokens: Positive | None = left_out("of a caption; left out: what the model was trained to")


class Answers(Section):
    """Short answers: Figures 1, 5 and 7."""

    datasets: Names = Field([], description="datasets with open questions")
    score: Literal["vqa_accuracy", "vqa_match"] = Field(
        "vqa_accuracy", description="of four annotators or more; vqa_match: 1 if any annotator gave the answer"
    )
    max_new_tokens: Positive | None = left_out("of an answer")
    threshold: float = Field(
        0.5, gt=0, le=1, description="share of a patch that the answer mask covers, from which it is relevant"
    )
    right: float = Field(0.5, gt=0, le=1, description="accuracy from which an answer counts as right")


class Choices(Section):
    """Multiple choice by the probability of the options' letters."""

    datasets: Names = Field([], description="datasets with options")


class ReaderNetwork(Section):
    """A reader: a vector for each question, which attends to the words and to the image."""

    blocks: int = Field(ge=0, description="of attention; 0: linear on tokens that are pooled as the question asks")
    width: Positive = Field(96, description="a multiple of heads")
    heads: Positive = 4
    dropout: float = Field(0.0, ge=0, lt=1)


class ReaderTraining(TrainingLoop):
    """How readers are trained: in the loop that trains reconstructors."""

    epochs: Positive | None = Field(
        None, description="passes over all training images, at most; null: 100, or as many as 3,000 steps take"
    )
    questions: Positive = Field(128, description="of a batch, as nearly as whole images can")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        0.002, description="of the first stage; null: found by a short trial of several on the held-out images"
    )
    patience: Positive = Field(
        8, description="looks at the held-out images without a fall of their error until the learning rate is lowered"
    )


class Readers(Section):
    """Where an answer is lost: readers of what enters and of what leaves the connector."""

    train: Name = Field(description="dataset whose questions train the readers")
    datasets: Names = Field(description="datasets whose wrong answers are split; among answers or choices, too")
    answers: Positive = Field(1000, description="the most frequent training answers, that readers of open ones know")
    held_out: Share = Field(0.2, description="of the training images: for early stopping and the choice of readers")
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_unique)] = Field(
        [0], description="each network is trained once from each"
    )
    seed: Seed = 0
    networks: dict[Name, ReaderNetwork] = Field(
        {name: ReaderNetwork(**network) for name, network in READERS.items()},
        min_length=1,
        description="a ladder of capacities, weakest first",
    )
    controls: Annotated[list[ControlKind], AfterValidator(_unique)] = Field(
        [],
        description="connectors that learn nothing, with readers of their own: 2x2 patches; random patches",
    )
    training: ReaderTraining = section("how readers are trained", ReaderTraining)
    settled_within: float = Field(
        0.02,
        ge=0,
        description="of bits: readers are at rest, if neither the last network nor more questions promise more",
    )


class Relations(Section):
    """Between scores and losses."""

    permutations: int = Field(9999, ge=99)


class Example(Section):
    """One dataset and model."""

    dataset: Name
    model: Name


class CaptionExamples(Section):
    """One dataset, all models."""

    dataset: Name


class Browser(Section):
    """A page of examples with their losses."""

    examples: int = Field(200, ge=1, le=1000, description="on the page, at most; 4 at least of each table of examples")
    megabytes: float = Field(15, gt=0, description="of the page, by the size of its images")


class Geometry(Section):
    """Why neighbours change: Tables 5 and 7, Figure 6, near-ties, random projections."""

    datasets: Names = Field([], description="datasets that are measured")
    k: Counts = Field([10, 50], description="neighbours")
    quantiles: Annotated[list[Share], Field(min_length=1), AfterValidator(_unique)] = Field(
        [0.1, 0.5, 0.9], description="of the margins between neighbours and others, for the dimensions needed"
    )
    delta: Share = Field(0.05, description="probability that the finite-sample bound may fail")
    queries: Positive = Field(500, description="images on which random projections are tried, at most")
    memory: float = Field(1, gt=0, description="GB for comparing all patches of images at once")
    sink_ratio: float = Field(2, gt=1, description="a token longer than this many times the image's median is a sink")


class Probe(Section):
    """How far the output moves when one patch is moved, on geometry: datasets."""

    images: int = Field(16, ge=2, description="drawn by seed")
    directions: Positive = Field(3, description="random ones for each patch")
    step: float = Field(0.01, gt=0, le=1, description="of the root mean square length of all patches")
    batch_size: Positive = 64


class Galleries(Section):
    """Queries of highest, median and lowest overlap with their nearest images: Figures 4 and 8 to 11."""

    datasets: Names = Field([], description="datasets that are shown")
    k: Positive = Field(10, description="of the overlap")
    shown: int = Field(5, ge=1, le=10, description="neighbours that are drawn")


class Figure2(Example):
    """The query that explains the overlap ratio."""

    k: int = Field(6, ge=2, le=10)


class Statistics(Section):
    """Of every interval."""

    confidence: Share = 0.95
    resamples: int = Field(2000, ge=100, description="bootstrap, over images")
    seed: Seed = 0


class Figures(Section):
    """How figures look."""

    scale: float = Field(1.0, ge=0.5, le=4, description="of width and height; type keeps its size")
    palette: Literal[
        "colorblind",
        "deep",
        "muted",
        "bright",
        "pastel",
        "dark",
        "tab10",
        "Set1",
        "Set2",
        "Set3",
        "Dark2",
        "Paired",
        "Accent",
    ] = Field("colorblind", description="of seaborn, by name; the default is safe for the colour-blind")
    names: dict[Name, Annotated[str, Field(min_length=1)]] = Field({}, description="model -> what figures call it")


class Study(Section):
    """A study: which models, which datasets, which measures."""

    study: Annotated[Name, _not(*TAKEN, because="{name!r} is taken: results/{name}/ holds something else")] = Field(
        description="results go to results/<study>/"
    )
    models: dict[Name, Model] = Field(min_length=1, description="name -> model")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="name -> dataset")
    miniature: Miniature = section("the miniature datasets", Miniature)
    extraction: Extraction = section("embeddings before and after the connector", Extraction)
    equal_images: Literal["drop", "count"] = Field(
        "drop", description="equal pixels, or equal embeddings before the connector: drop all but one, or count each"
    )
    overlap: Overlap = section("k-NN overlap ratio (KNOR)", Overlap)
    retrieval: Retrieval = section("image retrieval by class", Retrieval)
    reconstruction: Reconstruction | None = left_out("what can be recovered from the connector's output")
    generation: Generation = section("text from the stored embeddings", Generation)
    captions: Captions = section("captions and their CIDEr", Captions)
    answers: Answers = section("short answers", Answers)
    choices: Choices = section("multiple choice", Choices)
    readers: Readers | None = left_out("where an answer is lost: encoder, connector or language model")
    relations: Relations = section("between scores and losses", Relations)
    figure1: Example | None = left_out("lost patches in right and wrong answers")
    figure2: Figure2 | None = left_out("the query that explains the overlap ratio")
    figure7: Example | None = left_out("as figure1, of another model")
    figure12: CaptionExamples | None = left_out("captions of images that lost most and least")
    browser: Browser = section("a page of examples with their losses", Browser)
    geometry: Geometry = section("why neighbours change", Geometry)
    probe: Probe = section("how far the output moves with one patch", Probe)
    galleries: Galleries = section("queries with their nearest images", Galleries)
    compare: Annotated[list[Annotated[list[Name], Field(min_length=2, max_length=2)]], AfterValidator(_unique)] = Field(
        [], description="pairs of models, a base and what was tuned from it, whose differences are measured"
    )
    statistics: Statistics = section("of every interval", Statistics)
    figures: Figures = section("how figures look", Figures)
