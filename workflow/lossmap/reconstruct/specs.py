"""How settings of connectors and reconstructors are named and spelled. Nothing is loaded."""

import json
from typing import Any

LINEAR = ("mean", "position_mean", "ridge")  # reconstructors in closed form, from the weakest
# The ladder of whoever names none: networks by name, and controls with the networks that are trained on them.
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp-small": {"kind": "mlp", "widths": [64], "dropout": 0},
    "mlp-large": {"kind": "mlp", "widths": [512], "dropout": 0},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "invertible-mlp": {"kind": "invertible_mlp", "networks": "all"},
    "pca": {"kind": "pca"},
    "other-image": {"kind": "other_image"},
}


def canonical(spec) -> str:
    """One spelling for equal settings, whatever their order: JSON with sorted keys.

    Parameters: spec, of JSON values. Raises: TypeError where it holds anything else.
    """
    return json.dumps(spec, sort_keys=True)
