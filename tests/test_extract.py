"""Extraction: from image files to a store, or one error that names the image."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_disk import may_mount, small_disk
from specs import checked
from tiny_models import save_tiny
from transformers import CLIPImageProcessorPil

from lossmap.__main__ import main
from lossmap.data.formats import read
from lossmap.errors import LossmapError
from lossmap.store import open_store
from lossmap.study.products import family_key, product_version
from lossmap.study.steps import extract, index_embeddings
from lossmap.vlm.stored import open_embeddings

N = 7


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A tiny LLaVA with random weights, seven photographs of different sizes and their manifest."""
    folder = tmp_path_factory.mktemp("material")
    model = save_tiny("llava", folder / "model")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 255, (40 + 9 * i, 90 - 7 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{i}.png")
    manifest = read({"format": "image_folder", "images": str(folder / "photos")})
    manifest.images.to_parquet(folder / "images.parquet")
    return folder, model


def spec(folder, **changes):
    settings = {"checkpoint": str(folder / "model"), "revision": None, "image_size": None}
    settings |= {"batch_size": 3, "dtype": "float32", "compute_dtype": "float32", "store_post": True}
    return settings | changes


def extracted(folder, tmp_path, first=0, stop=N, threads=1, name="part", **changes):
    part = tmp_path / f"{name}-{first}.zarr"
    extract.run(
        images=folder / "images.parquet",
        part=part,
        first=first,
        stop=stop,
        spec=checked("extract", spec(folder, **changes)),
        threads=threads,
    )
    return part


def test_the_store_holds_what_the_whole_model_computes(material, tmp_path):
    """Against the ordinary path, one image at a time: image processor, full model, its own hidden states."""
    folder, model = material
    index_embeddings.run(parts=[extracted(folder, tmp_path)], index=tmp_path / "m.json")
    store = open_store(tmp_path / "m.json")
    processor = CLIPImageProcessorPil.from_pretrained(folder / "model")
    for row, image_id in enumerate(store["image_id"].values):
        pixels = processor(Image.open(folder / f"photos/{image_id}"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            tower = model.model.vision_tower(pixels, output_hidden_states=True)
            post = model.model.get_image_features(pixel_values=pixels).pooler_output[0]
        pre = tower.hidden_states[-2][0, 1:]
        assert np.allclose(store["pre"][row].values, pre.numpy(), atol=1e-4)
        assert np.allclose(store["post"][row].values, post.numpy(), atol=1e-4)
        assert np.allclose(store["pre_mean"][row].values, pre.mean(0).numpy(), atol=1e-4)
        with Image.open(folder / f"photos/{image_id}") as image:
            assert store["size"][row].values.tolist() == list(image.size)


def test_a_part_states_its_key_and_who_made_it(material, tmp_path):
    folder, _ = material
    part = extracted(folder, tmp_path)
    key = json.loads((part / "zarr.json").read_text())["attributes"]["key"]
    assert key["product"] == "embeddings"
    assert key["version"] == product_version("embeddings")
    assert key["family"] == family_key("embeddings", "llava")
    assert spec(folder).items() <= key.items()
    assert {"digest", "connector_digest", "model_type"} <= key.keys()
    made = json.loads((part / "provenance.json").read_text())
    assert set(made) == {"code", "commit", "torch", "transformers", "device"}
    assert made["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def as_before(part):
    """A part as Lossmap wrote it before there were keys: all in one, with code and versions."""
    path = part / "zarr.json"
    content = json.loads(path.read_text())
    made = json.loads((part / "provenance.json").read_text())
    (part / "provenance.json").unlink()
    key = content["attributes"].pop("key")
    for name in ("product", "version", "family"):
        del key[name]
    del made["commit"]
    content["attributes"]["provenance"] = {**key, **made}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def test_a_store_of_before_there_were_keys_is_read(material, tmp_path, capsys):
    folder, _ = material
    parts = [extracted(folder, tmp_path, first, stop, store_post=False) for first, stop in ((0, 3), (3, N))]
    index_embeddings.run(parts=parts, index=tmp_path / "now.json")
    for part in parts:
        as_before(part)
    index = tmp_path / "before.json"
    index_embeddings.run(parts=parts, index=index)
    content = json.loads(index.read_text())
    # Its index had it all in one, too.
    content["provenance"] = content.pop("key") | {"code": "c", "device": "cpu", "torch": "2", "transformers": "5"}
    index.write_text(json.dumps(content))
    store = open_embeddings(index)
    assert store.attrs["key"]["checkpoint"] == str(folder / "model")
    assert store["post"].values.shape[0] == N
    assert main(["verify", str(index)]) == 0
    # It is never mixed with parts of today, which say more.
    new = extracted(folder, tmp_path, 3, N, name="new", store_post=False)
    with pytest.raises(LossmapError, match="key: family, key: product, key: version differ. Delete the older"):
        index_embeddings.run(parts=[parts[0], new], index=tmp_path / "mixed.json")


def test_the_box_is_the_centre_crop(material, tmp_path):
    folder, _ = material
    index_embeddings.run(parts=[extracted(folder, tmp_path)], index=tmp_path / "m.json")
    store = open_store(tmp_path / "m.json")
    for (width, height), (left, top, right, bottom) in zip(store["size"].values, store["box"].values, strict=True):
        short, pixel = min(width, height), max(width, height) / 32
        assert abs((right - left) - short) <= pixel
        assert abs((bottom - top) - short) <= pixel
        assert abs((left + right) / 2 - width / 2) <= pixel
        assert abs((top + bottom) / 2 - height / 2) <= pixel


def test_parts_and_threads_change_nothing(material, tmp_path):
    folder, _ = material
    parts = [extracted(folder, tmp_path, 0, 3), extracted(folder, tmp_path, 3, N, threads=2)]
    index_embeddings.run(parts=parts, index=tmp_path / "m.json")
    index_embeddings.run(parts=[extracted(folder, tmp_path, name="whole")], index=tmp_path / "w.json")
    torch.set_num_threads(1)
    split, whole = open_store(tmp_path / "m.json"), open_store(tmp_path / "w.json")
    assert (split["image_id"] == whole["image_id"]).all()
    assert np.allclose(split["post"].values, whole["post"].values, atol=1e-5)
    again = extracted(folder, tmp_path, name="again", threads=3)
    digests = [(part / "zarr.json").read_bytes() for part in (tmp_path / "whole-0.zarr", again)]
    assert digests[0] == digests[1]  # the same batches on more threads: the same bytes
    assert split.attrs["key"]["digest"] == whole.attrs["key"]["digest"]


def test_half_precision_is_the_rounded_value(material, tmp_path):
    folder, _ = material
    index_embeddings.run(parts=[extracted(folder, tmp_path)], index=tmp_path / "m.json")
    index_embeddings.run(parts=[extracted(folder, tmp_path, name="half", dtype="float16")], index=tmp_path / "h.json")
    full, half = open_store(tmp_path / "m.json"), open_store(tmp_path / "h.json")
    assert (half["pre"].values == full["pre"].values.astype("float16")).all()
    assert (half["pre_mean"].values == full["pre_mean"].values).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_changed_since_the_manifest_is_named(material, tmp_path, threads):
    folder, _ = material
    path = folder / "photos/4.png"
    content = path.read_bytes()
    Image.new("RGB", (50, 50)).save(path)
    try:
        with pytest.raises(LossmapError, match=r"photos/4\.png") as caught:
            extracted(folder, tmp_path, threads=threads)
    finally:
        path.write_bytes(content)
    assert "Traceback" not in str(caught.value)


def test_an_image_lost_since_the_manifest_is_named(material, tmp_path):
    folder, _ = material
    path = folder / "photos/5.png"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(LossmapError, match=r"photos/5\.png"):
            extracted(folder, tmp_path)
    finally:
        path.write_bytes(content)


def test_infinite_weights_are_found_and_the_image_named(material, tmp_path):
    folder, _ = material
    rows = pd.read_parquet(folder / "images.parquet")
    model = save_tiny("llava", tmp_path / "broken")
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.bias[0] = float("inf")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(LossmapError, match=f"post of image {rows['image_id'][0]} is not finite"):
        extracted(folder, tmp_path, checkpoint=str(tmp_path / "broken"))


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
def test_a_full_disk_is_named(material, tmp_path, capfd):
    folder, _ = material
    arguments = ["--images", folder / "images.parquet", "--part", tmp_path / "disk/p.zarr", "--first", 0, "--stop", N]
    arguments += ["--spec", json.dumps(spec(folder))]
    with small_disk(tmp_path / "disk", 64):
        assert main(["extract", *map(str, arguments)]) == 1
    assert "error: the disk is full" in capfd.readouterr().err
