"""What a step or an exhibit receives of a study: typed, checked when the workflow is read, and again by the job."""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lossmap.study.definition import Dataset, Precision
from lossmap.study.derived import (
    EXAMPLES,
    compared_datasets,
    connectors_of,
    decoders_of,
    examples_of,
    images_at_once,
    most_neighbours,
    receives_of,
    sequence_alone,
    task_of,
    view_of,
)
from lossmap.vlm.receives import ALL
from lossmap.vlm.view_limits import SQUARE

View = Literal["processor", "square"] | dict[str, int]


class Spec(BaseModel):
    """Settings of one step or exhibit: all that its result depends on beside its inputs.

    Fields are found by their names: `models`, `checkpoints` and `views` (of each model) are those of the whole study,
    others stand in its SECTIONS ("overlap", "reconstruction.training").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    SECTIONS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, study: dict, **values: Any) -> Self:
        """These settings of a study. values: fields that no section holds, such as the dataset; others are ignored.

        Raises: pydantic's ValidationError if a field is found nowhere, or is of another type.
        """
        checkpoints = {name: model["checkpoint"] for name, model in study["models"].items()}
        views = {name: view_of(model) for name, model in study["models"].items()}
        found: dict = {"models": list(checkpoints), "checkpoints": checkpoints, "views": views}
        for name in cls.SECTIONS:
            section = study
            for key in name.split("."):
                section = section[key]
            found |= section
        found |= values
        return cls(**{name: found[name] for name in cls.model_fields if name in found})

    def plain(self) -> dict:
        """As JSON values, in the order of their names: what the key of a product holds of them."""
        return dict(sorted(self.model_dump().items()))


class OfImages(Spec):
    """Of one model's measurements on one dataset."""

    dataset: str
    model: str


class WithConfidence(Spec):
    """The confidence of intervals."""

    SECTIONS: ClassVar[tuple[str, ...]] = ("statistics",)
    confidence: float


class WithIntervals(WithConfidence, OfImages):
    """Of one model's measurements on one dataset, with intervals."""


class WithBootstrap(WithIntervals):
    """How many resamples the intervals are made of, and the seed of what is drawn at random."""

    resamples: int
    seed: int


class OfModel(Spec):
    """A checkpoint and how it is opened."""

    checkpoint: str
    revision: str | None
    image_size: int | None
    # Left out where it is square, as keys of embeddings were before there were others.
    view: View = Field("square", exclude_if=lambda view: view == SQUARE)
    # Left out where it is all: so it was not there before, and is not of families without DeepStack.
    receives: Literal["all", "sequence"] = Field("all", exclude_if=lambda receives: receives == ALL)

    @classmethod
    def of(cls, study, **values):
        model = study["models"][values["model"]]
        how = {key: model.get(key) for key in OfModel.model_fields}
        how |= {"view": view_of(model), "receives": receives_of(model)}
        return super().of(study, **how, **values)

    @property
    def opening(self) -> dict:
        """What opens the checkpoint: arguments of `load_vision_side`."""
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "image_size": self.image_size,
            "view": self.view,
            "receives": self.receives,
        }


class DrawMiniature(Spec):
    SECTIONS = ("miniature",)
    folder: str
    seed: int
    images: dict[str, int]


class ReadDataset(Dataset):
    """The entry of a dataset in a study."""

    @classmethod
    def of(cls, study, dataset, **_):
        return cls(**study["datasets"][dataset])


class Extract(OfModel):
    SECTIONS = ("extraction",)
    batch_size: int
    dtype: Literal["float16", "float32"]
    compute_dtype: Precision
    store_post: bool


class FindNeighbours(Spec):
    k: int
    metrics: list[str]
    equal_images: Literal["drop", "count"]

    @classmethod
    def of(cls, study, dataset, **_):
        metrics = {
            metric
            for section in ("overlap", "retrieval")
            if dataset in study[section]["datasets"]
            for metric in study[section]["metrics"]
        }
        if dataset in study["galleries"]["datasets"]:
            metrics.add("euclidean")
        if dataset in study["geometry"]["datasets"]:
            metrics |= {"euclidean", "cosine"}
        return cls(k=most_neighbours(study, dataset), metrics=sorted(metrics), equal_images=study["equal_images"])


class MeasureOverlap(WithIntervals):
    SECTIONS = ("overlap", "statistics")
    k: list[int]
    metrics: list[str]
    permutations: int
    seed: int


class MeasureRetrieval(WithIntervals):
    SECTIONS = ("retrieval", "statistics")
    recall: list[int]
    metrics: list[str]
    overlap_k: int


class MeasureStatistics(Spec):
    connectors: dict[str, dict]
    seed: int

    @classmethod
    def of(cls, study, **_):
        reconstruction = study["reconstruction"]
        return cls(connectors=connectors_of(reconstruction), seed=reconstruction["seed"])


class FitLinear(Spec):
    SECTIONS = ("reconstruction",)
    connectors: dict[str, dict]
    shares: list[int]
    held_out: float
    seed: int

    @classmethod
    def of(cls, study, **_):
        return super().of(study, connectors=connectors_of(study["reconstruction"]))


class TrainReconstructor(Spec):
    """network and training: as the study's definition has them."""

    SECTIONS = ("reconstruction",)
    network: dict
    share: int
    shares: list[int]
    held_out: float
    seed: int
    training: dict

    @classmethod
    def of(cls, study, network, **values):
        entry = study["reconstruction"]["networks"][network]
        return super().of(study, network={key: entry[key] for key in entry if key != "models"}, **values)


class MeasurePatchLoss(WithBootstrap):
    decoders: list[str]
    share: int
    batch_size: int

    @classmethod
    def of(cls, study, model, **values):
        share = max(study["reconstruction"]["shares"])
        decoders, size = decoders_of(study["reconstruction"], model), images_at_once(study["reconstruction"])
        return super().of(study, model=model, decoders=decoders, share=share, batch_size=size, **values)


class MeasureLadder(OfImages):
    SECTIONS = ("reconstruction",)
    connectors: dict[str, list[str]]
    shares: list[int]
    batch_size: int

    @classmethod
    def of(cls, study, model, **_):
        reconstruction = study["reconstruction"]
        connectors = {name: decoders_of(reconstruction, model, name) for name in connectors_of(reconstruction)}
        size = images_at_once(reconstruction)
        return super().of(study, model=model, dataset=reconstruction["ladder"], connectors=connectors, batch_size=size)


class JudgeConnector(Spec):
    """settled_within: a fall of FVU that still counts."""

    SECTIONS = ("reconstruction", "statistics")
    settled_within: float
    confidence: float
    resamples: int
    seed: int


class DescribedModel(Spec):
    name: str
    checkpoint: str
    revision: str | None
    receives: Literal["all", "sequence"] = Field("all", exclude_if=lambda receives: receives == ALL)


class DescribeConnectors(Spec):
    """All models of a study, in its order."""

    models: list[DescribedModel]

    @classmethod
    def of(cls, study, **_):
        models = study["models"].items()
        return cls(
            models=[
                {
                    "name": name,
                    **{key: model.get(key) for key in ("checkpoint", "revision")},
                    "receives": receives_of(model),
                }
                for name, model in models
            ]
        )


class Generate(OfModel):
    """What makes a model speak about the images of a store."""

    SECTIONS = ("generation",)
    batch_size: int
    compute_dtype: Precision


class CaptionImages(Generate):
    prompts: Literal["default", "paper"]
    max_new_tokens: int | None

    @classmethod
    def of(cls, study, **values):
        task = study["captions"]
        return super().of(study, prompts=task["prompts"], max_new_tokens=task.get("max_new_tokens"), **values)


class AnswerQuestions(Generate):
    max_new_tokens: int | None

    @classmethod
    def of(cls, study, **values):
        return super().of(study, max_new_tokens=study["answers"].get("max_new_tokens"), **values)


class ChooseOptions(Generate):
    pass


class ScoreCaptions(WithBootstrap):
    pass


class ScoreChoices(WithBootstrap):
    pass


class ScoreAnswers(WithBootstrap):
    score: Literal["vqa_accuracy", "vqa_match"]

    @classmethod
    def of(cls, study, **values):
        return super().of(study, score=study["answers"]["score"], **values)


class RelateCaptions(WithBootstrap):
    SECTIONS = ("relations", "statistics")
    permutations: int


class RelateAnswers(WithBootstrap):
    SECTIONS = ("relations", "statistics")
    permutations: int
    threshold: float
    right: float

    @classmethod
    def of(cls, study, **values):
        return super().of(study, threshold=study["answers"]["threshold"], right=study["answers"]["right"], **values)


class ChooseExamples(OfImages):
    """number: of examples, at most; right: accuracy from which an answer is right."""

    task: Literal["captions", "answers", "choices", "images"]
    number: int
    right: float
    relevance_threshold: float

    @classmethod
    def of(cls, study, **values):
        tables = len(examples_of(study)) * len(study["models"])
        number = max(EXAMPLES, study["browser"]["examples"] // tables)
        answers = study["answers"]
        return super().of(
            study, number=number, right=answers["right"], relevance_threshold=answers["threshold"], **values
        )


class MakeBrowser(Spec):
    """most: examples on the page; megabytes: of the page, at most."""

    study: str
    most: int
    megabytes: float

    @classmethod
    def of(cls, study, **_):
        return cls(study=study["study"], most=study["browser"]["examples"], megabytes=study["browser"]["megabytes"])


class OfReaders(OfModel):
    """task: what is asked, in the model's own words or among options."""

    task: Literal["answers", "choices"]
    seed: int

    @classmethod
    def of(cls, study, model, dataset=None, **values):
        readers = study["readers"]
        task = task_of(study, readers["train"])
        return super().of(study, model=model, dataset=dataset, task=task, seed=readers["seed"], **values)


class TrainReaders(OfReaders):
    """answers: the most frequent ones, that readers of open questions know. networks and training: as the study's
    definition has them."""

    SECTIONS = ("readers",)
    answers: int
    networks: dict[str, dict]
    controls: list[str]
    seeds: list[int]
    held_out: float
    training: dict


class ReadAnswers(OfReaders):
    dataset: str


class MeasureWhereLost(WithBootstrap):
    """networks: of readers, weakest first. settled_within: bits that a step of the ladder may bring at rest."""

    SECTIONS = ("statistics",)
    task: Literal["answers", "choices"]
    score: str
    right: float
    networks: list[str]
    settled_within: float

    @classmethod
    def of(cls, study, **values):
        readers, task = study["readers"], task_of(study, study["readers"]["train"])
        score = study["answers"]["score"] if task == "answers" else "choice_accuracy"
        how = {"networks": list(readers["networks"]), "settled_within": readers["settled_within"]}
        return super().of(study, task=task, score=score, right=study["answers"]["right"], **how, **values)


class MeasureGeometry(WithBootstrap):
    SECTIONS = ("geometry", "statistics")
    k: list[int]
    quantiles: list[float]
    delta: float
    queries: int


class CompareIndexes(WithIntervals):
    SECTIONS = ("geometry", "statistics")
    k: list[int]
    memory: float
    sink_ratio: float


class ProbePatches(WithBootstrap, OfModel):
    SECTIONS = ("statistics", "probe")
    images: int
    directions: int
    step: float
    batch_size: int


class CompareModels(Spec):
    """Datasets of each thing that is compared: neighbour lists, losses, scores; shared: all of them."""

    SECTIONS = ("overlap", "statistics")
    base: str
    tuned: str
    shared: list[str]
    lists: list[str]
    losses: list[str]
    captions: list[str]
    answers: list[str]
    choices: list[str]
    k: list[int]
    metrics: list[str]
    confidence: float
    resamples: int
    seed: int

    @classmethod
    def of(cls, study, **values):
        return super().of(study, **compared_datasets(study), **values)


class MakeExhibit(Spec):
    """How figures look, and how each model sees images; the rest is each exhibit's own. sequence_alone: models of
    which the merger alone is measured, though their language model receives more."""

    SECTIONS = ("figures",)
    scale: float
    palette: str
    names: dict[str, str]
    views: dict[str, View]
    sequence_alone: list[str] = Field([], exclude_if=lambda names: not names)

    @classmethod
    def of(cls, study, **values):
        return super().of(study, sequence_alone=sequence_alone(study), **values)


class ShownExhibit(Spec):
    """What a summary says of an exhibit."""

    name: str
    title: str
    topic: str
    paper: str | None
    headline: bool
    page: bool
    figures: list[str]


class MakeSummary(Spec):
    study: str
    models: list[str]
    views: dict[str, View]
    sequence_alone: list[str] = Field([], exclude_if=lambda names: not names)
    exhibits: list[ShownExhibit]
    browser: bool


def spec_of(step: str) -> type[Spec]:
    """What a step receives: the class of its name."""
    return globals()["".join(word.title() for word in step.split("_"))]
