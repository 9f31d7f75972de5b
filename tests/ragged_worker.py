"""Trainings on ragged embeddings by however many processes were started: python ragged_worker.py <file of errors>."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from ragged_data import EACH, LATENTS, TILED, TILED_LATENTS, latents, lossy, mixed

from lossmap.reconstruct.learning import TrainingSettings, train_network
from lossmap.reconstruct.linear import fit_linear_decoders
from lossmap.reconstruct.measuring import measure_statistics
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.split import split_images

NETWORKS = (
    {"kind": "mlp", "widths": [16], "dropout": 0.0},
    {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
)
SETTINGS = TrainingSettings(batch=8, epochs=4, learning_rate=0.01, accumulate=2)

if __name__ == "__main__":
    torch.set_num_threads(1)
    accelerator, errors = Accelerator(cpu=True), []
    split = split_images(90, 0.2, [100], 0)
    for store in (lossy(mixed([TILED, EACH], 90)), latents(mixed([LATENTS, TILED_LATENTS], 90))):
        (statistics,) = measure_statistics(store, {"it": {"kind": "own"}}, 0, "digest").values()
        pairs = pairs_of(store, statistics)
        ridge = next(module for _, module, told in fit_linear_decoders(pairs, split) if told["kind"] == "ridge")
        for network in NETWORKS:
            done = train_network(pairs, split, 100, network, ridge, 0, SETTINGS, accelerator).training
            errors.append([row["held_out_loss"] for row in done.history])
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(errors))
