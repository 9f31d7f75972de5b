"""Answer masks on patches: hand counts, a slow count pixel by pixel, the models' own pixels, every error."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lossmap.data.images import load_image, load_mask
from lossmap.errors import LossmapError
from lossmap.measures.coverage import patch_coverage, region_means
from lossmap.store import PartWriter, write_index
from lossmap.study.steps import measure_relevance
from lossmap.vlm.preprocessing import load_preprocessor

ZOO = Path(__file__).parents[1] / "workflow/zoo"
MODELS = {"llava": None, "idefics2": None, "qwen2_5_vl": 64}  # side of the square, of one that takes any


@pytest.fixture(scope="module")
def preprocessors():
    return {name: load_preprocessor(ZOO / name, image_size=side) for name, side in MODELS.items()}


def slow_coverage(mask, boxes):
    """Area of mask in every patch, summed over pixels one by one, as a share of the patch's area."""
    covered = np.zeros(boxes.shape[:2])
    for row, col in np.ndindex(covered.shape):
        left, top, right, bottom = boxes[row, col]
        area = 0.0
        for y, x in np.argwhere(mask):
            across = min(right, x + 1) - max(left, x)
            down = min(bottom, y + 1) - max(top, y)
            if across > 0 and down > 0:
                area += across * down
        covered[row, col] = area / ((right - left) * (bottom - top))
    return covered


def blob(width, height):
    """A mask with a straight and a ragged part."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 5 : height // 2, width // 3 : 2 * width // 3] = True
    return mask | (np.random.default_rng(width).random((height, width)) < 0.1)


def test_counted_by_hand():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:4] = True
    assert patch_coverage(mask, (0, 0, 6, 4), (2, 3)).tolist() == [[0.25, 0.5, 0], [0.25, 0.5, 0]]
    # Patches of 1.5 x 4 pixels, from half a pixel on: 0.5-2, 2-3.5, 3.5-5; the mask is half as high as they are.
    expected = [[1 / 3, 1 / 2, 1 / 6]]
    assert patch_coverage(mask, (0.5, 0, 5, 4), (1, 3)) == pytest.approx(np.array(expected))


def test_what_lies_outside_the_box_counts_for_nothing_and_padding_for_uncovered():
    mask = np.zeros((10, 20), dtype=bool)
    mask[:, :5] = True
    assert (patch_coverage(mask, (5, 0, 15, 10), (2, 2)) == 0).all()
    white = np.ones((10, 10), dtype=bool)
    # 5 pixels of padding on every side of 10 x 10, in 4 x 4 patches of 5: the middle four are the image.
    padded = patch_coverage(white, (-5, -5, 15, 15), (4, 4))
    assert padded.sum() == 4
    assert (padded[1:3, 1:3] == 1).all()


@pytest.mark.parametrize("box", [(0, 0, 31, 17), (2.3, 0, 19.7, 17), (-4.2, -1.5, 33, 20.25)])
def test_areas_add_up_and_complements_too(box):
    mask = blob(31, 17)
    covered = patch_coverage(mask, box, (3, 5))
    whole = patch_coverage(mask, box, (1, 1))[0, 0]
    assert covered.mean() == pytest.approx(whole)
    visible = patch_coverage(np.ones_like(mask), box, (3, 5))
    assert covered + patch_coverage(~mask, box, (3, 5)) == pytest.approx(visible)
    if box == (0, 0, 31, 17):
        assert whole == pytest.approx(mask.mean())


@pytest.mark.parametrize("size", [(45, 31), (31, 45), (33, 33)], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_every_models_patches_hold_the_area_that_a_count_of_pixels_finds(preprocessors, model, size):
    geometry = preprocessors[model].geometry(*size)
    assert (geometry.box != (0, 0, *size)) == (model == "llava" and size[0] != size[1])
    mask = blob(*size)
    covered = patch_coverage(mask, geometry.box, (geometry.rows, geometry.cols))
    assert covered == pytest.approx(slow_coverage(mask, geometry.boxes()), abs=1e-12)
    assert ((covered > 0) & (covered < 1)).any()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("model", MODELS)
def test_a_mask_lies_where_the_model_sees_its_object(preprocessors, model, orientation, tmp_path):
    """The image is its own mask, white on black; as the file of the image is turned, the mask is not."""
    upright = np.zeros((96, 150), dtype=np.uint8)
    upright[20:70, 40:110] = 255
    upright[60:90, 100:125] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(upright, turns)).save(tmp_path / "image.jpg", quality=98, exif=exif)
    Image.fromarray(upright).save(tmp_path / "mask.png")
    image, mask = load_image(tmp_path / "image.jpg"), load_mask(tmp_path / "mask.png")
    assert mask.shape == (image.height, image.width)
    preprocessor = preprocessors[model]
    rows, cols = preprocessor.grid
    pixels = preprocessor.prepare([image])["pixels"].numpy()[0].mean(2) / 255
    seen = pixels.reshape(rows, preprocessor.patch, cols, preprocessor.patch).mean((1, 3))
    covered = patch_coverage(mask, preprocessor.geometry(image.width, image.height).box, (rows, cols))
    assert abs(seen - covered).max() < 0.06  # resampling blurs edges by less than a pixel of 8
    assert np.corrcoef(seen.ravel(), covered.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("mask", "box", "grid", "message"),
    [
        (np.ones((4, 4)), (0, 0, 4, 4), (2, 2), "mask: float64 of shape .4, 4.; wanted bool"),
        (np.ones(4, bool), (0, 0, 4, 4), (2, 2), "mask: bool of shape .4,.; wanted bool of 2 dimensions"),
        (np.ones((4, 4), bool), (0, 0, 0, 4), (2, 2), "box: .0.0, 0.0, 0.0, 4.0.; wanted left < right"),
        (np.ones((4, 4), bool), (0, 0, np.nan, 4), (2, 2), "box: .* all finite"),
        (np.ones((4, 4), bool), (0, 0, 4, 4), (0, 2), "grid: 0 x 2 patches; wanted at least one"),
    ],
)
def test_what_cannot_be_laid_on_patches_is_named(mask, box, grid, message):
    with pytest.raises(ValueError, match=message):
        patch_coverage(mask, box, grid)


def test_means_are_of_each_items_own_region():
    values = np.arange(12.0).reshape(3, 2, 2)
    region = np.array([[[1, 0], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]], dtype=bool)
    means = region_means(values, region)
    assert means[:2].tolist() == [1.5, 5.5]
    assert np.isnan(means[2])
    inside, outside = region.sum((1, 2)), (~region).sum((1, 2))
    whole = np.nan_to_num(means) * inside + np.nan_to_num(region_means(values, ~region)) * outside
    assert whole == pytest.approx(values.sum((1, 2)))


def test_means_of_what_is_not_finite_or_of_other_shapes_are_refused():
    values = np.ones((3, 4))
    values[2, 1] = np.inf
    with pytest.raises(ValueError, match="values: 1 of 3 items are not finite; the first is item 2"):
        region_means(values, np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="region: bool of shape .3, 3.; wanted bool of shape .3, 4."):
        region_means(values, np.ones((3, 3), bool))


def save_store(folder, ids, sizes, geometries):
    """A store that holds nothing but where the patches lie."""
    n, rows, cols = len(ids), geometries[0].rows, geometries[0].cols
    how = {"pre_grid": [rows, cols], "post_grid": None, "key": {}}
    writer = PartWriter(folder / "model/part.zarr", ids, (rows * cols, 2), (1, 2), "float16", how)
    blank = {"pre": np.zeros((n, rows * cols, 2)), "post": np.zeros((n, 1, 2))}
    means = {"pre_mean": np.zeros((n, 2)), "post_mean": np.zeros((n, 2))}
    writer.append(**blank, **means, box=np.array([g.box for g in geometries]), size=np.array(sizes))
    writer.close()
    write_index([folder / "model/part.zarr"], folder / "model.json")
    return folder / "model.json"


@pytest.fixture
def asked(tmp_path, preprocessors):
    """Three questions, in another order than their images: one mask within the crop, one beside it, one black."""
    sizes = [(60, 40), (40, 60), (40, 40)]
    geometries = [preprocessors["llava"].geometry(*size) for size in sizes]
    index = save_store(tmp_path, ["a", "b", "c"], sizes, geometries)
    masks = {"a": blob(*sizes[0]), "b": np.zeros((60, 40), bool), "c": np.zeros((40, 40), bool)}
    masks["b"][:5] = True  # LLaVA crops rows 10 to 49
    for name, mask in masks.items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
    questions = pd.DataFrame({"question_id": ["q2", "q0", "q1"], "image_id": ["c", "a", "b"]})
    questions["mask_path"] = [str(tmp_path / f"{name}.png") for name in questions["image_id"]]
    return questions, index, masks, dict(zip("abc", geometries, strict=True))


def relevance_of(tmp_path, questions, index):
    questions.to_parquet(tmp_path / "questions.parquet")
    measure_relevance.run(questions=tmp_path / "questions.parquet", embeddings=index, relevance=tmp_path / "out")
    return pd.read_parquet(tmp_path / "out")


def test_the_step_keeps_every_question_and_its_masks_area(asked, tmp_path):
    questions, index, masks, geometries = asked
    found = relevance_of(tmp_path, questions, index)
    assert found["question_id"].tolist() == ["q2", "q0", "q1"]
    for row in found.itertuples():
        slow = slow_coverage(masks[row.image_id], geometries[row.image_id].boxes())
        assert row.covered == pytest.approx(slow.ravel(), abs=2e-6)
        assert row.mask_area == pytest.approx(masks[row.image_id].mean())
    nothing = found.set_index("question_id").loc[["q2", "q1"]]
    assert [covered.sum() for covered in nothing["covered"]] == [0, 0]
    assert nothing["mask_area"].tolist() == [0, 5 / 60]


def test_a_mask_with_exif_is_turned_upright(asked, tmp_path):
    questions, index, masks, geometries = asked
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(masks["a"]).astype(np.uint8) * 255)
    turned.save(tmp_path / "a.png", exif=exif)
    found = relevance_of(tmp_path, questions, index).set_index("image_id")
    assert found.loc["a", "covered"] == pytest.approx(
        slow_coverage(masks["a"], geometries["a"].boxes()).ravel(), abs=2e-6
    )


def test_all_unusable_masks_are_named_at_once(asked, tmp_path):
    questions, index, _, _ = asked
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "a.png").unlink()
    questions.loc[0, "mask_path"] = None
    questions = pd.concat([questions, pd.DataFrame({"question_id": ["q9"], "image_id": ["z"], "mask_path": ["m"]})])
    with pytest.raises(LossmapError, match="4 of 4 questions have no answer mask") as caught:
        relevance_of(tmp_path, questions, index)
    assert "question q2: has no answer mask" in str(caught.value)
    assert "a.png: does not exist" in str(caught.value)
    assert "b.png: is 9 x 7, its image 40 x 60" in str(caught.value)
    assert "question q9: its image z is not in" in str(caught.value)
