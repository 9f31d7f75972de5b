"""Lossmap: what a vision-language model loses at its connector.

`import lossmap` gives what a notebook needs, each name loaded when it is first used:

    open_model           a checkpoint, or a model that is already loaded
    embed                images -> embeddings before and after the connector, in memory or as a store
    open_embeddings      a store that `embed` or a study wrote
    from_arrays          embeddings of any other tool, as what `embed` returns
    select_images        some images of embeddings, in the order asked
    neighbour_overlap    share of nearest neighbours that survive (KNOR), with interval, chance and null
    procrustes           how well a rotation, and a linear map, lead back
    cka                  debiased linear centred kernel alignment
    train_reconstructor  a network that recovers pre from post
    open_reconstructor   one that was saved, or that a study trained
    patch_losses         what a reconstructor misses of each patch of other images
    draw_patch_losses    the same over the image
    run_ladder           reconstructors on the connector and on controls of known loss: table and verdict
    miniature_images     pictures to try things on
    LossmapError         what a user can mend

Wherever embeddings are taken, a Dataset of `embed` works, and so do a user's own arrays.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossmap.errors import LossmapError
    from lossmap.figures.patch_maps import draw_patch_losses
    from lossmap.measures.overlap import neighbour_overlap
    from lossmap.measures.procrustes import procrustes
    from lossmap.measures.similarity import cka
    from lossmap.miniature.scenes import miniature_images
    from lossmap.reconstruct.running import run_ladder
    from lossmap.reconstruct.trained import open_reconstructor, patch_losses, train_reconstructor
    from lossmap.store.memory import from_arrays
    from lossmap.store.ragged import select_images
    from lossmap.vlm.embedding import embed
    from lossmap.vlm.opening import open_model
    from lossmap.vlm.stored import open_embeddings
else:  # a type checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'lossmap' has no attribute {name!r}")
        return getattr(import_module(f"lossmap.{_MODULES[name]}"), name)


_MODULES = {
    "LossmapError": "errors",
    "cka": "measures.similarity",
    "draw_patch_losses": "figures.patch_maps",
    "embed": "vlm.embedding",
    "from_arrays": "store.memory",
    "miniature_images": "miniature.scenes",
    "neighbour_overlap": "measures.overlap",
    "open_embeddings": "vlm.stored",
    "open_model": "vlm.opening",
    "open_reconstructor": "reconstruct.trained",
    "patch_losses": "reconstruct.trained",
    "procrustes": "measures.procrustes",
    "run_ladder": "reconstruct.running",
    "select_images": "store.ragged",
    "train_reconstructor": "reconstruct.trained",
}

__all__ = [
    "LossmapError",
    "cka",
    "draw_patch_losses",
    "embed",
    "from_arrays",
    "miniature_images",
    "neighbour_overlap",
    "open_embeddings",
    "open_model",
    "open_reconstructor",
    "patch_losses",
    "procrustes",
    "run_ladder",
    "select_images",
    "train_reconstructor",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
