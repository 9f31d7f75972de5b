"""Other indexes: streamed search equals the search in memory, sinks and whitening do what they say, every error."""

import numpy as np
import pytest

from lossmap.measures.index_ablation import pooled_without_sinks, streamed_neighbours, whitened
from lossmap.measures.neighbours import nearest_neighbours, rank_neighbours

rng = np.random.default_rng(17)
TOKENS = (rng.normal(size=(90, 6, 7)) + rng.normal(size=(90, 1, 7)) + 2).astype(np.float16)
FLAT = TOKENS.reshape(90, -1)


def streamed(tokens, k, block, calls=None):
    def read(start, stop):
        if calls is not None:
            calls.append(stop - start)
        return tokens[start:stop]

    return streamed_neighbours(read, len(tokens), k, block)


@pytest.mark.parametrize("block", [1, 7, 32, 90, 500])
@pytest.mark.parametrize("k", [1, 12, 89])
def test_a_streamed_search_finds_what_a_search_in_memory_finds(block, k):
    found = streamed(TOKENS, k, block)
    for metric in ("euclidean", "cosine"):
        np.testing.assert_array_equal(found[metric].first(k), nearest_neighbours(FLAT, k, metric))


def test_slabs_of_features_change_nothing(monkeypatch):
    wanted = streamed(TOKENS, 12, 32)
    monkeypatch.setattr("lossmap.measures.index_ablation.PRODUCT_BYTES", 32 * 8 * 5)
    for metric, ranking in streamed(TOKENS, 12, 32).items():
        np.testing.assert_array_equal(ranking.items, wanted[metric].items)


def test_no_more_than_two_blocks_are_read_at_a_time():
    calls = []
    streamed(TOKENS, 5, 20, calls)
    assert max(calls) == 20
    assert len(calls) == 5 + 4 + 3 + 2 + 1


@pytest.mark.parametrize("block", [1, 7, 41, 120])
def test_ties_are_those_of_a_search_in_memory_whatever_the_block(block):
    twins = np.concatenate([TOKENS[:40], TOKENS[:40], TOKENS[:40]])
    found = streamed(twins, 5, block)
    for metric in ("euclidean", "cosine"):
        wanted = rank_neighbours(twins.reshape(120, -1), 5, metric)
        np.testing.assert_array_equal(found[metric].first(5), wanted.first(5))
        np.testing.assert_array_equal(found[metric].shares(5).toarray(), wanted.shares(5).toarray())
    for ranking in streamed(np.ones((9, 2, 3)), 3, 4).values():
        np.testing.assert_allclose(ranking.shares(3).toarray(), (1 - np.eye(9)) * 3 / 8)


@pytest.mark.parametrize("block", [1, 4, 30])
def test_equally_near_items_that_differ_tie_too(block):
    x = rng.integers(0, 3, size=(30, 2, 2)).astype(np.float16) + 1
    found = streamed(x, 4, block)["euclidean"]
    np.testing.assert_allclose(found.shares(4).toarray(), rank_neighbours(x.reshape(30, -1), 4).shares(4).toarray())


def test_a_sink_is_left_out_of_the_mean():
    tokens = TOKENS[:5].astype(np.float32)
    tokens[2, 4] *= 50
    pooled = pooled_without_sinks(tokens, 4)
    np.testing.assert_allclose(pooled.mean[[0, 1, 3, 4]], tokens[[0, 1, 3, 4]].mean(1), rtol=1e-5)
    np.testing.assert_allclose(pooled.mean[2], np.delete(tokens[2], 4, axis=0).mean(0), rtol=1e-5)
    np.testing.assert_allclose(pooled.left_out, [0, 0, 1 / 6, 0, 0])


def test_whitened_embeddings_have_unit_variance_and_keep_nearly_all():
    x = rng.normal(size=(200, 6)) * [5, 3, 2, 2, 1.5, 0.01]
    white = whitened(x)
    assert white.shape == (200, 5)
    np.testing.assert_allclose(np.cov(white.T, ddof=0), np.eye(5), atol=1e-9)


def test_where_all_are_alike_there_is_nothing_to_whiten():
    assert whitened(np.ones((4, 2))).tolist() == [[0.0]] * 4


def test_whitening_undoes_any_linear_map():
    x = rng.normal(size=(200, 3))
    one, two = (whitened(y) for y in (x, x @ [[2, 1, 0], [0, 1, 1], [0, 0, 1]] + 7))
    distances = [np.linalg.norm(white[:, None] - white[None], axis=2) for white in (one, two)]
    np.testing.assert_allclose(*distances, atol=1e-8)


def test_faults_are_named():
    with pytest.raises(ValueError, match="k is 90; wanted 1 to 89"):
        streamed(TOKENS, 90, 10)
    with pytest.raises(ValueError, match="block is 0; wanted at least 1"):
        streamed(TOKENS, 3, 0)
    wrong = TOKENS.copy()
    wrong[33, 2, 1] = np.nan
    with pytest.raises(ValueError, match="item 33 is not finite"):
        streamed(wrong, 3, 20)
    wrong[33] = 0
    with pytest.raises(ValueError, match="item 33 has length zero"):
        streamed(wrong, 3, 20)
    with pytest.raises(ValueError, match="ratio is 1; wanted more than 1"):
        pooled_without_sinks(TOKENS, 1)
    wrong[33, 2, 1] = np.inf
    with pytest.raises(ValueError, match="tokens: item 33 is not finite"):
        pooled_without_sinks(wrong, 2)
    with pytest.raises(ValueError, match="x: 1 of 90 rows are not finite"):
        whitened(np.where(np.arange(90)[:, None] == 3, np.nan, FLAT))
