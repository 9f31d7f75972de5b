"""Layouts of images: which patches a token stands for, and where both lie."""

import numpy as np
import pytest
import xarray as xr

from lossmap.store.images import RAGGED, Images, is_ragged, layout_arrays
from lossmap.store.layouts import Layout, Shape, Span, ViewShape, one_view

SQUARE = one_view((4, 4), (2, 2))
# A whole view of 2 x 2 patches, then 1 x 2 tiles, of whose 2 x 4 patches the first and last column have no token; a
# learned line end follows each row.
PACKED = Shape(
    (ViewShape(2, 2), ViewShape(2, 2, "tile"), ViewShape(2, 2, "tile")),
    (Span(2, 2), Span(2, 2, first=1, tiles=(1, 2), left=1, newline=1)),
)
QUERIES = Shape((ViewShape(2, 3, extra=1),), (Span(5, 0),))


def test_blocks_of_a_merged_grid_are_its_squares():
    assert (SQUARE.patches, SQUARE.tokens) == (16, 4)
    tokens, patches = SQUARE.blocks
    assert tokens.tolist() == [0, 1, 2, 3]
    assert patches.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_tiles_lie_side_by_side_and_what_was_cut_off_has_no_token():
    assert (PACKED.patches, PACKED.tokens) == (12, 10)
    tokens, patches = PACKED.blocks
    assert tokens.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]  # 6 and 9 are line ends
    # Joined, the tiles are 4 5 | 8 9 over 6 7 | 10 11; the window holds its two middle columns.
    assert patches.ravel().tolist() == [0, 1, 2, 3, 5, 8, 7, 10]


def test_queries_stand_for_no_patch_and_a_class_token_has_no_place():
    assert (QUERIES.patches, QUERIES.tokens, QUERIES.starts) == (7, 5, [1])
    assert len(QUERIES.blocks.tokens) == 0
    layout = Layout(30, 20, QUERIES, ((0, 0, 30, 20),))
    assert np.isnan(layout.patch_boxes[0]).all()
    assert layout.patch_boxes[1].tolist() == [0, 0, 10, 10]
    assert layout.patch_boxes[6].tolist() == [20, 10, 30, 20]
    assert np.isnan(layout.token_boxes).all()


def test_boxes_of_tokens_are_those_of_their_patches():
    layout = Layout(40, 20, PACKED, ((0, 0, 40, 20), (0, 0, 20, 20), (20, 0, 40, 20)))
    boxes = layout.token_boxes
    assert boxes[0].tolist() == [0, 0, 20, 10]
    assert boxes[4].tolist() == [10, 0, 20, 10]
    assert boxes[5].tolist() == [20, 0, 30, 10]
    assert np.isnan(boxes[[6, 9]]).all()
    merged = Layout(8, 8, SQUARE, ((0, 0, 8, 8),))
    assert merged.token_boxes[1].tolist() == [4, 0, 8, 4]


def test_a_pixel_lies_in_a_patch_of_each_view_that_shows_it():
    layout = Layout(40, 20, PACKED, ((0, 0, 40, 20), (0, 0, 20, 20), (20, 0, 40, 20)))
    assert layout.patch_of_pixel(25, 12) == [3, 10]
    with pytest.raises(IndexError, match=r"pixel \(40, 0\) is outside the image of 40 x 20"):
        layout.patch_of_pixel(40, 0)


def test_one_view_knows_a_class_token_and_a_line_end():
    shape = one_view((2, 2), (2, 2), patches=5, tokens=5)
    assert (shape.patches, shape.tokens) == (5, 5)
    assert shape.blocks.tokens.tolist() == [0, 1, 2, 3]
    assert shape.blocks.patches.ravel().tolist() == [1, 2, 3, 4]
    assert one_view((2, 2), None, tokens=64).tokens == 64


LAYOUTS = [
    Layout(8, 8, SQUARE, ((0, 0, 8, 8),)),
    Layout(40, 20, PACKED, ((0, 0, 40, 20), (0, 0, 20, 20), (20, 0, 40, 20))),
    Layout(16, 8, SQUARE, ((0, 0, 16, 8),)),
    Layout(30, 20, QUERIES, ((0, -5, 30, 25),)),
]


@pytest.fixture
def ragged():
    patches, tokens = (sum(getattr(layout.shape, name) for layout in LAYOUTS) for name in ("patches", "tokens"))
    arrays = layout_arrays(LAYOUTS)
    variables = {name: (dimensions, arrays[name]) for name, dimensions in RAGGED.items() if name in arrays}
    variables["pre"] = RAGGED["pre"], np.arange(patches * 2, dtype="float32").reshape(-1, 2)
    variables["post"] = RAGGED["post"], np.arange(tokens * 3, dtype="float32").reshape(-1, 3)
    variables["size"] = ("image", "side"), arrays["size"]
    return xr.Dataset(variables, {"image_id": ("image", list("abcd"))})


def test_images_of_a_ragged_dataset_are_found(ragged):
    images = Images(ragged)
    assert is_ragged(ragged)
    assert (len(images), images.ragged) == (4, True)
    assert [images.layout(i) for i in range(4)] == LAYOUTS
    found = images.alike([3, 0, 1, 2])
    assert [(group.positions.tolist(), group.shape) for group in found] == [
        ([0], QUERIES),
        ([1, 3], SQUARE),
        ([2], PACKED),
    ]
    pre = ragged["pre"].values
    assert np.array_equal(images.read("pre", [2, 0]), np.stack([pre[28:44], pre[:16]]))
    assert np.array_equal(images.read("post", [1])[0], ragged["post"].values[4:14])
    with pytest.raises(ValueError, match="images of 2 shapes are asked for"):
        images.read("pre", [0, 1])


def test_images_that_are_all_alike_are_read_the_same_way():
    pre = np.random.default_rng(0).normal(size=(50, 16, 2)).astype("float32")
    dataset = xr.Dataset(
        {"pre": (("image", "patch", "feature"), pre), "post": (("image", "token", "feature_out"), pre[:, :4])},
        attrs={"pre_grid": [4, 4], "post_grid": [2, 2]},
    )
    images = Images(dataset)
    assert (images.ragged, images.shapes) == (False, [SQUARE])
    assert [group.positions.tolist() for group in images.alike([5, 3])] == [[0, 1]]
    assert np.array_equal(images.read("pre", [40, 3, 4, 3]), pre[[40, 3, 4, 3]])
    assert np.array_equal(images.read("post", range(7, 12)), pre[7:12, :4])
