"""Figures on geometry show what their tables hold; queries are chosen by rule."""

from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image
from test_geometry_steps import PRE, store

from lossmap.data.formats import read
from lossmap.figures import galleries as drawing
from lossmap.figures.galleries import Row, gallery
from lossmap.figures.margins import KINDS, closeness_by_k, fate_of_neighbours
from lossmap.figures.probe import Probed, probe_maps
from lossmap.figures.procrustes import alignment_planes
from lossmap.figures.random_projection import overlap_by_dimension
from lossmap.figures.style import KEPT, LOST, legends_below, save, use_style
from lossmap.measures.ranking import plain_ranking
from lossmap.store.layouts import Layout, one_view
from lossmap.study.exhibits import figure6, galleries, margins, probe, random_projection
from lossmap.study.long_tables import wide
from lossmap.study.neighbour_lists import NeighbourLists, write_lists

rng = np.random.default_rng(29)


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def drawn(exhibit, tmp_path, *given, **files_of):
    """Draw an exhibit twice: both files are there, and the same bytes each time."""
    files = []
    for i in range(2):
        pdf, png = tmp_path / f"{i}.pdf", tmp_path / f"{i}.png"
        save(exhibit.draw(*given, **files_of), pdf, png)
        files.append((pdf.read_bytes(), png.read_bytes()))
    assert files[0] == files[1]
    return Image.open(tmp_path / "0.png").size


FATES = pd.DataFrame(
    [
        {"model": model, "k": k, "preserved": kept, "near_ties": 0.75 * (1 - kept), "moved": 0.25 * (1 - kept)}
        for model, kept in (("first", 0.2), ("second", 0.6))
        for k in (5, 10)
    ]
)


def test_the_fates_of_neighbours_add_up():
    _, axes = plt.subplots()
    fate_of_neighbours(axes, FATES)
    heights = {}
    for bar in axes.patches:
        heights.setdefault(round(bar.get_x(), 6), []).append((bar.get_height(), to_hex(bar.get_facecolor())))
    assert len(heights) == 4
    for parts in heights.values():
        assert sum(height for height, _ in parts) == pytest.approx(1)
        assert [colour for _, colour in parts] == [colour.lower() for colour in KINDS.values()]
    first = heights[min(heights)]
    assert [height for height, _ in first] == pytest.approx([0.2, 0.6, 0.2])
    assert len({bar.get_hatch() for bar in axes.patches}) == 3  # not by colour alone
    assert [label.get_text() for label in axes.get_xticklabels()] == ["first", "second"]


def test_closeness_is_drawn_with_its_interval_and_chance():
    table = pd.DataFrame({"model": "m", "k": [10, 50], "closeness": [0.8, 0.5]})
    table = table.assign(closeness_low=[0.7, 0.4], closeness_high=[0.9, 0.6])
    _, axes = plt.subplots()
    closeness_by_k(axes, table)
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines["m"]) == [0.8, 0.5]
    assert list(lines["random images"]) == [0, 0]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.4)


def projections():
    rows = [
        {"dataset": "d", "model": model, "purpose": "width", "k": 2, "dimension": m, "overlap": m / 10}
        for model in ("first", "second")
        for m in (2, 4, 6)
    ]
    return pd.DataFrame(rows).assign(
        overlap_low=lambda table: table["overlap"] - 0.1, overlap_high=lambda table: table["overlap"] + 0.1
    )


def test_a_connector_stands_at_its_width():
    _, axes = plt.subplots()
    overlap_by_dimension(axes, projections(), {"first": 0.33, "second": 0.44})
    marks = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert marks["first: connector"] == (6, 0.33)
    assert marks["second: connector"] == (6, 0.44)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["first"] == pytest.approx([0.2, 0.4, 0.6])
    order = [label for _, label in zip(*axes.get_legend_handles_labels(), strict=True)]
    assert order == ["first", "second", "first: connector", "second: connector"]


@pytest.mark.parametrize("height", [1.5, 3, 6])
def test_legends_below_panels_stay_clear_of_the_axis(height):
    figure, panels = plt.subplots(1, 2, figsize=(7.2, height))
    for panel in panels:
        overlap_by_dimension(panel, projections(), {"first": 0.33, "second": 0.44})
    legends_below(panels)
    figure.tight_layout()
    figure.draw_without_rendering()
    for panel in panels:
        legend, axis = panel.get_legend().get_window_extent(), panel.xaxis.get_tightbbox()
        assert legend.y1 < axis.y0
        assert axis.y0 - legend.y1 < 20  # pixels: near enough to belong to it


def test_planes_show_every_image_with_one_colour():
    table = pd.DataFrame(
        rng.normal(size=(50, 6)), columns=[f"{s}_{j}" for s in ("pre", "post", "aligned") for j in (1, 2)]
    )
    _, axes = plt.subplots(1, 3)
    alignment_planes(list(axes), table)
    for panel, side in zip(axes, ("pre", "post", "aligned"), strict=True):
        dots = panel.collections[-1]
        np.testing.assert_allclose(dots.get_offsets(), table[[f"{side}_1", f"{side}_2"]])
        np.testing.assert_array_equal(dots.get_array(), table["pre_1"].rank())
    assert len(axes[2].lines) == 40
    row = table.iloc[0]
    np.testing.assert_allclose(axes[2].lines[0].get_xdata(), [row["pre_1"], row["aligned_1"]])


def picture(shade):
    return np.full((8, 10, 3), shade, np.uint8)


def test_a_gallery_frames_hits_and_misses():
    row = Row(["highest: 0.60"], picture(0), [picture(1)] * 2, [picture(2)] * 2, [True, False], [True, True])
    figure = gallery([row, row], "one model", ("hit", "miss"))
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in figure.axes if axes.images]
    assert frames.count(KEPT.lower()) == 6
    assert frames.count(LOST.lower()) == 2
    assert frames.count("#000000") == 2
    title, legend = figure.texts[0].get_text().splitlines()
    assert title == "one model"
    assert "hit: blue, solid" in legend


def test_long_names_in_a_gallery_stay_clear_of_images_and_labels():
    about = ["highest: 0.60", "image COCO_val2014_000000391895", "class 001.Black_footed_Albatross"]
    row = Row(about, picture(0), [picture(1)] * 2, [picture(2)] * 2, [True, False], [True, True])
    figure = gallery([row] * 3, "one model", ("hit", "miss"))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes if axes.images] + [figure.texts[0].get_window_extent()]
    assert len(boxes) == 9 + 15 + 1
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_queries_are_chosen_by_rule():
    assert galleries.chosen(np.array([0.2, 0.9, 0.5, 0.9, 0.0, 0.0])) == [1, 2, 4]
    assert galleries.chosen(np.array([0.5, 0.5, 0.5])) == [0, 1, 2]
    assert galleries.chosen(np.array([0.5])) == [0, 0, 0]


def manifest(folder, n):
    """Photographs in two classes, and their manifest."""
    for i in range(n):
        (folder / f"photos/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{'ab'[i % 2]}/{i:02d}.png")
    images = read({"format": "image_folder", "images": str(folder / "photos")}).images
    images.to_parquet(folder / "images.parquet")
    return images


@pytest.mark.parametrize("mark", ["class", "overlap"])
def test_galleries_of_a_study(tmp_path, mark, monkeypatch):
    images, shown = manifest(tmp_path, 8), []
    lists = {(metric, side): np.stack([rng.permutation(np.delete(np.arange(8), i))[:4] for i in range(8)])
             for metric in ("euclidean", "cosine") for side in ("pre", "post")}  # fmt: skip
    rankings = {key: plain_ranking(rows) for key, rows in lists.items()}
    write_lists(tmp_path / "lists", NeighbourLists(images["image_id"].to_numpy(), {}, rankings))
    monkeypatch.setattr(drawing, "gallery", lambda *given: shown.append(given) or gallery(*given))
    settings = galleries.Settings(dataset="d", models=["one", "two"], k=3, shown=2, mark=mark)
    files = {"lists": [tmp_path / "lists"] * 2, "images": [tmp_path / "images.parquet"]}
    table = galleries.table(settings, **files)
    assert list(galleries.draw(table, settings, **files)) == galleries.figures(settings)
    assert galleries.figures(settings) == ["galleries-d-one", "galleries-d-two"]
    assert [title.partition(":")[0] for _, title, _ in shown] == ["one", "two"]
    rows, title, legend = shown[0]
    before, after = lists["euclidean", "pre"], lists["euclidean", "post"]
    labels = images["label"].to_numpy()
    for row in rows:
        query = images["image_id"].tolist().index(row.about[1].removeprefix("image "))
        wanted = (
            labels[before[query, :2]] == labels[query]
            if mark == "class"
            else [image in after[query, :3] for image in before[query, :2]]
        )
        assert list(row.hits_before) == list(wanted)
        assert len(row.before) == len(row.after) == 2
    assert title.startswith("one: ")
    assert legend[0] == ("same class" if mark == "class" else "nearest on both sides")


def test_the_probes_maps_share_their_colours():
    layout = Layout(10, 8, one_view((2, 2), None), ((0, 0, 10, 8),))
    image = picture(9)
    groups = {
        "one": [Probed("a", image, layout, [np.eye(2).ravel(), np.ones(4)]) for _ in range(3)],
        "two": [Probed("b", image, layout, [3 * np.eye(2).ravel(), 5 * np.ones(4)])],
    }
    figure = probe_maps(groups, ["random", "loss"])
    maps = [panel.images[1] for panel in figure.axes if len(panel.images) == 2]
    assert len(maps) == 8
    assert {part.get_cmap().name for part in maps} == {"viridis", "magma"}
    limits = {(part.get_cmap().name, part.norm.vmax) for part in maps}
    assert len(limits) == 2
    assert sum("only scales" in axes.get_title() or axes.get_title() == "loss" for axes in figure.axes) >= 2


@pytest.mark.parametrize("shape", [(8, 10), (20, 10), (6, 16)])
def test_the_probes_words_can_be_read_in_print_and_do_not_collide(shape):
    """At 5.5 inches, with a name as long as checkpoints have: of 7 points or more, and clear of each other and maps."""
    height, width = shape
    layout = Layout(width, height, one_view((2, 2), None), ((0, 0, width, height),))
    image = np.full((height, width, 3), 9, np.uint8)
    titles = [f"{which} uneven response: spread 0.25" for which in ("most", "least")]
    each = [Probed(title, image, layout, [np.eye(2).ravel()] * 3) for title in titles]
    groups = {f"Qwen/Qwen2.5-VL-7B-Instruct-of-{i}": each for i in range(3)}
    figure = probe_maps(groups, [*probe.MAPS.values()])
    assert figure.get_figwidth() == 5.5
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    words = [text.get_window_extent() for text in texts if text.get_text().strip("0123456789.")]
    maps = [axes.get_window_extent() for axes in figure.axes if axes.images]
    assert len(maps) == 24
    assert len(words) >= 8 + 3 + 6 + 2
    assert not [(a, b) for a, b in combinations([*words, *maps], 2) if a.overlaps(b)]


def alignments(tmp_path, models=("one", "two")):
    """Alignments of models whose embeddings after the connector are those before, turned by a quarter in a plane."""
    paths = []
    for model in models:
        x = rng.normal(size=(30, 5)) * [3, 2, 1, 1, 1]
        x -= x.mean(axis=0)
        turned = x[:, [1, 0, 2, 3, 4]] * [1, -1, 1, 1, 1]
        places = {"pre": x, "post": turned, "aligned": x}
        columns = {f"{side}_{j + 1}": place[:, j] for side, place in places.items() for j in (0, 1)}
        lengths = {f"{stage}_length": np.linalg.norm(x, axis=1) for stage in ("pre", "post")}
        ids = [f"image-{i}" for i in range(30)]
        frame = pd.DataFrame({"image_id": ids, "procrustes_error": 0.25, **columns, **lengths})
        frame.to_parquet(tmp_path / model)
        paths.append(tmp_path / model)
    return paths


def test_figure_6_is_drawn_from_alignments(tmp_path):
    paths = alignments(tmp_path)
    settings = figure6.Settings(dataset="d", models=["one", "two"])
    table = figure6.table(settings, paths)
    assert table.groupby("model", sort=False).size().to_dict() == {"one": 30, "two": 30}
    np.testing.assert_array_equal(table["pre_1"][:30], pd.read_parquet(paths[0])["pre_1"])
    assert drawn(figure6, tmp_path, table, settings, alignments=paths)[0] < 1500


def test_figure_6_says_what_its_planes_hold(tmp_path):
    paths = alignments(tmp_path)
    settings = figure6.Settings(dataset="d", models=["one", "two"])
    table = figure6.table(settings, paths)
    rows = table[table["model"] == "one"]
    first, second = ((rows[f"pre_{j}"] ** 2).sum() / (rows["pre_length"] ** 2).sum() for j in (1, 2))
    found = figure6.shares(rows)
    assert found["pre"] == pytest.approx((first, second))
    assert found["post"] == pytest.approx((second, first))
    assert found["aligned"] == pytest.approx((first, second))
    panels = figure6.draw(table, settings, paths).axes
    assert panels[0].get_xlabel() == f"component 1 before ({first:.0%})"
    assert panels[1].get_ylabel() == f"component 2 after ({first:.0%})"
    assert panels[2].get_xlabel() == f"component 1 before ({first:.0%})"
    assert any("residual 0.25\n" in text.get_text() for text in panels[2].texts)
    assert f"hold {first + second:.0%} of the variance before" in figure6.findings(table, settings)[0]


def long_rows(overlap=0.4, near_ties=0.5):
    """The long table of one model's margins."""
    measures = {"mutual_neighbours": overlap, "share_near_ties": near_ties, "closeness": 0.6}
    rows = [
        {"dataset": "d", "n": 60, "model": "m", "measure": measure, "k": k, "value": value}
        for k in (5, 10)
        for measure, value in measures.items()
    ]
    of_pairs = {**rows[0], "measure": "distance_ratio_q01", "k": None}
    return pd.DataFrame([of_pairs, *rows]).astype({"k": "Int64"}).assign(value_low=0.1, value_high=0.9, chance=np.nan)


def test_margins_are_drawn_from_their_table(tmp_path):
    fates = margins.fates(wide(long_rows(), [5, 10]))
    assert fates[["preserved", "near_ties", "moved"]].to_numpy() == pytest.approx(np.tile([0.4, 0.3, 0.3], (2, 1)))
    assert margins.fates(wide(long_rows(1.0, np.nan), [5, 10]))["near_ties"].tolist() == [0, 0]
    settings = margins.Settings(confidence=0.95)
    assert drawn(margins, tmp_path, long_rows(), settings, summaries=[])[0] < 1600


NAMES = ["llava-mini", "idefics2-mini", "qwen2.5-vl-mini"], [f"long-name-of-{i}" for i in range(6)]


NAMES = [["llava-mini", "idefics2-mini", "qwen2.5-vl-mini"], [f"long-name-of-{i}" for i in range(6)]]


@pytest.mark.parametrize("names", NAMES)
def test_names_below_bars_do_not_collide(names):
    table = pd.concat([long_rows().assign(model=name) for name in names])
    figure = margins.draw(table, margins.Settings(confidence=0.95), summaries=[])
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == len(names)
    assert all(one.x1 < other.x0 for one, other in pairwise(labels))
    assert min(label.y0 for label in labels) > figure.axes[0].get_legend().get_window_extent().y1


def test_random_projections_are_drawn(tmp_path):
    projections().to_parquet(tmp_path / "projections")
    table = pd.DataFrame({"dataset": "d", "model": ["first", "second"], "k": 2, "overlap_connector": [0.3, 0.4]})
    settings = random_projection.Settings(k=[2], confidence=0.95)
    files = {"summaries": [], "dimensions": [], "projections": [tmp_path / "projections"]}
    assert drawn(random_projection, tmp_path, table, settings, **files)[0] < 1600


@pytest.mark.parametrize("probed", [1, 5])
def test_the_probe_is_drawn_on_its_images(tmp_path, probed):
    images = manifest(tmp_path, 6)
    pre = PRE[:6]
    (tmp_path / "stores").mkdir()
    index = store(tmp_path / "stores", "m", pre, pre)
    content = [f"image-{i}" for i in range(probed)]
    images.assign(image_id=[f"image-{i}" for i in range(6)]).to_parquet(tmp_path / "images.parquet")
    table = pd.DataFrame(
        {
            "image_id": np.repeat(content, 4),
            "row": np.tile([0, 0, 1, 1], probed),
            "col": np.tile([0, 1, 0, 1], probed),
            "random": rng.random(4 * probed),
            "towards": rng.random(4 * probed),
        }
    )
    table.to_parquet(tmp_path / "patches")
    settings = probe.Settings(dataset="d", models=["m"], images=probed, confidence=0.95)
    files = {"patches": [tmp_path / "patches"], "embeddings": [index], "images": [tmp_path / "images.parquet"]}
    assert drawn(probe, tmp_path, None, settings, summaries=[], **files)[0] < 1500
