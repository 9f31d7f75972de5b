"""Extraction against a bare loop of vision tower and connector, and against hooking text generation.

Run: python tests/bench/bench_extraction.py [--quick]. The images are JPEG files of the miniature COCO training set.
The bare loop has decoded images in memory, which it resizes and embeds; nothing is read, checked or written. Without
the resizing, too, it is the limit of any extraction.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForImageTextToText

from lossmap.data.formats import read
from lossmap.data.images import load_image
from lossmap.miniature.datasets import write_miniature
from lossmap.study.steps import extract
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.processors import load_processor

ROOT = Path(__file__).parents[2]
MODELS = {"llava": None, "idefics2": None, "qwen2_5_vl": 64}  # side of the square, of one that takes any
BATCH = 32


def resized(vision, images) -> dict:
    """What the vision side takes of a batch of decoded images."""
    return vision.preprocessor.normalise(vision.preprocessor.prepare(images), vision.device, vision.dtype)


def bare_loop(vision, batches) -> float:
    """Seconds for batches of decoded images."""
    start = time.perf_counter()
    for images in batches:
        vision.embed(resized(vision, images))
    return time.perf_counter() - start


def limit(vision, inputs) -> float:
    """Seconds for batches that are resized already."""
    start = time.perf_counter()
    for batch in inputs:
        vision.embed(batch)
    return time.perf_counter() - start


def hooked_generation(model, processor, images) -> float:
    """What the paper's released code does: hook the connector while 30 tokens are generated, two images at a time."""
    kept, target = [], model.model.multi_modal_projector if hasattr(model.model, "multi_modal_projector") else None
    target = target or getattr(model.model, "connector", None) or model.model.visual.merger
    hook = target.register_forward_hook(lambda module, inputs, output: kept.append((inputs, output)))
    content = [{"type": "image"}, {"type": "text", "text": "Describe this image using one simple sentence."}]
    question = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    start = time.perf_counter()
    for i in range(0, len(images), 2):
        pair = images[i : i + 2]
        nested = [[image] for image in pair] if model.config.model_type == "idefics2" else pair
        inputs = processor(images=nested, text=[text] * len(pair), padding=True, return_tensors="pt")
        with torch.inference_mode():
            # Trained models stop early; the released code's models talk on to the limit.
            model.generate(**inputs, max_new_tokens=30, min_new_tokens=30, do_sample=False)
    hook.remove()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    quick = parser.parse_args().quick
    n, repeats = (512, 3) if quick else (2000, 5)
    threads = torch.get_num_threads()
    print(f"{n} images, batch {BATCH}, {threads} threads, median of {repeats} paired repeats [min, max]")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_miniature(folder, 2025, {"coco-train": n})
        entry = {"format": "coco", "images": f"{folder}/coco-train/train2017"}
        manifest = read(
            {**entry, "annotations": f"{folder}/coco-train/annotations/captions_train2017.json"}, workers=threads
        )
        manifest.images.to_parquet(folder / "images.parquet")
        paths = pd.read_parquet(folder / "images.parquet")["path"].tolist()
        for name, side in MODELS.items():
            checkpoint = str(ROOT / "workflow/zoo" / name)
            spec = {"checkpoint": checkpoint, "revision": None, "image_size": side, "batch_size": BATCH}
            spec |= {"dtype": "float16", "compute_dtype": "float32", "store_post": True}
            vision = load_vision_side(checkpoint, image_size=side)
            images = [load_image(path) for path in paths]
            batches = [images[i : i + BATCH] for i in range(0, n, BATCH)]
            inputs = [resized(vision, batch) for batch in batches]
            few = images[:32]
            model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
            processor = load_processor(checkpoint)
            processor.tokenizer.padding_side = "left"
            bare_loop(vision, batches[:4])
            to_loop, to_limit, to_hook, rates = [], [], [], []
            for repeat in range(repeats):
                loop, least = bare_loop(vision, batches), limit(vision, inputs)
                start = time.perf_counter()
                part = folder / f"{name}-{repeat}.zarr"
                extract.run(images=folder / "images.parquet", part=part, first=0, stop=n, spec=spec, threads=threads)
                own = time.perf_counter() - start
                hooked = hooked_generation(model, processor, few) / len(few) * n
                to_loop.append(loop / own)
                to_limit.append(least / own)
                to_hook.append(hooked / own)
                rates.append(n / own)
            for what, values in (
                ("of the bare loop's images/s", to_loop),
                ("of those with nothing to resize either", to_limit),
                ("times hooking generate()", to_hook),
            ):
                spread = f"[{min(values):.2f}, {max(values):.2f}]"
                print(f"{name:<12} {statistics.median(values):6.2f} {what} {spread}", flush=True)
            print(f"{name:<12} {statistics.median(rates):6.0f} images/s, model loading and writing counted", flush=True)


if __name__ == "__main__":
    main()
