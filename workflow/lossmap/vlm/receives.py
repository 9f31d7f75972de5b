"""What post is taken for, of a model whose language model is given more of an image than its connector's output.

DeepStack models (Qwen3-VL) have further connectors: each takes the patches of an earlier layer of the vision tower, and
what it makes of them is added to the image's tokens within the language model. `receives` of a model is "all": pre is
what enters each of the connectors, side by side, and post what leaves them; or "sequence": the connector alone at
whose output the image's tokens begin. The Snakefile imports this: nothing heavy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossmap.vlm.families import Family

ALL, SEQUENCE = "all", "sequence"


def receives_problem(where: str, family: "Family", receives: str) -> str | None:
    """What is wrong with the setting for a family; None if nothing. where: what messages call the checkpoint."""
    if receives not in (ALL, SEQUENCE):
        return f"{where}: receives is {receives!r}. Write all or sequence."
    if receives == SEQUENCE and not family.stacked:
        return (
            f"{where}: receives is sequence, but its language model is given nothing else of an image (no DeepStack)."
            " Leave receives out."
        )
    return None


def received(key: dict, family: "Family | None") -> str:
    """What embeddings hold. key: theirs; family: of their model. Where a key doesn't say, Lossmap knew the connector
    alone when it was written."""
    return key.get("receives", SEQUENCE if family and family.stacked else ALL)
