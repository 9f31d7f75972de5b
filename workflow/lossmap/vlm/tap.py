"""Seeing what enters a model's connector, without a trace left in the model."""

import threading
from operator import attrgetter
from typing import Any, cast

from torch import Tensor, nn

ONE_VIEW = [[0, 0]]  # of image_grid_pinpoints: no tiles, the base view alone


class Tap:
    """While it is open (`with tap:`), what enters the connector is kept, and the model is in evaluation mode.

    Threads may have it open at the same time, and each takes its own. When the last one leaves, the hook is removed and
    each module's mode is what it was, so that a model in training can be measured between two steps.

    Parameters: model, a base model; connector, the name of the module; resolutions, what the configuration is to have
        as image_grid_pinpoints meanwhile, if anything.
    """

    def __init__(self, model: nn.Module, connector: str, resolutions: list[list[int]] | None = None):
        self.model, self.resolutions = model, resolutions
        self.connector = attrgetter(connector)(model)
        self._lock, self._inside, self._seen = threading.Lock(), 0, threading.local()

    def __enter__(self) -> "Tap":
        with self._lock:
            if not self._inside:
                self._open()
            self._inside += 1
        return self

    def __exit__(self, *fault) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._close()

    def take(self) -> Tensor:
        """What entered last in this thread. It is not kept in memory for longer."""
        seen, self._seen.pre = self._seen.pre, None
        return seen

    def _open(self) -> None:
        self._hook = self.connector.register_forward_pre_hook(self._keep, with_kwargs=True)
        self._training = [module for module in self.model.modules() if module.training]
        for module in self._training:
            module.training = False
        if self.resolutions:
            config = cast(Any, self.model).config
            self._own, config.image_grid_pinpoints = config.image_grid_pinpoints, self.resolutions

    def _close(self) -> None:
        self._hook.remove()
        for module in self._training:
            module.training = True
        if self.resolutions:
            cast(Any, self.model).config.image_grid_pinpoints = self._own

    def _keep(self, module, args, kwargs):
        self._seen.pre = args[0] if args else next(iter(kwargs.values()))
