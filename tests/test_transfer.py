"""The two baseline methods of texture transfer."""
import numpy as np

from texgan.transfer import METHODS, SourceTexture, delta, static


def textures(seed=0, size=32):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.3, 0.7, (2 * size, 2 * size, 3)).astype(np.float32)
    neutral = rng.uniform(0.3, 0.7, (size, size, 3)).astype(np.float32)
    ones, zeros = np.ones((size, size), np.float32), np.zeros((size, size), np.float32)
    return target, neutral, ones, zeros


def test_static_changes_nothing():
    target, *_ = textures()
    assert static(target) is target


def test_delta_of_the_neutral_itself_is_the_target():
    target, neutral, ones, zeros = textures()
    np.testing.assert_allclose(delta(target, SourceTexture(neutral, ones, neutral, ones, zeros, zeros, zeros)), target)


def test_delta_adds_folds_where_both_were_seen():
    target, neutral, ones, zeros = textures(size=256)
    fold = np.zeros_like(neutral)
    fold[:, 60:63] = fold[:, 200:203] = -0.2
    seen = ones.copy()
    seen[:, 128:] = 0
    change = delta(target, SourceTexture(neutral + fold, ones, neutral, seen, zeros, zeros, zeros)) - target
    assert -0.2 < change[100:400, 122:124].mean() < -0.15
    assert np.abs(change[:, 300:]).max() < 1e-6


def test_delta_leaves_broad_changes_of_light_out():
    target, neutral, ones, zeros = textures(size=256)
    light = (0.1 * np.sin(np.arange(256) / 256 * np.pi))[:, None, None].astype(np.float32)
    change = delta(target, SourceTexture(neutral + light, ones, neutral, ones, zeros, zeros, zeros)) - target
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
    out = delta(target, SourceTexture(texture, ones, neutral, unseen_before, mouth, eyes, zeros))
    np.testing.assert_allclose(out[44:48, 20:36], 0.9, atol=0.02)
    assert (out[10:14, 10:18] <= 0.951).all() and (out[10:14, 10:18] >= target[10:14, 10:18] - 1e-5).all()
    assert (target == textures()[0]).all(), "the input must not be changed"


def test_one_signature():
    target, neutral, ones, zeros = textures()
    source = SourceTexture(neutral, ones, neutral, ones, zeros, zeros, zeros)
    for method in METHODS.values():
        out = method(target, source)
        assert out.shape == target.shape and out.dtype == np.float32
