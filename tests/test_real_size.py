"""Published models at real size, with random weights: views, tokens, memory and time of photographs.

`make test-real-size` alone runs this: it takes hours of a core, 8 GB of memory and 4 GB of disk, and writes
results/real-size.csv (docs/real-size.md).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from real_size.checkpoint import PUBLISHED, write_complete, write_partial
from sklearn.datasets import load_sample_image
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from lossmap.vlm.preprocessing import load_preprocessor

pytestmark = pytest.mark.real_size
ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results/real-size.csv"
# Width and height.
SIZES = [(96, 48), (400, 200), (600, 150), (333, 667), (640, 427), (300, 1200), (800, 600), (1920, 1080)]
PRECISION = "bfloat16"  # float32 takes a core more than twice as long
# How many photographs, from those with the fewest patches on, go through transformers' own model, too. Of the others,
# pixels alone are compared.
COMPARED = int(os.environ.get("REAL_SIZE_COMPARED", len(SIZES)))
ALIKE = 0.001  # a share of the spread, by root mean squares
COLUMNS = ["model", "checkpoint", "precision", "parameters"]
COLUMNS += ["opening_seconds", "opening_core_seconds", "opening_peak_gib"]
COLUMNS += ["width", "height", "patches", "tokens", "seconds", "core_seconds", "peak_gib", "difference", "foreign_rows"]


@pytest.fixture
def folder():
    """Gigabytes: not kept, as pytest's own are."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def photograph(number: int) -> Image.Image:
    """One of two photographs (scikit-learn's), cut and resized."""
    return ImageOps.fit(Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2])), SIZES[number])


@pytest.mark.parametrize("name", PUBLISHED)
def test_photographs_give_what_transformers_own_forward_gives(name, folder):
    photographs, out, partial, complete = (folder / part for part in ("photographs", "out", "partial", "complete"))
    for made in (photographs, out):
        made.mkdir()
    for i, (width, height) in enumerate(SIZES):
        photograph(i).save(photographs / f"{i}-{width}x{height}.png")
    write_partial(name, partial)
    figures = extracted(partial, photographs, out)
    write_complete(name, partial, complete)
    compare(name, partial, Whole(name, complete), out, figures)


def compare(name: str, checkpoint: Path, whole: "Whole", out: Path, figures: dict) -> None:
    """Compare each photograph's embeddings with transformers' own, those with the fewest patches first; record rows."""
    preprocessor = load_preprocessor(checkpoint, view="processor")
    embeddings = [
        {what: np.load(out / f"{i}-{width}x{height}-{what}.npy") for what in ("pre", "post")}
        for i, (width, height) in enumerate(SIZES)
    ]
    for rank, i in enumerate(sorted(range(len(SIZES)), key=lambda i: len(embeddings[i]["pre"]))):
        (width, height), pre, post = SIZES[i], embeddings[i]["pre"], embeddings[i]["post"]
        assert np.isfinite(post).all()
        pixels = preprocessor.normalise(preprocessor.prepare([photograph(i)]))
        own = whole.pixels(photograph(i))
        for what, values in pixels.items():
            torch.testing.assert_close(values, own[what].to(values.dtype), rtol=0, atol=1e-6)
        row = {"model": name, "width": width, "height": height, "patches": len(pre), "tokens": len(post)}
        row |= figures["photographs"][f"{i}-{width}x{height}"] | figures["opening"]
        if rank < COMPARED:
            # Of the same pixels: those that differ in the last digit of float32 may differ in bfloat16's.
            entering, wanted = whole.forward(pixels)
            assert post.shape == wanted.shape
            assert apart(np.roll(wanted, 1, axis=0), wanted) > 100 * ALIKE  # tokens in other places would be seen
            taps = np.split(pre, len(entering), axis=1)
            row["difference"] = apart(post, wanted)
            row["foreign_rows"] = max(share_of_foreign(*pair) for pair in zip(taps, entering, strict=True))
        record(row)
        assert row.get("difference", 0) < ALIKE
        assert row.get("foreign_rows", 0) == 0


def extracted(checkpoint: Path, photographs: Path, out: Path) -> dict:
    """What `real_size/extracting.py` tells."""
    command = [sys.executable, ROOT / "tests/real_size/extracting.py", checkpoint, photographs, out, PRECISION]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "figures.json").read_text())


class Whole:
    """transformers' own image processor and model, with all weights, and what enters its connectors."""

    def __init__(self, name: str, folder: Path):
        self.about = PUBLISHED[name]
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.model, info = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, PRECISION), output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.entering: dict[str, torch.Tensor] = {}
        for connector in self.about["connectors"]:
            self.model.model.get_submodule(connector).register_forward_pre_hook(
                lambda _, given, named, at=connector: self.entering.update({at: next(iter((*given, *named.values())))}),
                with_kwargs=True,
            )

    def pixels(self, image: Image.Image) -> dict[str, torch.Tensor]:
        nested = [[image]] if self.model.config.model_type.startswith("idefics") else [image]
        made = self.processor(nested, return_tensors="pt", **self.about.get("asked", {}))
        return {what: made[what] for what in made if what != "num_patches"}

    @torch.inference_mode()
    def forward(self, pixels: dict[str, torch.Tensor]) -> tuple[list[torch.Tensor], np.ndarray]:
        """What entered each connector, and the tokens (tokens, features), those of DeepStack side by side."""
        half = pixels | {"pixel_values": pixels["pixel_values"].to(self.model.dtype)}
        made = self.model.model.get_image_features(**half)
        outputs = [made.pooler_output, *(getattr(made, "deepstack_features", None) or ())]
        joined = [out if torch.is_tensor(out) else torch.cat(list(out)) for out in outputs]
        post = torch.cat([out.flatten(0, -2) for out in joined], dim=-1)
        return [self.entering[name] for name in self.about["connectors"]], post.float().numpy()


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the differences, as a share of the spread of wanted."""
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std())


def share_of_foreign(rows: np.ndarray, seen: torch.Tensor) -> float:
    """Share of rows (patches, features) that are, bit for bit, none of those which entered the connector, in whatever
    order and among whatever padding they did: InternVL's and the like of patches side by side."""
    known = {row.tobytes() for row in seen.float().numpy().reshape(-1, rows.shape[1])}
    return float(np.mean([row.tobytes() not in known for row in np.ascontiguousarray(rows)]))


def record(row: dict) -> None:
    """Write a photograph's row into the table, in place of that of an earlier run."""
    made = pd.DataFrame([{"checkpoint": PUBLISHED[row["model"]]["hub"], "precision": PRECISION, **row}])
    made = made.reindex(columns=COLUMNS)
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        same = (old[["model", "width", "height"]] == made.loc[0, ["model", "width", "height"]]).all(axis=1)
        made = pd.concat([old[~same], made])
    TABLE.parent.mkdir(exist_ok=True)
    made.to_csv(TABLE, index=False, float_format="%.4g")
