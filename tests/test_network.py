"""The networks' shapes and promises."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from texgan.network import DoublingConv, Generator, PatchDiscriminator


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


def test_a_doubling_convolution_is_one_of_the_enlarged_picture():
    torch.manual_seed(0)
    conv, x, skip = DoublingConv(2, 3, 5), torch.randn(2, 2, 7, 6), torch.randn(2, 3, 14, 12)
    plain = F.conv2d(torch.cat([F.interpolate(x, scale_factor=2), skip], dim=1), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x, skip), plain, rtol=0, atol=1e-5)
    gradient = [torch.autograd.grad((y ** 2).sum(), conv.weight)[0] for y in (conv(x, skip), plain)]
    torch.testing.assert_close(*gradient, rtol=1e-4, atol=1e-3)


def test_a_frozen_generator_makes_the_same():
    torch.manual_seed(0)
    network = Generator(channels=4, depth=5, size=64, maps=2)
    torch.nn.init.normal_(network.last.weight, 0, 0.1)
    before = network(*inputs(1))
    frozen = network.freeze()(*inputs(1))
    assert before.requires_grad and not frozen.requires_grad
    torch.testing.assert_close(frozen, before.detach(), rtol=0, atol=1e-6)


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
