"""Answers from stored embeddings against the ordinary path: processor, vision tower and model on image files.

Run: python tests/bench/bench_generation.py [--quick]. Both sides have their model loaded, ask the same questions about
the same miniature VizWiz images in batches of 32, and decode their answers, which are compared. Ours also reads the
store (float16) and writes its table; the other decodes and resizes JPEG files, as it must.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText

from lossmap.data.formats import read
from lossmap.miniature.datasets import write_miniature
from lossmap.study.predictions import open_asked, predict, say
from lossmap.study.steps import extract, index_embeddings
from lossmap.vlm.processors import load_processor
from lossmap.vlm.prompts import answer_prompt

ROOT = Path(__file__).parents[2]
MODELS = {"llava": None, "idefics2": None, "qwen2_5_vl": 64}  # side of the square, of one that takes any
BATCH, TOKENS, SIDE = 32, 32, 64


def ordinary_path(model, processor, paths: list[str], prompts: list[str]) -> list[str]:
    said, squares = [], model.config.model_type != "llava"
    for i in range(0, len(paths), BATCH):
        images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths[i : i + BATCH]]
        if squares:
            images = [image.resize((SIDE, SIDE), processor.image_processor.resample) for image in images]
        turns = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            for prompt in prompts[i : i + BATCH]
        ]
        texts = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        inputs = processor(images=[[image] for image in images], text=texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, repetition_penalty=1.0)
        said += processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    n, repeats = (128, 3) if parser.parse_args().quick else (400, 7)
    threads = torch.get_num_threads()
    print(f"{n} questions, batch {BATCH}, {threads} threads, median of {repeats} paired repeats [min, max]")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_miniature(folder, 2025, {"vizwiz": n})
        data = folder / "vizwiz"
        entry = {"format": "vizwiz_grounding", "images": f"{data}/val", "masks": f"{data}/binary_masks_png/val"}
        manifest = read({**entry, "annotations": f"{data}/val_grounding.json"}, workers=threads)
        manifest.images.to_parquet(folder / "images.parquet")
        path_of = manifest.images.set_index("image_id")["path"]
        asked = [
            {"question_id": row.question_id, "image_id": row.image_id, "prompt": answer_prompt(row.question)}
            for row in manifest.questions.itertuples()
        ]
        paths = [path_of[entry["image_id"]] for entry in asked]
        prompts = [entry["prompt"] for entry in asked]
        for name, side in MODELS.items():
            checkpoint = str(ROOT / "workflow/zoo" / name)
            spec = {"checkpoint": checkpoint, "revision": None, "image_size": side, "compute_dtype": "float32"}
            part, index, table = (folder / f"{name}{ending}" for ending in (".zarr", ".json", ".parquet"))
            how = {**spec, "batch_size": BATCH, "dtype": "float16"}
            extract.run(images=folder / "images.parquet", part=part, first=0, stop=n, spec=how, threads=threads)
            index_embeddings.run(parts=[part], index=index)
            own = open_asked(index, spec, "answer_questions", threads)
            model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
            processor = load_processor(checkpoint)
            processor.tokenizer.padding_side = "left"
            ordinary_path(model, processor, paths[:BATCH], prompts[:BATCH])
            ratios, rates = [], []
            for _ in range(repeats):
                start = time.perf_counter()
                expected = ordinary_path(model, processor, paths, prompts)
                ordinary = time.perf_counter() - start
                start = time.perf_counter()
                predict("answers", asked, own, say(own.language, TOKENS), table, BATCH)
                ours = time.perf_counter() - start
                ratios.append(ordinary / ours)
                rates.append(n / ours)
            same = sum(a == b for a, b in zip(pd.read_parquet(table)["text"], expected, strict=True))
            spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
            print(f"{name:<12} {statistics.median(ratios):6.2f} times the ordinary path's questions/s {spread}")
            print(f"{name:<12} {statistics.median(rates):6.0f} questions/s; {same} of {n} texts the same", flush=True)


if __name__ == "__main__":
    main()
