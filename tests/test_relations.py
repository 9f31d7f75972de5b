"""Relations: theorems, SciPy, hand counts, chance, and what is undefined."""

import itertools

import numpy as np
import pytest
from scipy import sparse, stats

from lossmap.measures.correlation import neighbour_spearman, rank_residuals, spearman
from lossmap.measures.influence import PerItem
from lossmap.measures.relations import (
    adjusted_p,
    difference_of_means,
    partial_difference,
    partial_permutation_p,
    partial_spearman,
    permutation_p,
    quarters,
    relate,
    spearman_rho,
)

rng = np.random.default_rng(7)
N = 200
CONFOUNDER = rng.normal(size=N)
X = CONFOUNDER + rng.normal(size=N)
Y = CONFOUNDER + rng.normal(size=N)
ACCURACY = rng.choice([0, 0.3, 0.6, 0.9, 1], size=N)  # ties, as scores have them
FAST = {"resamples": 200, "permutations": 199}


def slow_partial(x, y, controls):
    """Ranks, least squares, Pearson of the residuals."""
    x, y, *controls = (stats.rankdata(column) for column in (x, y, *controls))
    design = np.column_stack([np.ones(len(x)), *controls])
    rest = [side - design @ np.linalg.lstsq(design, side)[0] for side in (x, y)]
    return stats.pearsonr(*rest).statistic


@pytest.mark.parametrize("y", [Y, ACCURACY], ids=["distinct", "ties"])
def test_rho_is_scipys(y):
    found = relate(X, y, [], **FAST)
    theirs = stats.spearmanr(X, y)
    assert found.raw_rho == pytest.approx(theirs.statistic, abs=1e-12)
    assert found.raw_rho_p == pytest.approx(theirs.pvalue, abs=0.02)
    assert spearman(X, y, 10).p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert spearman_rho(X, y) == theirs.statistic
    assert found.n == N
    assert found.reason == ""


def test_a_partial_p_of_what_a_confounder_alone_makes_is_uniform():
    """The raw p of the same columns finds a relation most of the time."""
    raw, partial = [], []
    for seed in range(300):
        z = rng.normal(size=40)
        x, y = (stats.rankdata(z + rng.normal(size=40)) for _ in range(2))
        raw.append(permutation_p(x, y, 99, seed).p)
        partial.append(partial_permutation_p(x, y, [z], 199, seed).p)
    assert np.mean(np.array(raw) <= 0.05) > 0.7
    assert 0.02 < np.mean(np.array(partial) <= 0.05) < 0.09
    assert stats.kstest(partial, "uniform").pvalue > 0.01


def test_a_partial_p_without_controls_is_that_of_all_orders():
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 3, 5, 4])
    every = np.array([np.dot(order, y) for order in itertools.permutations(x)])
    exact = 2 * min(np.mean(every >= x @ y), np.mean(every <= x @ y))
    assert partial_permutation_p(x, y, [], 19999).p == pytest.approx(exact, abs=0.01)


def test_a_partial_p_is_that_of_a_slow_permutation_with_controls_taken_out_again():
    x, y, z = (stats.rankdata(side) for side in (X, ACCURACY, CONFOUNDER))
    design = np.column_stack([np.ones(N), z])

    def rest(side):
        return side - design @ np.linalg.lstsq(design, side)[0]

    batches = np.random.default_rng(3).permuted(np.tile(rest(x), (199, 1)), axis=1)
    slow = np.array([np.corrcoef(rest(dealt), rest(y))[0, 1] for dealt in batches])
    observed = np.corrcoef(rest(x), rest(y))[0, 1]
    wanted = 2 * min(1 + (slow >= observed).sum(), 1 + (slow <= observed).sum()) / 200
    assert partial_permutation_p(x, y, [CONFOUNDER], 199, seed=3).p == pytest.approx(wanted)


def test_a_partial_p_knows_its_floor():
    assert partial_permutation_p(X, X + 0.1 * Y, [CONFOUNDER], 199) == (2 / 200, True)
    assert not partial_permutation_p(X, Y, [CONFOUNDER], 199).at_floor


@pytest.mark.parametrize("y", [Y, ACCURACY], ids=["distinct", "ties"])
def test_permutation_p_is_that_of_spearmanr_on_permuted_pairs(y):
    found = permutation_p(X, y, permutations=499, seed=3)
    theirs = stats.permutation_test(
        (X,),
        lambda x: stats.spearmanr(x, y).statistic,
        permutation_type="pairings",
        vectorized=False,
        n_resamples=499,
        rng=np.random.default_rng(3),
        batch=2**20 // N,
    ).pvalue
    assert found.p == theirs


def test_permutation_p_is_never_zero_and_counts_the_observed_order():
    assert permutation_p(np.arange(50), np.arange(50), permutations=99) == (2 / 100, True)
    assert permutation_p(np.arange(50), -np.arange(50), permutations=99) == (2 / 100, True)


def test_few_items_are_permuted_in_every_order():
    x, y = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])
    every = [stats.spearmanr(order, y).statistic for order in itertools.permutations(x)]
    observed = stats.spearmanr(x, y).statistic
    found = permutation_p(x, y)
    assert found.p == pytest.approx(2 * np.mean(np.array(every) >= observed - 1e-12))
    assert not permutation_p(x, x, permutations=24).at_floor  # every order was tried: p is exact, however small


def test_permutation_p_of_unrelated_columns_is_uniform():
    p = [permutation_p(rng.normal(size=30), rng.normal(size=30), 199, seed).p for seed in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_bootstrap_interval_is_that_of_the_shared_spearman():
    found, whole = relate(X, Y, [CONFOUNDER], **FAST, seed=5), spearman(X, Y, 200, seed=5)
    assert (found.raw_rho_low, found.raw_rho_high) == (whole.low, whole.high)
    part = partial_spearman(X, Y, [CONFOUNDER], 200, seed=5)
    assert (found.partial_rho, found.partial_rho_low, found.partial_rho_high) == (part.rho, part.low, part.high)


def test_without_controls_partial_rho_is_rho_and_so_is_its_interval():
    part, whole = partial_spearman(X, ACCURACY, [], 200, seed=1), spearman(X, ACCURACY, 200, seed=1)
    assert (part.rho, part.low, part.high, part.p) == pytest.approx((whole.rho, whole.low, whole.high, whole.p))


@pytest.mark.parametrize("controls", [[CONFOUNDER], [CONFOUNDER, ACCURACY], [ACCURACY]], ids=["1", "2", "ties"])
def test_partial_rho_is_the_correlation_of_rank_residuals(controls):
    assert partial_spearman(X, Y, controls, 1).rho == pytest.approx(slow_partial(X, Y, controls), abs=1e-12)


def test_partial_rho_by_the_formula_for_one_control():
    (xy, xz, yz) = (spearman_rho(*pair) for pair in ((X, Y), (X, CONFOUNDER), (Y, CONFOUNDER)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = partial_spearman(X, Y, [CONFOUNDER], 1)
    assert found.rho == pytest.approx(expected)
    t = expected * np.sqrt((N - 3) / (1 - expected**2))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), N - 3))
    assert spearman_rho(X, Y, [CONFOUNDER]) == pytest.approx(expected)
    assert np.isnan(spearman_rho(X, Y, [X]))


def test_what_a_confounder_makes_goes_away_and_what_it_does_not_make_stays():
    found = relate(X, Y, [CONFOUNDER], **FAST)
    assert found.raw_rho_low > 0.2
    assert found.partial_rho_low < 0 < found.partial_rho_high
    direct = partial_spearman(X, X + 0.1 * CONFOUNDER + 0.3 * rng.normal(size=N), [CONFOUNDER], 200)
    assert direct.low > 0.7


def test_the_partial_interval_is_that_of_a_slow_bootstrap():
    draws = np.random.default_rng(9).integers(0, N, (100, N), dtype=np.int32)
    slow = [slow_partial(X[d], Y[d], [CONFOUNDER[d], ACCURACY[d]]) for d in draws]
    found = partial_spearman(X, Y, [CONFOUNDER, ACCURACY], 100, seed=9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-9)


def alone(values):
    """Values that no other item moves."""
    return PerItem(values, values - values.mean(), sparse.csr_array((N, N)))


def test_where_items_move_themselves_alone_the_interval_for_neighbours_is_the_usual_one():
    for controls in ([], [CONFOUNDER], [CONFOUNDER, ACCURACY]):
        found, usual = (
            neighbour_spearman(alone(X), alone(Y), controls=controls),
            partial_spearman(X, Y, controls),
        )
        assert found.rho == pytest.approx(usual.rho)
        assert (found.low, found.high) == pytest.approx((usual.low, usual.high), abs=0.03)
    assert found.p == pytest.approx(usual.p, abs=0.05)


def test_of_neighbours_what_controls_explain_wholly_has_no_partial_correlation():
    found = neighbour_spearman(alone(X), alone(Y), controls=[X])
    assert np.isnan([found.rho, found.low, found.high, found.p]).all()
    assert found.reason == "the controls explain all of x or y"


def test_a_constant_or_repeated_control_takes_nothing_out():
    alone = partial_spearman(X, Y, [CONFOUNDER], 50)
    for extra in (np.ones(N), CONFOUNDER, 2 * CONFOUNDER + 1):
        more = partial_spearman(X, Y, [CONFOUNDER, extra], 50)
        assert (more.rho, more.low, more.high) == pytest.approx((alone.rho, alone.low, alone.high))


@pytest.mark.parametrize(
    ("loss", "score", "reason"),
    [
        (np.arange(5), np.ones(5), "score is constant"),
        (np.zeros(5), np.arange(5), "loss is constant"),
        (np.zeros(5), np.ones(5), "loss and score are constant"),
        ([1.0, 2], [1.0, 2], "2 items; 3 are needed"),
        ([], [], "0 items; 3 are needed"),
    ],
)
def test_what_is_undefined_is_nan_and_says_why(loss, score, reason):
    found = relate(loss, score, [], **FAST)
    assert np.isnan([found.raw_rho, found.raw_rho_low, found.raw_rho_high, found.raw_rho_p, found.partial_rho]).all()
    assert found.reason == reason
    assert found.n == len(loss)
    assert np.isnan(spearman_rho(loss, score))


def test_a_partial_that_is_undefined_leaves_the_whole():
    found = relate(X, Y, [X], **FAST)
    assert found.raw_rho == spearman_rho(X, Y)
    assert np.isnan([found.partial_rho, found.partial_rho_p]).all()
    assert found.reason == "partial: the controls explain all of x or y"
    few = relate([1.0, 2, 4, 3], [1.0, 2, 3, 4], [[1.0, 3, 2, 4], [2.0, 1, 4, 3]], **FAST)
    assert few.raw_rho == pytest.approx(0.8)
    assert few.reason == "partial: 4 items for 2 controls"


def test_rounding_is_not_taken_for_what_controls_leave():
    for _ in range(30):
        x, y, z = rng.normal(size=(3, 57))
        assert np.isnan(partial_spearman(x, y, [z, np.exp(x)], 1).rho)


def test_a_difference_of_means_is_scipys():
    a, b = rng.normal(size=40), rng.normal(0.5, size=70)
    found = difference_of_means(a, b, resamples=300, permutations=299, confidence=0.9, seed=2)
    assert found.difference == pytest.approx(a.mean() - b.mean())

    def difference(a, b):
        return a.mean() - b.mean()

    interval = stats.bootstrap(
        (a, b), difference, vectorized=False, n_resamples=300, method="percentile", confidence_level=0.9,
        rng=np.random.default_rng(2), batch=2**20 // 110,
    ).confidence_interval  # fmt: skip
    assert (found.difference_low, found.difference_high) == pytest.approx(tuple(interval))
    test = stats.permutation_test(
        (a, b), difference, vectorized=False, n_resamples=299, rng=np.random.default_rng(2), batch=2**20 // 110
    )
    assert found.difference_p == test.pvalue
    assert found.difference_p_at_floor == (test.pvalue == 2 / 300)
    assert found.difference_reason == ""


def test_groups_far_apart_differ_and_the_sign_is_of_the_first_less_the_second():
    found = difference_of_means([5.0, 6, 7, 5, 6], [1.0, 2, 1, 2, 1, 2], **FAST)
    assert found.difference == pytest.approx(5.8 - 1.5)
    assert found.difference_low > 3
    assert found.difference_p <= 0.05


GROUP = ACCURACY > 0.5


@pytest.mark.parametrize("controls", [[], [CONFOUNDER], [CONFOUNDER, CONFOUNDER, np.ones(N)]], ids=["0", "1", "same"])
def test_a_partial_difference_is_the_coefficient_of_least_squares(controls):
    values = X + GROUP
    found = partial_difference(values, GROUP, controls, **FAST)
    design = np.column_stack([GROUP, np.ones(N), *(stats.rankdata(control) for control in controls[:1])])
    assert found.difference == pytest.approx(np.linalg.lstsq(design, values)[0][0])
    assert found.difference_low < found.difference < found.difference_high
    if not controls:
        raw = difference_of_means(values[GROUP], values[~GROUP], **FAST)
        assert found.difference == pytest.approx(raw.difference)
        assert (found.difference_low, found.difference_high) == pytest.approx(
            (raw.difference_low, raw.difference_high), abs=0.1
        )


def test_a_partial_difference_has_the_interval_of_a_slow_bootstrap():
    draws, slow = np.random.default_rng(4), []
    inside, outside = np.flatnonzero(GROUP), np.flatnonzero(~GROUP)
    design = np.column_stack([GROUP, np.ones(N), stats.rankdata(CONFOUNDER)])
    sides = [side[draws.integers(0, len(side), (100, len(side)))] for side in (inside, outside)]
    for rows in np.concatenate(sides, axis=1):
        slow.append(np.linalg.lstsq(design[rows], X[rows])[0][0])
    found = partial_difference(X, GROUP, [CONFOUNDER], resamples=100, permutations=9, seed=4)
    assert (found.difference_low, found.difference_high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_a_difference_that_a_confounder_makes_goes_away():
    """The group follows the confounder, and so do the values: nothing is left of the difference given it."""
    group = CONFOUNDER + 0.3 * rng.normal(size=N) > 0
    raw = difference_of_means(X[group], X[~group], **FAST)
    given = partial_difference(X, group, [CONFOUNDER], **FAST)
    assert raw.difference_low > 0.5
    assert given.difference_low < 0 < given.difference_high
    assert (raw.difference_p_at_floor, given.difference_p_at_floor) == (True, False)


@pytest.mark.parametrize(
    ("values", "first", "controls", "reason"),
    [
        (X, np.arange(N) < 1, [], "groups of 1 and 199; 2 in each are needed"),
        (np.ones(N), GROUP, [], "all values are equal"),
        (X, GROUP, [GROUP.astype(float)], "the controls explain all of the values or of the groups"),
        (X[:4], np.array([1, 1, 0, 0]), [X[:4], Y[:4]], "4 items for 2 controls"),
    ],
)
def test_a_partial_difference_that_is_undefined_says_why(values, first, controls, reason):
    found = partial_difference(values, first, controls, **FAST)
    assert np.isnan(found.difference)
    assert found.difference_reason == reason


def test_split_of_six_by_every_partition():
    a, b = [1.0, 2, 3], [4.0, 5, 7]  # of 20 splits this is the most extreme one
    assert difference_of_means(a, b).difference_p == pytest.approx(2 / 20)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ([1.0, 2, 3], [], "groups of 3 and 0; 2 in each are needed"),
        ([1.0], [1.0, 2], "groups of 1 and 2; 2 in each are needed"),
        ([1.0, 1], [1.0, 1, 1], "all values are equal"),
    ],
)
def test_groups_that_cannot_be_compared_are_nan_and_say_why(a, b, reason):
    found = difference_of_means(a, b, **FAST)
    assert np.isnan([found.difference, found.difference_low, found.difference_high, found.difference_p]).all()
    assert found.difference_reason == reason


def test_rank_residuals_do_not_go_with_the_controls():
    rest = rank_residuals(X, [CONFOUNDER, ACCURACY])
    for control in (CONFOUNDER, ACCURACY, np.ones(N)):
        assert abs(rest @ stats.rankdata(control)) < 1e-6 * N**3
    assert stats.pearsonr(rest, rank_residuals(Y, [CONFOUNDER, ACCURACY])).statistic == pytest.approx(
        slow_partial(X, Y, [CONFOUNDER, ACCURACY])
    )
    assert rank_residuals([3.0, 1, 2], []).tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match="x has 200 values and control 0 199"):
        rank_residuals(X, [Y[1:]])


def test_quarters_counted_by_hand():
    highest, lowest = quarters([0.5, 9, 3, 1, 0.1, 2, 2, 8, 7])
    assert sorted(highest.tolist()) == [1, 7]
    assert sorted(lowest.tolist()) == [0, 4]
    highest, lowest = quarters(np.ones(8))
    assert (highest.tolist(), lowest.tolist()) == ([6, 7], [0, 1])
    with pytest.raises(ValueError, match="there are 3 items; wanted at least 4"):
        quarters([1.0, 2, 3])


def test_adjusted_p_is_scipys_and_leaves_out_what_was_not_tested():
    p = np.array([0.001, np.nan, 0.04, 0.03, 0.5, np.nan])
    found = adjusted_p(p)
    assert np.isnan(found).tolist() == np.isnan(p).tolist()
    assert found[~np.isnan(p)] == pytest.approx(stats.false_discovery_control(p[~np.isnan(p)], method="bh"))
    assert found[[0, 3, 2, 4]] == pytest.approx([0.004, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])  # by hand
    assert np.isnan(adjusted_p([np.nan, np.nan])).all()
    with pytest.raises(ValueError, match="only numbers between 0 and 1"):
        adjusted_p([0.5, 1.5])


def test_the_same_seed_gives_the_same_numbers():
    assert relate(X, Y, [CONFOUNDER], **FAST, seed=1) == relate(X, Y, [CONFOUNDER], **FAST, seed=1)
    assert relate(X, Y, [CONFOUNDER], **FAST, seed=1) != relate(X, Y, [CONFOUNDER], **FAST, seed=2)
    a, b = X[:50], Y[50:]
    assert difference_of_means(a, b, **FAST, seed=1) == difference_of_means(a, b, **FAST, seed=1)


def test_values_that_do_not_belong_together_are_refused():
    broken = np.where(np.arange(N) == 11, np.nan, X)
    with pytest.raises(ValueError, match="loss has 200 values and score 199"):
        relate(X, Y[1:], [])
    with pytest.raises(ValueError, match="loss: 1 of 200 are not finite; the first is entry 11"):
        relate(broken, Y, [])
    with pytest.raises(ValueError, match="control 1: 1 of 200 are not finite; the first is entry 11"):
        partial_spearman(X, Y, [CONFOUNDER, broken])
    with pytest.raises(ValueError, match="b: 1 of 200 are not finite"):
        difference_of_means(X, broken)
    with pytest.raises(ValueError, match="needs 3 pairs that vary: y is constant"):
        permutation_p(X, np.ones(N))
    with pytest.raises(ValueError, match="resamples is 0"):
        partial_spearman(X, Y, [], resamples=0)
    with pytest.raises(ValueError, match="confidence is 2"):
        difference_of_means(X, Y, confidence=2)
