"""Seeing what enters a model's connectors, without a trace left in the model."""

import threading
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Any, cast

from torch import Tensor, nn

ONE_VIEW = [[0, 0]]  # of image_grid_pinpoints: no tiles, the base view alone


class Tap:
    """While it is open (`with tap:`), what enters each connector is kept, and the model is in evaluation mode.

    Threads may have it open at the same time, and each takes its own. When the last one leaves, the hooks are removed
    and each module's mode is what it was, so that a model in training can be measured between two steps.

    Parameters: model, a base model; connectors, names of the modules; resolutions, what the configuration is to have
        as image_grid_pinpoints meanwhile, if anything; argument, the name of that input which is kept, None: the first.
    """

    def __init__(
        self,
        model: nn.Module,
        connectors: Sequence[str],
        resolutions: list[list[int]] | None = None,
        argument: str | None = None,
    ):
        self.model, self.resolutions, self.argument = model, resolutions, argument
        self.names = tuple(connectors)
        self.connectors = [attrgetter(name)(model) for name in connectors]
        self._lock, self._inside, self._seen = threading.Lock(), 0, threading.local()

    def __enter__(self) -> "Tap":
        with self._lock:
            if not self._inside:
                self._open()
            self._inside += 1
        self._seen.pre = {}
        return self

    def __exit__(self, *fault) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._close()

    def take(self) -> dict[str, Tensor]:
        """Name -> what entered last in this thread, in the order of the calls. It is not kept in memory for longer."""
        seen, self._seen.pre = self._seen.pre, {}
        return seen

    def _open(self) -> None:
        self._hooks = [
            connector.register_forward_pre_hook(partial(self._keep, name), with_kwargs=True)
            for name, connector in zip(self.names, self.connectors, strict=True)
        ]
        self._training = [module for module in self.model.modules() if module.training]
        for module in self._training:
            module.training = False
        if self.resolutions:
            config = cast(Any, self.model).config
            self._own, config.image_grid_pinpoints = config.image_grid_pinpoints, self.resolutions

    def _close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for module in self._training:
            module.training = True
        if self.resolutions:
            cast(Any, self.model).config.image_grid_pinpoints = self._own

    def _keep(self, name, module, args, kwargs):
        seen = getattr(self._seen, "pre", {})  # of a thread that runs the model without the tap, nothing is kept
        seen.pop(name, None)
        first = args[0] if args else next(iter(kwargs.values()))
        seen[name] = kwargs[self.argument] if self.argument else first
