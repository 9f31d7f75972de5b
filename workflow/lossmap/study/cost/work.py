"""The work of a study: jobs of one kind, what they take and what they leave."""

from dataclasses import dataclass, field

BYTES = {"float16": 2, "float32": 4}
# In the order in which they are shown.
KINDS = (
    EXTRACTION := "extraction",
    LINEAR := "linear decoders",
    NETWORKS := "networks",
    LOSSES := "patch losses, ladder",
    SPEECH := "captions, answers, choices",
    READERS := "readers",
    NEIGHBOURS := "neighbours, indexes, probe",
)


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
