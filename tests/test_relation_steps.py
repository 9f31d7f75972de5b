"""From scores and losses on disk to tables: numbers equal SciPy's on the same columns, and nothing gets lost."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from specs import PLAIN_FIGURES, checked

from lossmap.errors import LossmapError
from lossmap.measures.relations import LOSSES
from lossmap.store.patch_losses import PatchLossWriter
from lossmap.study.columns import column
from lossmap.study.steps import make_exhibit, relate_answers, relate_captions
from lossmap.study.tables import interval

DECODERS, GRID, N = ["mean", "mlp"], (3, 4), 60
STATISTICS = {"confidence": 0.95, "resamples": 100, "permutations": 199, "seed": 0}
IDS = [f"image-{i:02d}" for i in range(N)]


def made_up(seed=0):
    """Maps of two reconstructors in which the second's loss grows with the image's number."""
    rng = np.random.default_rng(seed)
    shape = (2, N, 12)
    level = np.linspace(0.5, 1.5, N)[:, None]
    maps = {"squared_error": level * rng.uniform(0.5, 1.5, shape), "cosine_error": level * rng.uniform(0.1, 0.3, shape)}
    maps["norm_difference"] = level * rng.normal(size=shape)
    return maps | {"pre_norm": rng.uniform(1, 2, (N, 12))}


def save_losses(folder, maps, ids=IDS):
    """patch_loss/<dataset>/<model>.zarr and .parquet. Returns both paths."""
    writer = PatchLossWriter(folder / "model.zarr", DECODERS, ids, GRID, {"best": "mlp", "provenance": {}})
    writer.append(**maps)
    writer.close()
    tables = []
    for i, decoder in enumerate(DECODERS):
        means = {name: maps[name][i].mean(1) for name in ("squared_error", "norm_difference", "cosine_error")}
        means["absolute_norm_difference"] = np.abs(maps["norm_difference"][i]).mean(1)
        tables.append(pd.DataFrame({"image_id": ids, "reconstructor": decoder, **means, "best": decoder == "mlp"}))
    pd.concat(tables).to_parquet(folder / "model.parquet")
    return folder / "model.zarr", folder / "model.parquet"


def caption_scores(seed=1):
    rng = np.random.default_rng(seed)
    cider = 100 - np.arange(N) + rng.normal(0, 20, N)
    texts = ["a dog"] * (N - 1) + [" "]
    frame = pd.DataFrame({"image_id": IDS, "text": texts, "cider": cider, "cider_raw": cider + rng.normal(0, 9, N)})
    frame["reference_words"] = rng.permutation(N) / 5 + 6
    return frame.sample(frac=1, random_state=0, ignore_index=True)  # another order than the losses


def relate_made_up_captions(folder, scores, model="one", dataset="coco-karpathy"):
    maps, per_image = save_losses(folder, made_up())
    scores.to_parquet(folder / "scores.parquet")
    out = {"losses": folder / "losses.parquet", "relations": folder / f"{model}.parquet"}
    spec = checked("relate_captions", {"dataset": dataset, "model": model, **STATISTICS})
    relate_captions.run(scores=folder / "scores.parquet", patch_loss=per_image, maps=maps, **out, spec=spec)
    return pd.read_parquet(out["losses"]), pd.read_parquet(out["relations"])


def test_caption_relations_are_scipys_on_the_joined_columns(tmp_path):
    scores = caption_scores()
    losses, relations = relate_made_up_captions(tmp_path, scores)
    maps = made_up()
    assert losses["image_id"].tolist() == scores["image_id"].tolist()
    by_image = losses.set_index("image_id").loc[IDS]
    assert by_image["squared_error"].to_numpy() == pytest.approx(maps["squared_error"][1].mean(1), rel=1e-6)
    assert by_image["pre_norm"].to_numpy() == pytest.approx(maps["pre_norm"].mean(1), rel=1e-6)
    assert relations["loss_kind"].tolist() == list(LOSSES)
    for row in relations.itertuples():
        theirs = stats.spearmanr(losses[row.loss_kind], losses["cider"])
        assert row.raw_rho == pytest.approx(theirs.statistic)
        assert row.raw_rho_p == pytest.approx(theirs.pvalue, abs=0.02)
        raw = stats.spearmanr(losses[row.loss_kind], losses["cider_raw"]).statistic
        assert row.raw_rho_paper_convention == pytest.approx(raw)
        assert row.raw_rho_low < row.raw_rho < row.raw_rho_high
    first = relations.iloc[0]
    assert (first["n"], first["unscored"], first["empty"], first["reconstructor"]) == (N, 0, 1, "mlp")
    assert first["cider"] == pytest.approx(scores["cider"].mean())
    assert first["cider_std"] == pytest.approx(scores["cider"].std(ddof=0))
    signed = stats.spearmanr(losses["norm_difference"], losses["cider"]).statistic
    assert relations["raw_rho_signed"].isna().tolist() == [True, False, True]
    assert relations["raw_rho_signed"][1] == pytest.approx(signed)
    assert relations["partial_rho_signed"].isna().tolist() == [True, False, True]


def test_what_the_length_of_the_references_explains_is_taken_out(tmp_path):
    """Loss and CIDEr that both follow the number of words, and nothing else."""
    scores, lost = caption_scores(), made_up()["squared_error"][1].mean(1)
    rng = np.random.default_rng(4)
    words = scores["image_id"].map(dict(zip(IDS, stats.rankdata(lost), strict=True))) + rng.normal(0, 8, N)
    scores = scores.assign(cider=rng.normal(0, 8, N) - words, reference_words=words)
    _, relations = relate_made_up_captions(tmp_path, scores)
    first = relations.iloc[0]
    assert first["raw_rho_high"] < -0.6
    assert first["partial_rho_low"] < 0 < first["partial_rho_high"]
    assert first["raw_gain_low"] > 5
    assert first["partial_gain_low"] < 0 < first["partial_gain_high"]
    losses = pd.read_parquet(tmp_path / "losses.parquet")
    ranks = [stats.rankdata(losses[name]) for name in ("squared_error", "cider", "pre_norm", "reference_words")]
    design = np.stack([np.ones(N), *ranks[2:]], axis=1)
    rest = [side - design @ np.linalg.lstsq(design, side, rcond=None)[0] for side in ranks[:2]]
    assert first["partial_rho"] == pytest.approx(stats.pearsonr(*rest).statistic)
    by_rest = losses["cider"].iloc[np.argsort(rest[0])]
    assert first["partial_gain"] == pytest.approx(by_rest[: N // 4].mean() - by_rest[-N // 4 :].mean())
    html, table, finding = exhibit(tmp_path, [tmp_path / "one.parquet"], "table4")
    shown = f"{first['partial_rho']:.2f} [{first['partial_rho_low']:.2f}, {first['partial_rho_high']:.2f}]"
    raw = f"{first['raw_rho']:.2f} [{first['raw_rho_low']:.2f}, {first['raw_rho_high']:.2f}]"
    assert f"given patch norm and the references' words, squared error and CIDEr correlate by {shown}" in finding
    assert f"; raw: {raw})" in finding
    # The raw p is at the floor of 199 permutations.
    assert table["raw_rho_p"][0] == 2 / 200
    assert table["raw_rho_p_at_floor"][0]
    headers = html.split("<table>")[1]
    assert headers.index("partial correlation") < headers.index("raw correlation")


def test_quarters_hold_a_quarter_of_the_images_each(tmp_path):
    losses, relations = relate_made_up_captions(tmp_path, caption_scores())
    for row in relations.itertuples():
        order = losses.sort_values(row.loss_kind)["cider"]
        assert row.quarter == N // 4
        assert row.cider_low_loss == pytest.approx(order[: N // 4].mean())
        assert row.cider_high_loss == pytest.approx(order[-(N // 4) :].mean())
        assert row.raw_gain == pytest.approx(row.cider_low_loss - row.cider_high_loss)
    first = relations.iloc[0]
    assert first["raw_gain_low"] > 0
    assert first["raw_gain_p"] == pytest.approx(2 / 200)


def test_captions_without_scores_are_counted_and_without_loss_refused(tmp_path):
    _, relations = relate_made_up_captions(tmp_path, caption_scores().iloc[:50])
    assert relations[["n", "unscored"]].iloc[0].tolist() == [50, 10]
    stray = pd.concat(
        [
            caption_scores(),
            pd.DataFrame([{"image_id": "x", "text": "", "cider": 0.0, "cider_raw": 0.0, "reference_words": 1.0}]),
        ]
    )
    with pytest.raises(LossmapError, match="1 of 61 captions have no loss in .*\n  - image x"):
        relate_made_up_captions(tmp_path, stray)


def test_equal_cider_everywhere_is_undefined_not_left_out(tmp_path):
    _, relations = relate_made_up_captions(tmp_path, caption_scores().assign(cider=0.0))
    assert relations["raw_rho"].isna().all()
    assert (relations["reason"] == "score is constant").all()
    assert (relations["raw_gain_reason"] == "all values are equal").all()
    html, table, finding = exhibit(tmp_path, [tmp_path / "one.parquet"], "table4")
    assert len(table) == 3
    assert "score is constant; all values are equal" in html
    assert "no partial rank correlation of squared error and CIDEr: score is constant." in finding
    assert "Family of tests: 0 partial rank correlations; undefined: 3." in finding


def test_too_few_captions_for_quarters_have_none(tmp_path):
    _, relations = relate_made_up_captions(tmp_path, caption_scores().iloc[:2])
    first = relations.iloc[0]
    assert (first["n"], first["unscored"], first["quarter"]) == (2, 58, 0)
    assert first["reason"] == "2 items; 3 are needed"
    assert first["raw_gain_reason"] == "groups of 0 and 0; 2 in each are needed"
    assert np.isnan(first["cider_high_loss"])


def exhibit(folder, relations, name, checkpoints=None):
    """Its page, CSV and caption."""
    settings = {"confidence": 0.95}
    if name in ("table3_cider", "table4"):
        settings["checkpoints"] = checkpoints or {"one": "a", "two": "b"}
    else:
        settings |= {"threshold": 0.5, "right": 0.5}
    inputs = [f"relations={path}" for path in relations]
    make_exhibit.run(name, results=folder, inputs=inputs, settings=settings, spec=PLAIN_FIGURES)
    page, csv, caption = (folder / f"tables/{name}.{ending}" for ending in ("html", "csv", "rst"))
    table = pd.read_csv(csv)
    assert [name for name in table if column(name) is None] == []
    return page.read_text(), table, caption.read_text()


def test_caption_tables_adjust_p_over_all_models(tmp_path):
    for i, model in enumerate(("one", "two")):
        (tmp_path / model).mkdir()
        relate_made_up_captions(tmp_path / model, caption_scores(seed=i + 1), model)
    paths = [tmp_path / f"{model}/{model}.parquet" for model in ("one", "two")]
    html, table, finding = exhibit(tmp_path, paths, "table4")
    assert len(table) == 6
    for name in ("raw_rho", "partial_rho", "raw_gain", "partial_gain"):
        adjusted = stats.false_discovery_control(table[f"{name}_p"])
        assert table[f"{name}_p_adjusted"].to_numpy() == pytest.approx(adjusted)
    row = table.iloc[0]
    assert f">{interval(row, 'raw_rho', 3)}</td>" in html
    assert f">{interval(row, 'partial_gain', 1)}</td>" in html
    assert f"correlate by {interval(row, 'partial_rho', 2)}" in finding
    assert f"; raw: {interval(row, 'raw_rho', 2)})" in finding
    assert "Family of tests: 6 partial rank correlations; undefined: 0." in finding
    assert "reported" not in html.split("<table>")[1]
    html, table, finding = exhibit(tmp_path, paths, "table3_cider")
    assert table[["dataset", "model", "n", "unscored", "empty"]].to_numpy().tolist() == [
        ["coco-karpathy", model, N, 0, 1] for model in ("one", "two")
    ]
    assert f"CIDEr {table['cider'][0]:.1f} [" in finding
    assert f">{table['cider'][0]:.1f} [" in html.split("<table>")[1]


@pytest.mark.parametrize(("images", "shown"), [(1000, True), (N, False)])
def test_the_papers_captions_stand_beside_the_whole_split_only(tmp_path, images, shown):
    relate_made_up_captions(tmp_path, caption_scores(), "llava", "flickr30k")
    path = tmp_path / "llava.parquet"
    pd.read_parquet(path).assign(n=images).to_parquet(path)
    checkpoints = {"llava": "llava-hf/llava-1.5-7b-hf"}
    html, table, _ = exhibit(tmp_path, [path], "table3_cider", checkpoints)
    assert table["cider_reported"].tolist() == [56.79] if shown else table["cider_reported"].isna().all()
    html, table, _ = exhibit(tmp_path, [path], "table4", checkpoints)
    reported = table[["cider_high_loss_reported", "cider_low_loss_reported", "raw_rho_reported"]]
    assert reported.iloc[0].tolist() == [51.79, 61.74, -0.096] if shown else reported.iloc[0].isna().all()
    assert reported.iloc[1:].isna().all(axis=None)  # the paper's loss is the squared error
    assert ("-0.096" in html) == shown


def answer_scores(folder, covered, accuracy, questions=None):
    """scores and relevance in two orders. Returns both paths."""
    questions = questions or [f"q{i}" for i in range(N)]
    scores = pd.DataFrame({"question_id": questions, "image_id": IDS, "text": "x", "score": "vqa_accuracy"})
    scores["accuracy"] = accuracy
    scores["accuracy_simple"] = np.minimum(scores["accuracy"] * 1.1, 1)
    scores.iloc[::-1].to_parquet(folder / "answers.parquet")
    masks = pd.DataFrame({"question_id": questions, "image_id": IDS, "covered": list(covered)})
    masks.assign(mask_area=covered.mean(1) + 0.01).to_parquet(folder / "relevance.parquet")
    return folder / "answers.parquet", folder / "relevance.parquet"


def made_up_answers():
    """Masks that cover some patches in part; the first two cover nothing, the third everything."""
    rng = np.random.default_rng(4)
    covered = np.where(rng.random((N, 12)) < 0.3, rng.random((N, 12)), 0)
    covered[:, 0] = 1
    covered[:2], covered[2] = 0, 1
    covered[3] = 0.4  # seen, but nowhere relevant
    return covered, rng.choice([0, 0.3, 0.6, 0.9, 1], size=N)


def relate_made_up_answers(folder, covered, accuracy, maps=None, model="one", threshold=0.5, **scored):
    patch_loss, _ = save_losses(folder, maps or made_up())
    scores, relevance = answer_scores(folder, covered, accuracy)
    pd.read_parquet(scores).assign(**scored).to_parquet(scores)
    out = {"losses": folder / "answer_losses.parquet", "relations": folder / f"{model}.parquet"}
    spec = {"dataset": "vizwiz", "model": model, "threshold": threshold, "right": 0.5, **STATISTICS}
    spec = checked("relate_answers", spec)
    relate_answers.run(scores=scores, relevance=relevance, patch_loss=patch_loss, **out, spec=spec)
    return pd.read_parquet(out["losses"]), pd.read_parquet(out["relations"])


def test_exact_match_is_related_by_its_name_and_has_no_convention_of_the_paper(tmp_path):
    covered, accuracy = made_up_answers()
    match = {"score": "vqa_match", "accuracy_simple": np.nan}
    _, relations = relate_made_up_answers(tmp_path, covered, (accuracy >= 0.5).astype(float), **match)
    assert relations["scored"].unique().tolist() == ["vqa_match"]
    assert relations["raw_rho"].notna().all()
    assert relations["raw_rho_paper_convention"].isna().all()
    html, table, finding = exhibit(tmp_path, [tmp_path / "one.parquet"], "figure5")
    assert set(table["scored"]) == {"vqa_match"}
    assert "Answers are scored by exact match." in html
    assert "Answers are scored by exact match." in finding


def test_losses_are_means_over_each_questions_own_patches(tmp_path):
    covered, accuracy = made_up_answers()
    losses, _ = relate_made_up_answers(tmp_path, covered, accuracy)
    maps = made_up()
    assert len(losses) == 3 * N
    rows = losses.set_index(["region", "question_id"])
    for i in range(N):
        inside = covered[i] >= 0.5
        for name, values in {**maps, "absolute_norm_difference": np.abs(maps["norm_difference"])}.items():
            of_image = (values if values.ndim == 2 else values[1])[i]
            found = [
                rows.loc[(region, f"q{i}"), name] for region in ("relevant", "irrelevant", "relevant minus irrelevant")
            ]
            means = [of_image[side].mean() if side.any() else np.nan for side in (inside, ~inside)]
            assert found == pytest.approx([*means, means[0] - means[1]], rel=1e-4, abs=1e-6, nan_ok=True)
        assert rows.loc[("relevant", f"q{i}"), "patches"] == inside.sum()
        assert rows.loc[("relevant", f"q{i}"), "accuracy"] == accuracy[i]


def test_answer_relations_are_scipys_on_the_rows_with_patches(tmp_path):
    covered, accuracy = made_up_answers()
    losses, relations = relate_made_up_answers(tmp_path, covered, accuracy)
    assert len(relations) == 9
    counts = relations.drop_duplicates("region").set_index("region")[["questions", "without_patches", "questions_used"]]
    assert counts.to_numpy().tolist() == [[N, 3, N - 3], [N, 1, N - 1], [N, 4, N - 4]]
    assert (relations["mask_not_seen"] == 2).all()
    for row in relations.itertuples():
        kept = losses[(losses["region"] == row.region) & (losses["patches"] > 0)]
        theirs = stats.spearmanr(kept[row.loss_kind], kept["accuracy"])
        assert row.raw_rho == pytest.approx(theirs.statistic)
        assert row.raw_rho_p == pytest.approx(theirs.pvalue, abs=0.12)
        ranks = [stats.rankdata(kept[name]) for name in (row.loss_kind, "accuracy", "pre_norm", "mask_area")]
        design = np.column_stack([np.ones(len(kept)), *ranks[2:]])
        rest = [side - design @ np.linalg.lstsq(design, side)[0] for side in ranks[:2]]
        assert row.partial_rho == pytest.approx(stats.pearsonr(*rest).statistic)
        simple = stats.spearmanr(kept[row.loss_kind], kept["accuracy_simple"]).statistic
        assert row.raw_rho_paper_convention == pytest.approx(simple)
        right = kept["accuracy"] >= 0.5
        assert (row.right, row.wrong) == (right.sum(), (~right).sum())
        assert row.loss_right == pytest.approx(kept[row.loss_kind][right].mean())
        assert row.raw_difference == pytest.approx(
            kept[row.loss_kind][right].mean() - kept[row.loss_kind][~right].mean()
        )
        design = np.column_stack([right, design])
        assert row.partial_difference == pytest.approx(np.linalg.lstsq(design, kept[row.loss_kind])[0][0], rel=1e-6)


def test_what_only_sets_images_apart_cancels_out_within_them(tmp_path):
    """Loss grows with the image's number, accuracy too: a correlation everywhere, but none within images."""
    covered, _ = made_up_answers()
    maps = made_up()
    flat = np.broadcast_to(np.linspace(1, 3, N)[:, None], (2, N, 12)) + 0.01 * np.random.default_rng(1).random(
        (2, N, 12)
    )
    accuracy = (np.arange(N) >= N // 2).astype(float)
    _, relations = relate_made_up_answers(tmp_path, covered, accuracy, {**maps, "squared_error": flat})
    rows = relations[relations["loss_kind"] == "squared_error"].set_index("region")
    assert (rows.loc[["relevant", "irrelevant"], "raw_rho_low"] > 0.7).all()
    assert abs(rows.loc["relevant minus irrelevant", "raw_difference"]) < 0.01
    assert rows.loc["relevant", "raw_difference"] > 0.9


def test_a_loss_that_hurts_only_where_the_answer_lies_shows_there(tmp_path):
    covered, _ = made_up_answers()
    maps, rng = made_up(), np.random.default_rng(2)
    accuracy = rng.choice([0, 0.3, 0.6, 0.9, 1], size=N)
    hurt = rng.uniform(0.9, 1.1, (2, N, 12)) + np.where(covered >= 0.5, 1 - accuracy[:, None], 0)
    _, relations = relate_made_up_answers(tmp_path, covered, accuracy, {**maps, "squared_error": hurt})
    rows = relations[relations["loss_kind"] == "squared_error"].set_index("region")
    assert rows.loc["relevant", "raw_rho_high"] < -0.8
    assert rows.loc["irrelevant", "raw_rho_low"] < 0 < rows.loc["irrelevant", "raw_rho_high"]
    assert rows.loc["relevant minus irrelevant", "raw_difference_high"] < -0.3


def test_the_threshold_decides_what_is_relevant(tmp_path):
    covered, accuracy = made_up_answers()
    for threshold in (0.05, 1.0):
        losses, _ = relate_made_up_answers(tmp_path, covered, accuracy, threshold=threshold)
        patches = losses[losses["region"] == "relevant"].set_index("question_id")["patches"]
        assert patches[[f"q{i}" for i in range(N)]].tolist() == (covered >= threshold).sum(1).tolist()


def test_nothing_but_right_answers_is_undefined_in_every_table(tmp_path):
    covered, _ = made_up_answers()
    _, relations = relate_made_up_answers(tmp_path, covered, np.ones(N))
    assert relations["raw_rho"].isna().all()
    assert (relations["reason"] == "score is constant").all()
    assert relations["raw_difference_reason"].str.fullmatch("groups of 5[679] and 0; 2 in each are needed").all()
    html, table, finding = exhibit(tmp_path, [tmp_path / "one.parquet"], "figure5")
    assert len(table) == 6
    assert "score is constant" in html
    assert "groups of" not in html
    assert "undefined in relevant patches (score is constant)" in finding
    html, table, finding = exhibit(tmp_path, [tmp_path / "one.parquet"], "within_image")
    assert len(table) == 3
    assert "56 right less 0 wrong answers: undefined (groups of 56 and 0; 2 in each are needed)." in finding
    assert "score is constant; groups of 56 and 0; 2 in each are needed<" in html
    assert "Family of tests: 0 partial differences; undefined: 3." in finding


def test_masks_that_no_patch_sees_leave_empty_regions_not_errors(tmp_path):
    _, accuracy = made_up_answers()
    _, relations = relate_made_up_answers(tmp_path, np.zeros((N, 12)), accuracy)
    rows = relations.groupby("region")[["questions_used", "without_patches", "mask_not_seen"]].first()
    assert rows.loc["relevant"].tolist() == [0, N, N]
    assert rows.loc["irrelevant"].tolist() == [N, 0, N]
    assert (relations[relations["region"] == "relevant"]["reason"] == "0 items; 3 are needed").all()


def test_answers_without_mask_or_loss_are_named(tmp_path):
    covered, accuracy = made_up_answers()
    patch_loss, _ = save_losses(tmp_path, made_up())
    scores, relevance = answer_scores(tmp_path, covered, accuracy)
    out = {"losses": tmp_path / "l", "relations": tmp_path / "r"}
    spec = {"dataset": "vizwiz", "model": "m", "threshold": 0.5, "right": 0.5, **STATISTICS}
    spec = checked("relate_answers", spec)

    def run():
        relate_answers.run(scores=scores, relevance=relevance, patch_loss=patch_loss, **out, spec=spec)
        return pd.read_parquet(out["relations"])

    whole = pd.read_parquet(scores)
    whole.iloc[5:].to_parquet(scores)
    assert run()[["questions", "unscored"]].iloc[0].tolist() == [N - 5, 5]
    whole.assign(image_id=["x", *whole["image_id"][1:]]).to_parquet(scores)
    with pytest.raises(LossmapError, match="1 of 60 answers have no loss in .*\n  - question q59, image x"):
        run()
    whole.assign(question_id=["y", *whole["question_id"][1:]]).to_parquet(scores)
    with pytest.raises(LossmapError, match="1 of 60 answers have no answer mask in .*\n  - question y, image image-59"):
        run()
    answer_scores(tmp_path, covered[:, :4], accuracy)
    with pytest.raises(LossmapError, match="4 patches an image, but .* has 3 x 4"):
        run()


def test_answer_tables_adjust_p_over_all_models_and_feed_the_figure(tmp_path):
    covered, accuracy = made_up_answers()
    paths = []
    for i, model in enumerate(("one", "two")):
        (tmp_path / model).mkdir()
        relate_made_up_answers(tmp_path / model, covered, accuracy, made_up(seed=i), model)
        paths.append(tmp_path / f"{model}/{model}.parquet")
    html, table, finding = exhibit(tmp_path, paths, "figure5")
    assert len(table) == 12
    assert set(table["region"]) == {"relevant", "irrelevant"}
    for name in ("raw_rho", "partial_rho", "raw_difference", "partial_difference"):
        adjusted = stats.false_discovery_control(table[f"{name}_p"])
        assert table[f"{name}_p_adjusted"].to_numpy() == pytest.approx(adjusted)
    row = table.iloc[0]
    given = interval(row, "partial_rho", 2)
    assert f"given patch norm and mask area: {given} in relevant patches (n = {row['questions_used']}" in finding
    assert f"; raw: {interval(row, 'raw_rho', 2)})" in finding
    away = (table["partial_rho_low"] > 0) | (table["partial_rho_high"] < 0)
    assert f"intervals without 0: {away[table['region'] == 'relevant'].sum()} of 6 in relevant patches" in finding
    assert f">{interval(row, 'raw_rho', 3)}</td>" in html
    assert ">questions used</button><small>count</small></th>" in html
    assert {"without_patches", "mask_not_seen", "unscored"} < {*table}
    assert (tmp_path / "figures/figure5.pdf").stat().st_size > 1000
    html, table, finding = exhibit(tmp_path, paths, "within_image")
    assert len(table) == 6
    for name in ("raw_difference", "partial_difference"):
        adjusted = stats.false_discovery_control(table[f"{name}_p"])
        assert table[f"{name}_p_adjusted"].to_numpy() == pytest.approx(adjusted)
    first = table.iloc[0]
    partial = interval(first, "partial_difference", 3)
    assert f"{first['right']} right less {first['wrong']} wrong answers: {partial}" in finding
    assert f"; raw: {interval(first, 'raw_difference', 3)})" in finding
    assert f">{partial}</td>" in html


def test_a_second_run_gives_the_same_bytes(tmp_path):
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        relate_made_up_answers(tmp_path / name, *made_up_answers())
        contents.append([(tmp_path / name / file).read_bytes() for file in ("answer_losses.parquet", "one.parquet")])
    assert contents[0] == contents[1]
