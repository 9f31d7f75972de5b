"""What a computation on a GPU would take, found without doing it and without weights: operations and memory."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

CPU, META = torch.device("cpu"), torch.device("meta")

# Each row times the matrix of its expert. On the meta device PyTorch takes bfloat16 alone.
GROUPED = (torch.ops.aten._grouped_mm,)


@dataclass
class Cost:
    """flops: floating point operations of products, a multiplication and an addition counted apart.
    memory: bytes of the results that are held at once, at most, without the weights."""

    flops: int = 0
    memory: int = 0


class DryRun:
    """Runs what stands under it without computing anything that depends on a weight.

    Weights lie on the meta device: they have a shape and no values. What is computed with one of them has no values
    either. All else is really computed: masks, grids and positions, which are small, and which models look into.

    >>> with torch.device("meta"):
    ...     layer = torch.nn.Linear(3, 5, bias=False)
    >>> with DryRun() as cost:
    ...     layer(torch.ones(2, 3)).shape
    torch.Size([2, 5])
    >>> cost
    Cost(flops=60, memory=40)
    """

    def __enter__(self) -> Cost:
        cost = Cost()
        self.modes: list[Any] = [_ShapesOfWeights(cost), _AttentionOfGPUs()]
        for mode in self.modes:
            mode.__enter__()
        return cost

    def __exit__(self, *fault) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*fault)


class _ShapesOfWeights(TorchDispatchMode):
    """Lets the meta device spread from weights to whatever meets them, and from nothing else; counts what is alive."""

    def __init__(self, cost: Cost):
        super().__init__()
        self.cost, self.held = cost, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not tree_any(_without_values, (args, kwargs)):
            # Positions, masks and the like, made beside the weights or moved there.
            args, kwargs = tree_map_only(torch.device, lambda place: CPU if place == META else place, (args, kwargs))
            return function(*args, **kwargs)
        if function is torch.ops.aten.index.Tensor:
            args = (args[0], _numbered(args[1]))
        formula = flop_registry.get(function._overloadpacket)
        if formula is None and function._overloadpacket not in GROUPED:
            with self:  # in inference mode, what consists of other operations comes here as a whole
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        args, kwargs = tree_map_only(torch.Tensor, _to_meta, (args, kwargs))
        given = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        made = _experts(*args[:2]) if function._overloadpacket in GROUPED else function(*args, **kwargs)
        if function._overloadpacket in GROUPED:
            self.cost.flops += 2 * args[0].numel() * args[1].shape[-1]
        elif formula is not None:
            self.cost.flops += formula(*args, **kwargs, out_val=made)
        for value in tree_leaves(made):
            if isinstance(value, torch.Tensor) and _storage(value) not in given:  # no view of what there was
                self._hold(_storage(value))
        return made

    def _hold(self, storage):
        self.held += storage.nbytes()
        self.cost.memory = max(self.cost.memory, self.held)
        weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, size):
        self.held -= size


class _AttentionOfGPUs(TorchFunctionMode):
    """Attention as the kernels of a GPU do it: the matrix of all pairs is never held."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention and _without_values(args[0]):
            query, key, value = (_to_meta(side) for side in args[:3])
            if key.shape[1] != query.shape[1]:  # several queries share a key
                key, value = (side.repeat_interleave(query.shape[1] // side.shape[1], 1) for side in (key, value))
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return function(*args, **(kwargs or {}))


def _experts(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Shape of the product of rows, each with one of the weights (experts, features in, features out)."""
    return torch.empty(rows.shape[0], weights.shape[-1], dtype=rows.dtype, device=META)


def _numbered(indices: list) -> list:
    """The same indices with masks, whose values say how many rows are taken, as numbers of these rows."""
    numbered: list = []
    for index in indices:
        mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool and not _without_values(index)
        numbered += index.nonzero(as_tuple=True) if mask else [index]
    return numbered


def _without_values(value) -> bool:
    return isinstance(value, torch.Tensor) and value.device == META


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.device == META else torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META
    )  # fmt: skip
