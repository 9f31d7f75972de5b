"""Version numbers of the costly products, and what else their keys hold.

What a GPU makes is made anew when its settings, the content of what it reads, its checkpoint or its version changes,
and never because of how its code is written. Whoever changes what a product holds raises its number here by one, with
a line that says what changed, and records new golden values (`make golden`); tests/test_golden.py fails until then.
Where the change is one family's only, raise that family's number: the others' products stay as they are.
"""

import json
from dataclasses import MISSING, fields

from lossmap.vlm.families import FAMILIES

VERSIONS = {
    "embeddings": {1: "first"},
    "statistics": {1: "first"},
    "linear": {1: "first"},
    "networks": {1: "first"},
    "patch_losses": {1: "first"},
    "ladder": {1: "first", 2: "the column rung is called decoder"},
    "captions": {1: "first"},
    "answers": {1: "first"},
    "choices": {1: "first"},
    "probe": {1: "first"},
    "readers": {1: "first"},
    "readings": {1: "first"},
}

# Product -> family -> number -> what changed, for products that run a model. What isn't listed is at 1.
FAMILY_VERSIONS: dict[str, dict[str, dict[int, str]]] = {
    "embeddings": {"qwen3_vl": {1: "first", 2: "DeepStack, too: all that it receives"}},
    "captions": {},
    "answers": {},
    "choices": {},
    "probe": {"qwen3_vl": {1: "first", 2: "DeepStack, too: all that it receives"}},
}


def product_version(product: str) -> int:
    """The number of a product."""
    return max(VERSIONS[product])


def family_version(product: str, family: str) -> int:
    """The number of a product for the models of one family."""
    return max(FAMILY_VERSIONS[product].get(family, {1: "first"}))


def family_key(product: str, family: str) -> dict:
    """What a product depends on of its model's family, as JSON: the family's name and number, and its entry in the
    registry. Of the entry what is data; golden values guard what its functions compute. Fields at their default are
    left out, so that a new field changes the key of those families alone that use it; so is own_view, which matters
    only where images are seen so, and then their preprocessing says it in full."""
    entry = FAMILIES[family]
    told = {
        field.name: getattr(entry, field.name)
        for field in fields(entry)
        if field.name != "own_view" and (field.default is MISSING or getattr(entry, field.name) != field.default)
    }
    data = {name: value for name, value in told.items() if not callable(value)}
    return {"name": family, "version": family_version(product, family), "entry": json.loads(json.dumps(data))}


def product_key(product: str, family: str | None = None) -> dict:
    """The part of a product's key that stands here, as JSON; the rest is its settings and the digests of its inputs."""
    told = {"product": product, "version": product_version(product)}
    return told if family is None else {**told, "family": family_key(product, family)}
