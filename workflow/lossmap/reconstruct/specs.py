"""How settings of connectors and reconstructors are named and spelled. Nothing is loaded."""

import json

LINEAR = ("mean", "position_mean", "ridge")  # reconstructors in closed form, from the weakest


def canonical(spec) -> str:
    """One spelling for equal settings, whatever their order: JSON with sorted keys.

    Parameters: spec, of JSON values. Raises: TypeError where it holds anything else.
    """
    return json.dumps(spec, sort_keys=True)
