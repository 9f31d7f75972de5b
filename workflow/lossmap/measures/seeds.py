"""Random seeds that depend on what is drawn for, never on the order or the machine."""

import hashlib
import json


def seed_for(seed: int, *purpose: str) -> int:
    """A seed of its own for each purpose, such as (dataset, model, step). Returns an integer in [0, 2**63)."""
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
