"""The methods of texture transfer: the two baselines, and what the generator's change is applied to."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.lift import Texture
from texgan.transfer import METHODS, GanTransfer, SourceTexture, delta, static, transfer_method


def seen(rgb, validity=1.0):
    """A Texture that was seen everywhere."""
    return Texture(rgb, np.full(rgb.shape[:2], validity, np.float32))


def textures(seed=0, size=32):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.3, 0.7, (2 * size, 2 * size, 3)).astype(np.float32)
    neutral = rng.uniform(0.3, 0.7, (size, size, 3)).astype(np.float32)
    ones, zeros = np.ones((size, size), np.float32), np.zeros((size, size), np.float32)
    return target, neutral, ones, zeros


def test_static_changes_nothing():
    target, *_ = textures()
    assert static(seen(target)) is target


def test_delta_of_the_neutral_itself_is_the_target():
    target, neutral, ones, zeros = textures()
    itself = SourceTexture(neutral, ones, neutral, ones, zeros, zeros, zeros)
    np.testing.assert_allclose(delta(seen(target), itself), target)


def test_delta_adds_folds_where_both_were_seen():
    target, neutral, ones, zeros = textures(size=256)
    fold = np.zeros_like(neutral)
    fold[:, 60:63] = fold[:, 200:203] = -0.2
    half = ones.copy()
    half[:, 128:] = 0
    change = delta(seen(target), SourceTexture(neutral + fold, ones, neutral, half, zeros, zeros, zeros)) - target
    assert -0.2 < change[100:400, 122:124].mean() < -0.15
    assert np.abs(change[:, 300:]).max() < 1e-6


def test_delta_leaves_broad_changes_of_light_out():
    target, neutral, ones, zeros = textures(size=256)
    light = (0.1 * np.sin(np.arange(256) / 256 * np.pi))[:, None, None].astype(np.float32)
    change = delta(seen(target), SourceTexture(neutral + light, ones, neutral, ones, zeros, zeros, zeros)) - target
    assert np.abs(change).mean() < 0.1 * light.mean()


def test_mouth_comes_from_the_source_and_eyes_stay_between():
    target, neutral, ones, zeros = textures()
    mouth, eyes = zeros.copy(), zeros.copy()
    mouth[20:26, 8:20] = 1
    eyes[4:8, 4:10] = 1
    texture = neutral.copy()
    texture[20:26, 8:20] = 0.9
    texture[4:8, 4:10] = 0.95
    unseen_before = ones * (1 - mouth)
    out = delta(seen(target), SourceTexture(texture, ones, neutral, unseen_before, mouth, eyes, zeros))
    np.testing.assert_allclose(out[44:48, 20:36], 0.9, atol=0.02)
    assert (out[10:14, 10:18] <= 0.951).all() and (out[10:14, 10:18] >= target[10:14, 10:18] - 1e-5).all()
    assert (target == textures()[0]).all(), "the input must not be changed"


class FakeGenerator:
    """Adds a known change at 32 x 32."""

    def __init__(self, change, mouth=None, eyes=None):
        zeros = np.zeros((32, 32), np.float32)
        self.size, self._change = 32, change
        self.masks = SimpleNamespace(mouth=zeros if mouth is None else mouth, eyes=zeros if eyes is None else eyes)

    def change(self, source, source_validity, neutral, neutral_validity):
        assert source.shape == neutral.shape == (32, 32, 3) and source_validity.shape == (32, 32)
        return self._change


def source_texture(size=32):
    ones, zeros = np.ones((size, size), np.float32), np.zeros((size, size), np.float32)
    rgb = np.full((size, size, 3), 0.5, np.float32)
    return SourceTexture(rgb, ones, rgb, ones, zeros, zeros, zeros)


def test_the_change_is_enlarged_and_the_photos_detail_stays():
    target = seen(textures()[0])
    ramp = np.repeat(np.linspace(-0.1, 0.1, 32, dtype=np.float32)[None, :, None], 32, axis=0).repeat(3, axis=2)
    out = GanTransfer(FakeGenerator(ramp))(target, source_texture())
    np.testing.assert_allclose(out - target.rgb, cv2.resize(ramp, (64, 64), interpolation=cv2.INTER_CUBIC), atol=1e-5)
    still = GanTransfer(FakeGenerator(0 * ramp))(target, source_texture())
    np.testing.assert_array_equal(still, target.rgb)


def test_the_inside_of_an_unseen_mouth_is_the_generators_own():
    mouth = np.zeros((32, 32), np.float32)
    mouth[10:20, 8:24] = 1
    target = Texture(textures()[0], np.zeros((64, 64), np.float32))
    out = GanTransfer(FakeGenerator(np.full((32, 32, 3), 0.3, np.float32), mouth))(target, source_texture())
    np.testing.assert_allclose(out[24:36, 20:44], 0.3, atol=1e-5)


def test_an_eye_that_has_moved_loses_the_old_iriss_edges():
    eyes = np.zeros((32, 32), np.float32)
    eyes[4:12, 4:12] = 1
    target, inside = seen(textures()[0]), np.s_[10:22, 10:22]
    fine = lambda t: (t - cv2.blur(t, (5, 5)))[inside].std()
    moved = GanTransfer(FakeGenerator(np.full((32, 32, 3), 0.2, np.float32), None, eyes))(target, source_texture())
    still = GanTransfer(FakeGenerator(np.zeros((32, 32, 3), np.float32), None, eyes))(target, source_texture())
    assert fine(moved) < 0.6 * fine(target.rgb) and fine(still) == fine(target.rgb)
    np.testing.assert_allclose((moved - target.rgb)[30:, 30:], 0.2, atol=1e-5)


def test_one_signature(model):
    target, neutral, ones, zeros = textures()
    source = SourceTexture(neutral, ones, neutral, ones, zeros, zeros, zeros)
    assert METHODS[0] == "gan"
    for method in (static, delta, GanTransfer(FakeGenerator(np.zeros((32, 32, 3), np.float32)))):
        out = method(seen(target), source)
        assert out.shape == target.shape and out.dtype == np.float32
    assert transfer_method("static", model) is static and transfer_method("delta", model) is delta
    with pytest.raises(InputError, match="nowhere.safetensors"):
        transfer_method("gan", model, "nowhere.safetensors")
