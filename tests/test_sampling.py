"""Examples: who goes with whom, and that variation never parts the target from its truth."""
import numpy as np
import pytest

from facemodel.morphable import load_model
from fitting.lift import BRIGHTEST
from tests.texture_sets import made_up_clip
from texgan.sampling import NONE, Examples, Masks, Skins, Variation, network_input


@pytest.fixture(scope="module")
def masks():
    return Masks.of(load_model("commons"))


@pytest.fixture(scope="module")
def clips():
    model = load_model("commons")
    return [made_up_clip(model, name, seed=k) for k, name in enumerate("abcd")]


def test_an_example_is_a_function_of_its_number(clips, masks):
    one, two = Examples(clips, masks, seed=3), Examples(clips, masks, seed=3)
    for a, b in ((one(7), two(7)), (one(0), two(0))):
        for name in ("source", "neutral", "truth", "weight"):
            assert (getattr(a, name) == getattr(b, name)).all()
    assert not (one(7).source == one(8).source).all()
    assert not (one(7).source == Examples(clips, masks, seed=4)(7).source).all()


def test_variation_is_the_same_on_target_and_truth(clips, masks):
    """The change from neutral to truth is that of the clip, whatever skin and tone were drawn."""
    examples = Examples(clips, masks, seed=1, variation=Variation(tone=0.0))
    changes = []
    for number in range(60):                                            # one in twelve shows the neutral expression
        e = examples(number)
        skin = (masks.mouth == 0) & (e.truth.max(axis=2) < BRIGHTEST - 1e-3) & (e.truth.min(axis=2) > 1e-3)
        change = (e.truth - e.neutral).mean(axis=2)
        changes.append(np.abs(change[skin]).max())
        assert np.abs(change[:100][skin[:100]]).max() < 0.01          # nothing but the spot changes
    assert any(c < 0.01 for c in changes) and any(0.13 < c < 0.17 for c in changes)
    assert all(c < 0.01 or 0.13 < c < 0.17 for c in changes)


def test_a_source_never_wears_the_targets_skin(clips, masks):
    """Copying the source must not pay: on average it is as far from the truth as people's skins are apart."""
    examples = Examples(clips, masks, seed=2, variation=NONE)
    gaps = [np.abs(e.source - e.truth)[:90][masks.chart[:90] > 0].mean() for e in map(examples, range(20))]
    assert min(gaps) > 0.005 and np.mean(gaps) > 0.05


def test_photos_of_one_expression_go_together_and_clips_without_a_script_do_not(masks):
    model = load_model("commons")
    clips = [made_up_clip(model, n, seed=k, script="") for k, n in enumerate("ab")]
    examples = Examples(clips, masks, seed=0, variation=NONE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        source, t_source, t_target, dress = examples._pair(rng, [0, 1], 0)
        assert source == 0 and t_source == t_target and dress == 1
    paired = Examples([made_up_clip(model, n, seed=k) for k, n in enumerate("ab")], masks, seed=0, variation=NONE)
    assert {paired._pair(rng, [0, 1], 0)[0] for _ in range(40)} == {0, 1}


def test_sources_are_those_who_smile_alike(masks):
    """Nine people, of whom two smile faintly, one in the middle and six broadly, from different neutral faces."""
    model = load_model("commons")
    strengths, clips = [0.1, 0.15, 0.5, 0.8, 0.85, 0.9, 0.95, 1.02, 1.08], []
    for k, strength in enumerate(strengths):
        clip = made_up_clip(model, chr(97 + k), seed=k)
        clip.expression[:] = 0.1 * k
        clip.expression[1, 3] += strength
        clips.append(clip)
    examples = Examples(clips, masks, seed=0, variation=NONE)
    rng = np.random.default_rng(0)
    for target, near in ((0, {1, 2, 3}), (5, {4, 6, 3}), (8, {7, 6, 5})):
        drawn = [examples._pair(rng, list(range(9)), target)[:2] for _ in range(2000)]
        assert {source for source, t in drawn if t == 1} == near | {target}
        assert {source for source, t in drawn if t == 0} == set(range(9))                    # being neutral is no smile


def test_unseen_mouth_is_black_and_seen_mouth_is_not(masks):
    rgb = np.full((256, 256, 3), 0.5, np.float32)
    inside = masks.mouth > 0.99
    assert (network_input(rgb, np.zeros((256, 256), np.float32), masks)[inside] < 0.01).all()
    assert (network_input(rgb, np.ones((256, 256), np.float32), masks) == 0.5).all()


def test_weights_are_ten_on_features_and_zero_where_nothing_is_known(clips, masks):
    e = Examples(clips, masks, seed=0, variation=NONE)(0)
    assert e.weight.max() == pytest.approx(10) and e.weight[masks.chart == 0].max() == 0
    assert e.weight[(masks.features == 0) & (masks.chart > 0)].max() == pytest.approx(1)


def test_skins_are_principal_components():
    """Against numpy's singular values of the same albedos."""
    rng = np.random.default_rng(0)
    albedos = rng.integers(60, 200, (5, 256, 256, 3), dtype=np.uint8)
    skins = Skins.learn(albedos, components=3)
    data = np.concatenate([albedos, albedos[:, :, ::-1]]).reshape(10, -1).astype(float) * BRIGHTEST / 255
    values = np.linalg.svd(data - data.mean(axis=0), compute_uv=False) / np.sqrt(9)
    np.testing.assert_allclose(np.linalg.norm(skins.basis, axis=1), values[:3], rtol=1e-3)
    assert skins.offset(rng, 0.0).max() == 0


def test_a_mix_without_clips_is_refused(clips, masks):
    with pytest.raises(ValueError, match="no clips"):
        Examples(clips, masks, {"rendered": 1.0})
    with pytest.raises(ValueError, match="no clips .* 'rendered'"):
        Examples(clips, masks, {"photos": 0.5, "rendered": 0.5})
    Examples(clips, masks, {"photos": 0.5, "rendered": 0.0})
