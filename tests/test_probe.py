"""The patch probe: known responses, agreement with exact Jacobians, every family's connector alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIDE, WIDTH, save_tiny
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.probe import probe_patches
from lossmap.vlm.recompute import load_connector

generator = torch.Generator().manual_seed(0)
PRE, OTHERS = torch.randn((2, 3, 6, 5), generator=generator)


class Connector:
    """A plain function of pre as a connector."""

    def __init__(self, function):
        self.function, self.batches = function, []

    def __call__(self, pre):
        self.batches.append(len(pre))
        return self.function(pre)


def probe(function, pre=PRE, others=OTHERS, directions=3, step=0.01, seed=0):
    return probe_patches(function, pre, others, directions, step, seed, 4)


Q, _ = torch.linalg.qr(torch.randn((30, 30), generator=generator))


@pytest.mark.parametrize(
    ("function", "answer"),
    [(lambda x: x, 1), (lambda x: 3 * x + 7, 3), (lambda x: 2 * x.flatten(1) @ Q, 2)],
)
def test_identity_scaling_and_rotation_answer_with_their_scale_in_every_direction(function, answer):
    found = probe(function)
    assert found.random.shape == found.towards.shape == (3, 6)
    for response in found:
        torch.testing.assert_close(response, torch.full((3, 6), float(answer)), rtol=1e-4, atol=0)


def test_a_patch_that_is_not_seen_has_no_response():
    found = probe(lambda x: x[:, [0, 1, 3, 4, 5]])
    for response in found:
        assert (response[:, 2] == 0).all()
        assert (response[:, [0, 1, 3, 4, 5]] > 0.9).all()


def test_pooling_answers_the_same_for_every_patch():
    for response in probe(lambda x: x.mean(1)):
        torch.testing.assert_close(response, torch.full((3, 6), 1 / 6), rtol=1e-3, atol=0)


def test_random_directions_estimate_the_frobenius_norm():
    matrix = torch.randn((5, 8), generator=generator) * torch.tensor([3, 1, 1, 0.1, 0.1])[:, None]
    found = probe(lambda x: x @ matrix, directions=4000)
    wanted = matrix.norm() / 5**0.5
    torch.testing.assert_close(found.random, wanted.expand(3, 6), rtol=0.05, atol=0)


def test_directions_towards_other_images_are_theirs():
    """A connector that sees the first feature alone moves as far as the way to the other patch goes along it."""
    found = probe(lambda x: x[:, :, 0])
    apart = OTHERS - PRE
    torch.testing.assert_close(found.towards, (apart[:, :, 0] / apart.norm(dim=2)).abs(), rtol=1e-3, atol=1e-5)
    same = OTHERS.clone()
    same[1, 4] = PRE[1, 4]
    towards = probe(lambda x: x, others=same).towards
    assert towards.isnan().nonzero().tolist() == [[1, 4]]


def test_batches_have_a_bound_and_change_nothing():
    connector = Connector(lambda x: x.tanh())
    wanted = probe_patches(connector, PRE, OTHERS, 3, 0.01, 0, 4)
    assert max(connector.batches) == 4
    for one, two in zip(probe_patches(connector, PRE, OTHERS, 3, 0.01, 0, 1000), wanted, strict=True):
        torch.testing.assert_close(one, two)
    assert max(connector.batches) == 24
    alone = probe_patches(connector, PRE[1:], OTHERS[1:], 3, 0.01, 0, 4)
    assert not torch.equal(alone.random[0], wanted.random[0])


def test_the_same_seed_gives_the_same_response():
    one, two, other = (probe(torch.tanh, seed=seed).random for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def noise(count):
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)]


def embedded(vision, count):
    prepared = vision.preprocessor.prepare(noise(count))
    return vision.embed(vision.preprocessor.normalise(prepared, vision.device, vision.dtype))


@pytest.mark.parametrize("model_type", ["llava", "idefics2", "qwen2_5_vl"])
def test_the_probe_agrees_with_exact_jacobians(model_type, tmp_path):
    save_tiny(model_type, tmp_path)
    pre, _ = (values.clone() for values in embedded(load_vision_side(tmp_path), 2))
    connector, patches = load_connector(tmp_path), [0, 9, 37]
    found = probe_patches(connector.post, pre[:1], pre[1:], 64, 1e-3, 0, 64)
    exact = []
    for patch in patches:

        def post(moved, patch=patch):
            image = torch.cat([pre[0, :patch], moved[None], pre[0, patch + 1 :]])
            return connector.post(image[None]).flatten()

        with sdpa_kernel(SDPBackend.MATH):  # the only one with forward derivatives
            jacobian = torch.func.jacfwd(post)(pre[0, patch]).detach()
        assert jacobian.shape[1] == WIDTH
        exact.append(jacobian.norm() / WIDTH**0.5)
        direction = pre[1, patch] - pre[0, patch]
        along = (jacobian @ (direction / direction.norm())).norm()
        assert found.towards[0, patch] == pytest.approx(float(along), rel=0.02)
    torch.testing.assert_close(found.random[0, patches], torch.stack(exact), rtol=0.1, atol=0)


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"pre has shape \(3, 6, 5\) and others \(2, 6, 5\)"):
        probe(lambda x: x, others=OTHERS[1:])
    for wrong in ({"directions": 0}, {"step": 0}):
        with pytest.raises(ValueError, match="directions is .* and step .*; wanted both above 0"):
            probe(lambda x: x, **wrong)
