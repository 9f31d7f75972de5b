"""Patch losses: hand counts, theorems, independent implementations, every error."""

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from lossmap.measures.patch_loss import patch_losses

rng = np.random.default_rng(0)
PATCHES = torch.from_numpy(rng.normal(size=(5, 7, 6)))
OTHERS = PATCHES + 0.5 * torch.from_numpy(rng.normal(size=PATCHES.shape))


def test_by_hand():
    patches = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]]])
    reconstructed = torch.tensor([[[3.0, 0.0], [0.0, -2.0], [2.0, 2.0]]])
    losses = patch_losses(patches, reconstructed)
    assert losses.squared_error.tolist() == [[8.0, 8.0, 1.0]]
    np.testing.assert_allclose(losses.norm_difference, [[2.0, 0.0, -np.sqrt(2)]])
    np.testing.assert_allclose(losses.cosine_error, [[0.4, 2.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(losses.norm, [[5.0, 2.0, np.sqrt(2)]])


def test_a_perfect_reconstruction_loses_nothing():
    losses = patch_losses(PATCHES, PATCHES)
    assert (losses.squared_error == 0).all()
    assert (losses.norm_difference == 0).all()
    assert losses.cosine_error.abs().max() < 1e-15


def test_scipy_finds_the_same_cosine_and_distance():
    losses = patch_losses(PATCHES, OTHERS)
    pairs = list(zip(PATCHES.reshape(-1, 6).numpy(), OTHERS.reshape(-1, 6).numpy(), strict=True))
    cosine = [distance.cosine(a, b) for a, b in pairs]
    squared = [distance.sqeuclidean(a, b) / 6 for a, b in pairs]
    np.testing.assert_allclose(losses.cosine_error.flatten(), cosine, rtol=1e-12)
    np.testing.assert_allclose(losses.squared_error.flatten(), squared, rtol=1e-12)


def test_length_is_seen_by_the_norms_and_not_by_the_cosine():
    losses = patch_losses(PATCHES, 0.25 * PATCHES)
    assert losses.cosine_error.abs().max() < 1e-15
    np.testing.assert_allclose(losses.norm_difference, 0.75 * losses.norm)


def test_rotation_of_both_sides_changes_nothing():
    q = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    for one, other in zip(patch_losses(PATCHES, OTHERS), patch_losses(PATCHES @ q, OTHERS @ q), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_predicting_the_mean_scores_one_on_average_and_has_no_direction():
    patches = torch.from_numpy(rng.normal(size=(400, 4, 50)))
    losses = patch_losses(patches, torch.zeros_like(patches))
    assert abs(losses.squared_error.mean() - 1) < 0.01
    assert (losses.cosine_error == 1).all()
    np.testing.assert_allclose(losses.norm_difference, losses.norm)


def test_zero_vectors_follow_the_stated_rule():
    zero, other = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    assert patch_losses(zero, zero).cosine_error.item() == 0
    assert patch_losses(zero, other).cosine_error.item() == 1
    assert patch_losses(other, zero).cosine_error.item() == 1
    assert patch_losses(zero, other).norm_difference.item() == pytest.approx(-np.sqrt(3))


def test_tiny_vectors_keep_their_direction():
    tiny = torch.full((1, 1, 2), 1e-200, dtype=torch.float64)
    assert patch_losses(tiny, 3 * tiny).cosine_error.item() == pytest.approx(0, abs=1e-15)


def test_a_patchs_losses_do_not_depend_on_the_batch():
    patches, others = PATCHES.float(), OTHERS.float()
    whole = patch_losses(patches, others)
    for i in range(5):
        for one, all_of_them in zip(patch_losses(patches[i : i + 1], others[i : i + 1]), whole, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], rtol=0, atol=1e-15)


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"patches: have shape \(7, 6\); wanted images by patches by features"):
        patch_losses(PATCHES[0], PATCHES[0])
    with pytest.raises(ValueError, match=r"patches: have shape \(0, 7, 6\); .* none empty"):
        patch_losses(PATCHES[:0], PATCHES[:0])
    with pytest.raises(ValueError, match=r"reconstructed: has shape \(5, 6, 6\); patches have \(5, 7, 6\)"):
        patch_losses(PATCHES, PATCHES[:, 1:])
    broken = PATCHES.clone()
    broken[2, 4, 1], broken[3, 0, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="reconstructed: 2 are not finite; the first is patch 4 of image 2"):
        patch_losses(PATCHES, broken)
    with pytest.raises(ValueError, match="patches: 2 are not finite; the first is patch 4 of image 2"):
        patch_losses(broken, PATCHES)
