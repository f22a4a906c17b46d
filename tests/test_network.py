"""The networks' shapes and promises."""
import numpy as np
import pytest
import torch

from texgan.network import Generator, PatchDiscriminator


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    network = Generator(channels=4, depth=5, size=64, maps=2).eval()
    torch.nn.init.normal_(network.last.weight, 0, 0.1)
    return network


def inputs(count, size=64, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.uniform(-1, 1, (count, 3, size, size)).astype(np.float32)) for _ in range(2)]


def test_a_new_generator_changes_nothing():
    assert (Generator(channels=4, depth=5, size=64)(*inputs(1)) == 0).all()


def test_a_texture_does_not_depend_on_its_batch(generator):
    source, neutral = inputs(4)
    with torch.no_grad():
        together = generator(source, neutral)
        alone = torch.cat([generator(source[i:i + 1], neutral[i:i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_two_runs_give_the_same_bytes(generator):
    with torch.no_grad():
        assert torch.equal(generator(*inputs(1)), generator(*inputs(1)))


def test_the_change_depends_on_both_textures(generator):
    source, neutral = (x.requires_grad_(True) for x in inputs(1))
    generator(source, neutral).abs().sum().backward()
    assert source.grad.abs().sum() > 0 and neutral.grad.abs().sum() > 0


def test_a_patch_is_70_texels():
    network = PatchDiscriminator(channels=4)
    texture = torch.zeros(1, 3, 256, 256, requires_grad=True)
    scores = network(torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256), texture)
    assert scores.shape == (1, 1, 30, 30)
    scores[0, 0, 15, 15].backward()
    rows, columns = np.nonzero(texture.grad[0].abs().sum(dim=0).numpy())
    assert np.ptp(rows) + 1 == 70 and np.ptp(columns) + 1 == 70


def test_the_settings_make_the_same_network():
    first = Generator(channels=4, depth=5, size=64, maps=2)
    second = Generator(**first.settings)
    second.load_state_dict(first.state_dict())
