"""The verdict says what its numbers allow, and its words carry the very numbers of the table beside them."""

import re

import numpy as np
import pandas as pd
import pytest
from specs import PLAIN_FIGURES, checked

from lossmap.errors import LossmapError
from lossmap.reconstruct.verdict import (
    Fall,
    Interval,
    Reached,
    Untested,
    Verdict,
    percent,
    percent_within,
    points,
    points_within,
    sentences,
)
from lossmap.study.exhibits import ladder as exhibit
from lossmap.study.steps import judge_connector, make_exhibit
from lossmap.study.tables import interval

DECODERS = {"ridge": ("ridge", 10), "mlp-small": ("mlp", 100), "mlp-large": ("mlp", 1000)}
SETTLED = {"ridge": (0.12, 0.12), "mlp-small": (0.085, 0.082), "mlp-large": (0.083, 0.08)}  # at 50%, at 100%
FINISHED = {"converged": True, "halfway_error": np.nan, "passes": 20.0, "learning_rate": 0.01}
UNFINISHED = {"converged": False, "halfway_error": 0.16, "passes": 30.0, "learning_rate": 0.0001}
LADDER = exhibit.Settings(confidence=0.95)
SPEC = {"settled_within": 0.01, "confidence": 0.95, "resamples": 300, "seed": 0}


def scaled(factor, decoders=SETTLED):
    return {name: tuple(factor * value for value in values) for name, values in decoders.items()}


def ladder_rows(connectors, model="toy", n=80, noise=0.1, held_out=None, unfinished=()):
    """connectors: name -> (kind, numbers that an image's post has, decoder -> FVU at 50% and 100%); 600 enter."""
    hard = np.random.default_rng(1).uniform(1 - noise, 1 + noise, size=n)  # what makes an image hard for all
    variance = np.random.default_rng(2).uniform(0.8, 1.2, size=n)
    hard /= (hard * variance).sum() / variance.sum()
    frames = []
    for name, (kind, numbers, decoders) in connectors.items():
        own = np.random.default_rng(len(frames)).normal(0, 0.02, size=n) * noise
        for decoder, values in decoders.items():
            architecture, parameters = DECODERS[decoder]
            for share, fvu in zip((50, 100)[-len(values) :], values, strict=True):
                error = fvu * variance * (hard + own - (own * variance).sum() / variance.sum())
                about = {"dataset": "photos", "model": model, "connector": name, "kind": kind, "decoder": decoder}
                about |= {"lossless": kind in ("identity", "rotation", "invertible_mlp"), "known_fvu": np.nan}
                about |= {"architecture": architecture, "share": share, "parameters": parameters, "pre_numbers": 600}
                about |= {"post_numbers": numbers, "held_out_error": (held_out or {}).get((name, decoder), fvu)}
                about |= UNFINISHED if (name, decoder) in unfinished else FINISHED
                values = {"squared_error": error, "cosine_error": error / 2, "variance": variance}
                frames.append(pd.DataFrame({**about, "image_id": [f"i{i}" for i in range(n)], **values}))
    return pd.concat(frames, ignore_index=True)


def judge(folder, *ladders, near_copies=(), **spec):
    """Runs the step and its exhibits. Returns the ladder, the first verdict, its page and what all of them say."""
    copies = pd.DataFrame({"dataset": "photos", "image_id": near_copies}, dtype="str")
    copies.to_parquet(folder / "near_copies")
    paths = []
    for i, rows in enumerate(ladders):
        paths.append(folder / f"{i}.parquet")
        rows.to_parquet(paths[-1])
    spec = checked("judge_connector", SPEC | spec)
    out = {name: folder / f"{name}.parquet" for name in ("ladder", "verdict")}
    judge_connector.run(ladders=paths, near_copies=folder / "near_copies", **out, spec=spec)
    settings = {"confidence": spec.confidence, "settled_within": spec.settled_within}
    make_exhibit.run(
        "verdict", results=folder, inputs=[f"verdict={out['verdict']}"], settings=settings, spec=PLAIN_FIGURES
    )
    page, caption = ((folder / f"tables/verdict.{ending}").read_text() for ending in ("html", "rst"))
    verdicts = pd.read_csv(folder / "tables/verdict.csv")
    return exhibit.table(LADDER, [out["ladder"]]), verdicts.iloc[0], page, caption.partition("\n\n")[2]


def own_and(control_factor, own=SETTLED, numbers=600, **more):
    control = ("invertible_mlp", max(600, numbers), scaled(control_factor))
    return ladder_rows({"own": ("own", numbers, own), "invertible_mlp": control, **more})


def numbers_in(text):
    return set(re.findall(r"\d[\d,]*\.\d+", text))


def test_the_connectors_own_loss_is_what_is_left_beyond_the_hardest_lossless_control(tmp_path):
    easy = ("identity", 600, scaled(0.01))
    ladder, row, _, finding = judge(tmp_path, own_and(0.5, identity=easy))
    assert (row["model_connector_decoder"], row["matched_control_name"], row["settled"]) == (
        "mlp-large",
        "invertible_mlp",
        "yes",
    )
    assert row["model_connector_fvu"] == pytest.approx(0.08, abs=1e-5)
    assert row["matched_control_difference"] == pytest.approx(0.04, abs=1e-5)
    assert row["matched_control_difference_low"] < 0.04 < row["matched_control_difference_high"]
    assert "**toy**: at most 8.0% lost, 4.0 points more than the matched lossless control; settled.\n" in finding
    assert "At most 8.0% [" in finding
    assert "0.080% (identity) and 4.0% [" in finding
    assert "(invertible_mlp, the matched control): the 4.0 points [" in finding
    assert (
        "Neither a network twice as large nor twice the images promises to lower this by more than 1 point." in finding
    )
    assert "enter the connector" not in finding  # as many leave as enter
    assert ladder["best"].sum() == 3


def test_every_number_of_the_sentences_stands_in_the_table(tmp_path):
    more = {
        "pca": ("pca", 150, scaled(2)),
        "other": ("other_image", 150, scaled(9)),
        "identity": ("identity", 600, scaled(0.1)),
    }
    _, row, page, finding = judge(tmp_path, own_and(0.5, numbers=150, **more), settled_within=0.005)
    shares = [value for value in row if isinstance(value, float) and np.isfinite(value)]
    in_percent = {f"{100 * abs(share):.{digits}f}" for share in shares for digits in (1, 2)}
    missing = numbers_in(finding.split("In brackets")[0].replace("n = ", "")) - in_percent
    assert missing == {"0.80", "0.5"}  # the easier control, in the ladder's table; the tolerance, in points
    for name in ("model_connector_fvu", "matched_control_fvu", "matched_control_difference"):
        assert interval(row, name, 3) in page
    assert f"leave {percent(row['linear_compression_fvu'])} [" in finding
    assert "600 dimensions of an image enter the connector and 150 leave it." in finding
    assert (row["pre_dimensions"], row["model_connector_dimensions"]) == (600, 150)


def test_as_much_on_a_lossless_control_leaves_nothing_to_the_connector(tmp_path):
    _, row, _, finding = judge(tmp_path, own_and(1.0))
    assert row["matched_control_difference_low"] <= 0 <= row["matched_control_difference_high"]
    assert ", about as much as the matched lossless control; settled.\n" in finding
    assert "as much as on the connector (a difference of" in finding
    assert "the decoder's weakness may account for all of it" in finding


def test_more_on_a_lossless_control_is_the_reconstructors_weakness(tmp_path):
    _, row, _, finding = judge(tmp_path, own_and(1.5))
    assert row["matched_control_difference_high"] < 0
    assert ", 4.0 points less than the matched lossless control; settled.\n" in finding
    assert "more than on the connector (a difference of -4.0 points [" in finding
    assert "the decoder's weakness may account for all of it" in finding


@pytest.mark.parametrize(
    ("own", "word", "takes"),
    [
        (
            # Ten times the parameters halve it: twice as many leave .0812; at 8.2 times as many twice gain a point.
            {"mlp-small": (0.20, 0.20), "mlp-large": (0.10, 0.10)},
            "with capacity (mlp-small 20.0%, mlp-large 10.0%; if it goes on so, about 8.2 times the parameters would ",
            "settle it, near 5.3%)",
        ),
        (
            # Twice the images halve it: five times as many leave .02, of which twice as many take a point.
            {"mlp-small": (0.20, 0.10)},
            "with data (mlp-small at 50% of the images 20.0%, mlp-small at 100% of the images 10.0%; if it goes on ",
            "so, about 5 times the images would settle it, near 2.0%)",
        ),
    ],
)
def test_a_ladder_that_falls_is_not_settled_and_what_it_takes_is_told(tmp_path, own, word, takes):
    _, row, page, finding = judge(tmp_path, own_and(0.5, own=own))
    assert row["settled"] == "no"
    helps = {"with capacity": "a larger decoder", "with data": "more data"}[" ".join(word.split()[:2])]
    assert re.search(rf"^- \*\*toy\*\*: at most 10.0% lost, .*; not settled: {helps} still helps\.$", finding, re.M)
    assert "At most 10.0% [" in finding
    assert f"But the ladder still falls, on the connector {word}{takes}" in finding
    assert "The bound holds, and a larger ladder may lower it." in finding
    assert "<td>no</td>" in page


def test_further_than_two_points_carry_is_not_told(tmp_path):
    own = {"mlp-small": (0.90, 0.90), "mlp-large": (0.80, 0.80)}
    finding = judge(tmp_path, own_and(0.5, own=own))[3]
    assert "it would take over 100 times the parameters, further than two points carry" in finding


def test_a_curve_far_above_the_best_does_not_unsettle(tmp_path):
    own = {"ridge": (0.40, 0.30), "mlp-small": (0.10, 0.10), "mlp-large": (0.10, 0.10)}
    assert judge(tmp_path, own_and(0.01, own=own))[1]["settled"] == "yes"


def test_what_ten_times_the_ladder_would_leave_is_told_by_its_power_laws(tmp_path):
    # Ten times the parameters took .20 to .10, and twice the images .12 to .10.
    own = {"ridge": (0.30, 0.30), "mlp-small": (0.22, 0.20), "mlp-large": (0.12, 0.10)}
    _, row, page, finding = judge(tmp_path, own_and(0.2, own=own))
    expected = 0.10 * 0.5 * 10 ** -(np.log(0.12 / 0.10) / np.log(2))
    assert row["extrapolated_fvu_low"] == pytest.approx(expected, rel=1e-4)
    assert row["extrapolated_fvu_high"] == row["model_connector_fvu_high"]
    assert row["extrapolated_difference_low"] == pytest.approx(expected - row["matched_control_fvu_high"], rel=1e-3)
    assert f"ten times the parameters and images would leave {percent(expected)}: as far as" in finding
    assert f"{expected:.3f} to 0.10" in page


def test_a_network_that_has_not_converged_is_no_evidence(tmp_path):
    own = {"ridge": (0.12, 0.12), "mlp-small": (0.09, 0.09), "mlp-large": (0.08, 0.08)}
    connectors = {"own": ("own", 600, own), "rotation": ("rotation", 600, scaled(0.01))}
    rows = ladder_rows(connectors, unfinished=[("own", "mlp-large")])
    ladder, row, _, finding = judge(tmp_path, rows)
    assert (row["model_connector_decoder"], row["settled"]) == ("mlp-small", "no")
    assert "**toy**: at most 9.0% lost, " in finding
    assert "; not settled: 2 networks have not converged.\n" in finding
    words = "mlp-large at 100% of the images, on the connector, has not converged and is no evidence: its error still "
    # Half of the passes had reached .16: twice as many halve it; 4 times leave .02, of which twice take a point.
    assert f"{words}fell after 30 passes. By its curve it takes about 4 times as many." in finding
    assert "Whether a larger network would do better on the connector was not tested." in finding
    assert not ladder.loc[~ladder["converged"], "best"].any()
    assert "mlp-large (not converged)" in exhibit.page(ladder, LADDER)["decoder"].tolist()
    assert "2 networks have not converged, no evidence." in exhibit.findings(ladder, LADDER)[0]
    assert (row["extrapolated_fvu_low"], row["extrapolated_fvu_high"]) == (0, row["model_connector_fvu_high"])
    assert "Nothing excludes that less is lost, down to none" in finding
    rows.loc[~rows["converged"], "halfway_error"] = 0.08
    assert "it never fell clearly below ridge. Raise epochs, leave learning_rate" in judge(tmp_path, rows)[3]


def test_a_falling_lossless_control_unsettles_the_verdict_too(tmp_path):
    falling = {"mlp-small": (0.14, 0.14), "mlp-large": (0.06, 0.06)}
    rows = ladder_rows({"own": ("own", 600, SETTLED), "invertible_mlp": ("invertible_mlp", 600, falling)})
    _, row, _, finding = judge(tmp_path, rows)
    assert row["settled"] == "no"
    assert "on invertible_mlp with capacity (mlp-small 14.0%, mlp-large 6.0%; if it goes on so, about " in finding
    assert "; not settled: a larger decoder still helps on the control.\n" in finding
    assert "The bound is settled; what is attributed to the connector may yet move up." in finding
    both = ladder_rows({"own": ("own", 600, scaled(2, falling)), "invertible_mlp": ("invertible_mlp", 600, falling)})
    assert "may yet move either way" in judge(tmp_path, both)[3]


def test_the_tolerance_decides(tmp_path):
    own = {
        "ridge": (0.30, 0.30),
        "mlp-small": (0.20, 0.20),
        "mlp-large": (0.10, 0.10),
    }  # twice as large promises .019 less
    assert judge(tmp_path, own_and(0.1, own=own))[1]["settled"] == "no"
    assert judge(tmp_path, own_and(0.1, own=own), settled_within=0.02)[1]["settled"] == "yes"


def test_networks_that_learn_no_more_than_ridge_leave_open_what_more_images_would_bring(tmp_path):
    """Unless others of the same ladder, on a lossless control, show that from so many images networks learn."""
    flat = {"ridge": (0.305, 0.300), "mlp-small": (0.300, 0.297), "mlp-large": (0.300, 0.296)}
    _, row, _, finding = judge(tmp_path, ladder_rows({"own": ("own", 600, flat)}))
    assert row["settled"] == "not tested"
    assert row["extrapolated_fvu_low"] == 0
    assert "No network recovers more than the linear decoder on the connector" in finding
    assert "Nothing excludes that less is lost" in finding
    learned = {"ridge": (0.10, 0.10), "mlp-small": (0.01, 0.01), "mlp-large": (0.005, 0.005)}
    control = {"invertible": ("invertible_mlp", 600, learned)}
    _, row, _, finding = judge(tmp_path, ladder_rows({"own": ("own", 600, flat), **control}))
    assert row["settled"] == "yes"
    assert row["extrapolated_fvu_low"] > 0.25
    assert "No network recovers more" not in finding


def test_what_the_study_lacks_is_said(tmp_path):
    rows = ladder_rows({"own": ("own", 600, {"mlp-small": (0.1,)})})
    _, row, _, finding = judge(tmp_path, rows)
    assert row["settled"] == "not tested"
    assert "at most 10.0% lost, with no lossless control to compare with; not tested whether settled.\n" in finding
    assert "has no lossless control" in finding
    assert "Whether a larger network would do better on the connector was not tested." in finding
    assert "Whether a larger share of the images would do better on the connector was not tested." in finding


def test_a_hard_control_without_networks_leaves_capacity_untested(tmp_path):
    for fvu, settled in ((0.05, "not tested"), (0.001, "yes")):  # what is below the tolerance need not be tested
        control = {"identity": ("identity", 600, {"ridge": (fvu, fvu)})}
        _, row, _, finding = judge(tmp_path, ladder_rows({"own": ("own", 600, SETTLED), **control}))
        assert row["settled"] == settled
        assert ("Whether a larger network would do better on identity was not tested." in finding) == (fvu > 0.01)


def test_the_best_is_chosen_by_held_out_error_and_not_on_these_images(tmp_path):
    held_out = {("own", "ridge"): 0.01}
    rows = ladder_rows({"own": ("own", 600, SETTLED), "identity": ("identity", 600, SETTLED)}, held_out=held_out)
    _, row, _, finding = judge(tmp_path, rows)
    assert row["model_connector_decoder"] == "ridge"
    assert row["model_connector_fvu"] == pytest.approx(0.12, abs=1e-5)
    assert row["matched_control_decoder"] == "mlp-large"
    assert "at most 12.0% lost" in finding


def test_a_smaller_output_is_held_against_a_linear_compression(tmp_path):
    controls = {
        "pca-150": ("pca", 150, scaled(2)),
        "pca-300": ("pca", 300, scaled(1)),
        "pca-75": ("pca", 75, scaled(4)),
    }
    _, row, _, finding = judge(tmp_path, own_and(0.5, numbers=160, **controls))
    assert row["linear_compression_name"] == "pca-150"
    assert row["linear_compression_difference"] == pytest.approx(-0.08, abs=1e-5)
    assert "600 dimensions of an image enter the connector and 160 leave it" in finding
    assert "the lossless controls have wider tokens (600 dimensions), so they measure the decoder" in finding
    assert "150 dimensions in all, leave 16.0%" in finding
    assert "seems to lose less than this linear compression (a difference of -8.0 points" in finding
    _, _, _, finding = judge(tmp_path, own_and(0.5, numbers=160, pca=("pca", 150, scaled(0.5))))
    assert "seems to lose more than this linear compression (a difference of 4.0 points" in finding


def test_position_alone_is_told_and_a_ladder_that_finds_no_more(tmp_path):
    _, _, _, finding = judge(tmp_path, own_and(0.5, other=("other_image", 600, scaled(10))))
    assert "With another image's output, which carries positions only, it is 80.0%." in finding
    _, _, _, finding = judge(tmp_path, own_and(0.5, other=("other_image", 600, scaled(1.05))))
    assert "no less than with another image's output, which carries positions only (8.4%)" in finding


def test_no_bound_where_nothing_is_recovered(tmp_path):
    _, _, _, finding = judge(tmp_path, own_and(0.5, own=scaled(13)))
    assert "No bound, for the best decoder, mlp-large, leaves 104.0%" in finding
    assert "**toy**: no bound on what is lost, " in finding
    assert "at most" not in finding


def test_information_from_nowhere_is_a_warning(tmp_path):
    _, _, _, finding = judge(tmp_path, own_and(0.5, nothing=("other_image_and_patch", 600, scaled(12))))
    assert "Caution: the upper control, which holds no information, is explained to all but 96.0%" in finding
    assert "; caution: the upper control is explained, too.\n" in finding
    _, _, _, finding = judge(tmp_path, own_and(0.5, nothing=("other_image_and_patch", 600, scaled(12.4))))
    assert "aution" not in finding


def test_models_stand_below_each_other(tmp_path):
    first, second = (ladder_rows({"own": ("own", 600, SETTLED)}, model=name) for name in ("one", "two"))
    table, _, page, finding = judge(tmp_path, first, second)
    assert [line[:9] for line in finding.splitlines() if line.startswith("- ")] == ["- **one**", "- **two**"]
    assert finding.splitlines()[-1] == "In brackets: 95% bootstrap interval over images."
    assert list(table["model"].unique()) == ["one", "two"]
    assert page.count("<tr>") == 3


def test_the_ladder_holds_each_loss_with_its_interval(tmp_path):
    ladder, *_ = judge(tmp_path, own_and(0.5))
    row = ladder[
        (ladder["connector"] == "own") & (ladder["decoder"] == "ridge") & (ladder["training_share"] == 0.5)
    ].iloc[0]
    assert row["n"] == 80
    for name in ("fvu", "mse", "cosine_error"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert row["fvu"] == pytest.approx(0.12, abs=1e-5)
    assert row["cosine_error"] == pytest.approx(row["mse"] / 2, rel=1e-4)


def test_other_images_in_one_of_the_rows_are_an_error(tmp_path):
    rows = own_and(0.5)
    rows.loc[len(rows) - 1, "image_id"] = "else"
    with pytest.raises(
        LossmapError, match="0.parquet: invertible_mlp, mlp-large-100 is not on the images of the others"
    ):
        judge(tmp_path, rows)


def test_numbers_in_words():
    assert percent(0.0704) == "7.0%"
    assert percent(0.0034) == "0.34%"
    assert percent(0.00034) == "0.034%"
    assert percent(1e-7) == "under 0.001%"
    assert percent_within(Interval(0.0704, 0.066, 0.0731)) == "7.0% [6.6, 7.3]"
    assert (points(0.01), points(0.025)) == ("1 point", "2.5 points")
    assert points_within(Interval(-0.0004, -0.001, 0.002)) == "-0.040 points [-0.100, 0.200]"


def test_the_share_is_given_without_near_copies_of_training_images_too(tmp_path):
    rows = own_and(1.0)
    _, without, _, finding = judge(tmp_path, rows)
    assert without["near_copies"] == 0
    assert np.isnan(without["model_connector_fvu_without_near_copies"])
    assert "near-copies" not in finding
    ids = [f"i{i}" for i in range(20)]
    _, row, _, finding = judge(tmp_path, rows, near_copies=ids)
    assert row["model_connector_fvu"] == without["model_connector_fvu"]
    rest = rows[~rows["image_id"].isin(ids)]
    best = rest[
        (rest["connector"] == "own") & (rest["decoder"] == row["model_connector_decoder"]) & (rest["share"] == 100)
    ]
    share = best["squared_error"].sum() / best["variance"].sum()
    assert row["model_connector_fvu_without_near_copies"] == pytest.approx(share, rel=1e-4)
    assert f" 20 of the 80 images are near-copies of training images; without them {100 * share:.1f}% [" in finding
    _, row, _, finding = judge(tmp_path, rows, near_copies=[f"i{i}" for i in range(80)])
    assert "80 of the 80 images are near-copies of training images." in finding


def test_settled_is_one_of_three():
    own = Reached("own", "ridge", Interval(0.1, 0.1, 0.1), 6)
    verdict = {"model": "m", "dataset": "d", "images": 1200, "pre_numbers": 6, "own": own}
    fall = Fall("own", "data", "a", "b", 0.2, 0.1)
    assert Verdict(**verdict).settled == "yes"
    assert Verdict(**verdict, untested=(Untested("own", "data"),)).settled == "not tested"
    assert Verdict(**verdict, untested=(Untested("own", "data"),), falls=(fall,)).settled == "no"
    assert "(n = 1,200)" in sentences(Verdict(**verdict))
