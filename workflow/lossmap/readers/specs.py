"""What studies say of readers. Nothing heavy: the Snakefile imports it."""

from typing import Literal, get_args

# A connector that learns nothing, see `controls.control_tokens`.
ControlKind = Literal["pooling", "random_tokens"]
CONTROLS: tuple[str, ...] = get_args(ControlKind)
# A ladder of capacities, weakest first: what `network.Reader` takes.
NETWORKS = {"linear": {"blocks": 0}, "one-block": {"blocks": 1}, "two-blocks": {"blocks": 2}}
