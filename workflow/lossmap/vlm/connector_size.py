"""How large a model's connector is, from its configuration alone: no weights are read or made."""

from pathlib import Path
from typing import cast

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES, read_family
from lossmap.vlm.receives import ALL


def connector_parameters(config: PreTrainedConfig | str | Path, receives: str = ALL) -> int:
    """Number of parameters of a model's connector; of a DeepStack model, of all its connectors.

    Parameters: config, a model's configuration or the folder of its checkpoint (of which config.json alone is read);
        receives, "sequence" for the one connector at whose output the image's tokens begin.
    Raises: LossmapError if the folder has no readable config.json, or the model is of no known family.
    """
    if not isinstance(config, PreTrainedConfig):
        read_family(Path(config))
        config = cast(
            PreTrainedConfig, AutoConfig.from_pretrained(config, local_files_only=True, trust_remote_code=False)
        )
    if config.model_type not in FAMILIES:
        raise LossmapError(f"{config.model_type}: no such family is known. Known families: {', '.join(FAMILIES)}.")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    family = FAMILIES[config.model_type]
    names = (family.connector, *family.after, *family.further(config, receives))
    inside = tuple(f"{name}." for name in names)
    return sum(values.numel() for name, values in model.named_parameters() if f"{name}.".startswith(inside))
