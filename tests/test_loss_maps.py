"""Loss maps show the images of highest, median and lowest loss, each patch where it lies."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from example_tables import GRID, made_up_losses, make_study
from specs import PLAIN_FIGURES

from lossmap.errors import LossmapError
from lossmap.figures.style import use_style
from lossmap.study.exhibits import loss_maps
from lossmap.study.steps import make_exhibit


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


SETTINGS = {"dataset": "made-up", "models": ["toy"]}


def files(folder, n):
    """Inputs of the exhibit, of a made-up study of n images."""
    paths = make_study(folder, "images", n=n)
    return {name: [paths[name]] for name in ("images", "patch_loss", "embeddings")} | {
        "written_with": [paths["images"]]
    }


def make(folder, given):
    inputs = [f"{name}={path}" for name, paths in given.items() for path in paths]
    make_exhibit.run("loss_maps-made-up", results=folder, inputs=inputs, settings=SETTINGS, spec=PLAIN_FIGURES)
    return folder / "tables/loss_maps-made-up.csv", folder / "tables/loss_maps-made-up.rst"


def test_loss_maps_show_highest_median_and_lowest_loss_of_all_images(tmp_path):
    given = files(tmp_path, 11)
    error = made_up_losses(11)["squared_error"][1]  # of the best
    loss = error.mean(axis=1)
    ranked = np.argsort(-loss)[[0, 5, 10]]
    settings = loss_maps.Settings(**SETTINGS)
    table = loss_maps.table(settings, **given)
    assert table["which"].unique().tolist() == ["highest", "median", "lowest"]
    for i, (_, rows) in zip(ranked, table.groupby("which", sort=False), strict=True):
        maps = rows.pivot(index="patch_row", columns="patch_column", values="squared_error").to_numpy()
        np.testing.assert_allclose(maps, error[i].reshape(GRID), rtol=1e-6)
        assert rows["image_id"].unique().tolist() == [f"image-{i}"]
        assert rows["loss"].unique() == pytest.approx(loss[i])
    assert table["rank"].unique().tolist() == [1, 6, 11]
    each = [
        f"{name} {loss[i]:.3f} (image image-{i})"
        for name, i in zip(("highest", "median", "lowest"), ranked, strict=True)
    ]
    assert loss_maps.findings(table, settings) == [f"- **toy**, 11 images, by mlp: {'; '.join(each)}."]
    figure = loss_maps.draw(table, settings, **given)["loss_maps-made-up-toy"]
    maps = [image for axes in figure.axes for image in axes.images if image.get_array().shape == GRID]
    for drawn, i in zip(maps, ranked, strict=True):
        np.testing.assert_allclose(drawn.get_array(), error[i].reshape(GRID), rtol=1e-6)
    assert len({(drawn.norm.vmin, drawn.norm.vmax) for drawn in maps}) == 1
    text = " ".join(" ".join(text.get_text() for axes in figure.axes for text in axes.texts).split())
    assert "toy, median loss rank 6 of 11 images" in text
    assert f"Patches: {error[ranked[0]].min():.3f} to {error[ranked[0]].max():.3f}" in text


def test_loss_maps_are_the_same_files_twice(tmp_path):
    given = files(tmp_path, 5)
    for name in ("first", "second"):
        make(tmp_path / name, given)
    names = ["figures/loss_maps-made-up-toy.pdf", "figures/loss_maps-made-up-toy.png"]
    for name in [*names, "tables/loss_maps-made-up.csv", "tables/loss_maps-made-up.rst"]:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("n", [1, 2])
def test_loss_maps_of_one_or_two_images_repeat_none(tmp_path, n):
    csv, rst = make(tmp_path, files(tmp_path, n))
    assert rst.read_text().count("(image") == n
    assert len(pd.read_csv(csv)) == n * GRID[0] * GRID[1]


def test_a_changed_image_has_no_map(tmp_path):
    given = files(tmp_path, 3)
    for image in tmp_path.glob("?.png"):
        image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(LossmapError, match="has changed since the manifest was made"):
        make(tmp_path, given)
