"""Mean and standard deviation of the training set's embeddings: measured once, saved, used everywhere."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lossmap.errors import LossmapError
from lossmap.reconstruct.specs import canonical

FORMAT = "lossmap-statistics/1"
MOMENTS = ("pre_mean", "pre_std", "post_mean", "post_std")


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of one connector's pre and post over a training set. They also say which connector it is: spec, seed, fit.

    pre_mean, pre_std (D',) and post_mean, post_std (D,): float32; a constant feature has standard deviation 0.
    store_digest: SHA-256 of the training store's index. connector: the connector's spec, as `canonical` spells it,
    and seed, what its random parts are drawn with. extra: what a control has learned from the training set.
    """

    pre_mean: torch.Tensor
    pre_std: torch.Tensor
    post_mean: torch.Tensor
    post_std: torch.Tensor
    store_digest: str
    connector: str
    seed: int = 0
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    def standardise_pre(self, pre: torch.Tensor) -> torch.Tensor:
        """pre (..., D') of any floating type -> float32 of mean 0 and variance 1 over the training set."""
        return _standardise(pre, self.pre_mean, self.pre_std)

    def standardise_post(self, post: torch.Tensor) -> torch.Tensor:
        """post (..., D) of any floating type -> float32 of mean 0 and variance 1 over the training set."""
        return _standardise(post, self.post_mean, self.post_std)

    @property
    def constant_features(self) -> tuple[int, int]:
        """How many features of pre and of post never change; standardised, they are 0."""
        return int((self.pre_std == 0).sum()), int((self.post_std == 0).sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file that `save` writes."""
        return hashlib.sha256(self._content()).hexdigest()

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file. The same statistics, the same bytes."""
        Path(path).write_bytes(self._content())

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Raises LossmapError if the file is missing, damaged or of another kind."""
        try:
            with safe_open(path, "pt") as file:
                told = json.loads(file.metadata()["lossmap"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            if told.pop("format") != FORMAT:
                raise ValueError(f"not {FORMAT}")
            return cls(**{name: tensors.pop(name) for name in MOMENTS}, **told, extra=tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as fault:
            raise LossmapError(
                f"{path}: no statistics of embeddings can be read from it ({fault!r}). Delete it and run again: "
                "measure_statistics makes it anew."
            ) from fault

    def check_store(self, index: Path) -> None:
        """LossmapError unless these statistics were measured on the store with this index."""
        if store_digest(index) != self.store_digest:
            raise LossmapError(
                f"{index}: the statistics of connector {self.connector} were measured on another store. "
                "Measure them on this one: delete statistics.safetensors and run again."
            )

    def to(self, device) -> "Statistics":
        """The same with its means and standard deviations on a device."""
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in MOMENTS})

    def _content(self) -> bytes:
        tensors = {name: getattr(self, name) for name in MOMENTS} | self.extra
        told = {"format": FORMAT, "store_digest": self.store_digest, "connector": self.connector, "seed": self.seed}
        # One entry: safetensors writes several in no fixed order.
        metadata = {"lossmap": canonical(told)}
        return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def store_digest(index: Path) -> str:
    """SHA-256 of a store's index, which names the digest of every part."""
    return hashlib.sha256(Path(index).read_bytes()).hexdigest()


def embeddings_digest(embeddings) -> str:
    """SHA-256 of a Dataset of embeddings in memory, by the names of its images and their means on both sides."""
    sha = hashlib.sha256(json.dumps(embeddings["image_id"].values.tolist()).encode())
    for name in ("pre_mean", "post_mean"):
        sha.update(embeddings[name].values.tobytes())
    return sha.hexdigest()


def _standardise(values: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return (values.float() - mean) / torch.where(std == 0, 1.0, std)
