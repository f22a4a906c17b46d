"""Eyes that open as far as another's: distances against the posed model, eyes of other shapes made to follow."""
from dataclasses import replace

import numpy as np
import pytest

from compositing.lids import (
    BLINKS,
    BROWS,
    LOWER_LIDS,
    SHUT,
    SHUT_HERE,
    UNEVEN,
    UPPER_LIDS,
    closed_further,
    follow_lids,
    lid_gaps,
    usual_expression,
)
from compositing.retarget import retarget_expression
from compositing.virtual import virtual_face
from facemodel.light import ambient_light
from fitting.parameters import Frame, Shared
from tests import synthetic


def coefficients(model, **values):
    out = np.zeros(model.expression_count)
    for name, value in values.items():
        for side in ("Left", "Right"):
            out[model.expression_names.index(name + side)] = value
    return out


def test_gaps_are_those_of_the_posed_model(model):
    rng = np.random.default_rng(0)
    identity, expressions = rng.normal(size=model.identity_count), rng.uniform(0, 1, (3, model.expression_count))
    for expression, gap in zip(expressions, lid_gaps(model, identity, expressions)):
        y = model.shape(identity, expression)[model.landmarks, 1]
        wanted = [np.mean(y[list(b)] - y[list(a)]) for a, b in zip(UPPER_LIDS, LOWER_LIDS)]
        assert gap == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_other_eyes_close_and_open_by_the_sources_share(model, seed):
    rng = np.random.default_rng(seed)
    source, other = rng.normal(0, 0.8, (2, model.identity_count))
    rest, own = coefficients(model, eyeBlink=0.1, eyeWide=0.1), coefficients(model, eyeSquint=0.2)
    given = np.array([rest, rest + coefficients(model, eyeBlink=0.3), rest + coefficients(model, eyeWide=0.3)])
    followed = follow_lids(model, source, given, rest, other, np.repeat(own[None], 3, axis=0), own)
    share = lambda person, now, at: (lid_gaps(model, person, now) - at) / (lid_gaps(model, person, now[:1]) - at)
    wanted, found = share(source, given, SHUT), share(other, followed, SHUT_HERE)
    assert np.array_equal(followed[0], own) and (wanted[1] < 0.8).all() and (wanted[2] > 1.1).all()
    weight = np.clip(np.abs(1 - wanted) / 0.3, 0, 1)                     # small changes are followed in part
    np.testing.assert_allclose(found, 1 + weight * (wanted - 1), atol=0.03)
    eyes = [k for k, name in enumerate(model.expression_names) if name.startswith(("eyeBlink", "eyeWide"))]
    others = np.setdiff1d(np.arange(model.expression_count), eyes)
    assert np.array_equal(followed[:, others], np.repeat(own[None], 3, axis=0)[:, others])
    assert (followed >= 0).all() and (followed <= 1).all()


@pytest.mark.parametrize("lowered", [0.0, 0.6])
def test_eyes_that_are_lowered_for_most_of_a_clip_are_not_at_rest(model, lowered):
    """The target opens its eyes as in its photo where the source's are open, and lowers them with the source's."""
    face = virtual_face(model, 5, size=64)
    shared = Shared(face.identity, np.zeros(model.albedo_count), 900.0)
    frame = Frame(coefficients(model, eyeBlink=0.0), np.eye(3), np.array([0.0, 0, 560]), ambient_light(0.8))
    low = replace(frame, expression=coefficients(model, eyeBlink=0.4))
    count = round(20 * lowered)
    track = synthetic.track_of(model, shared, [frame] * (20 - count) + [low] * count, 400)
    shown = lid_gaps(model, face.identity, retarget_expression(model, track, face))
    own = lid_gaps(model, face.identity, face.expression[None])[0]
    np.testing.assert_allclose(shown[0], own, rtol=0.05)
    if lowered:
        assert (shown[-1] < 0.75 * own).all()


def test_shut_eyes_shut(model):
    rng = np.random.default_rng(9)
    source, other = rng.normal(0, 0.8, (2, model.identity_count))
    rest = np.zeros(model.expression_count)
    given = np.array([rest, coefficients(model, eyeBlink=1.0)])
    slit = np.array([rest, coefficients(model, eyeBlink=0.5)])
    gaps = lid_gaps(model, other, follow_lids(model, source, given, rest, other, slit, rest))
    assert (gaps[1] < 1).all() and (gaps[0] > 4).all()


def test_narrowing_only(model):
    rest = np.zeros(model.expression_count)
    given = coefficients(model, eyeWide=0.5)[None]
    out = follow_lids(model, rest[:1], given, rest, rest[:1], rest[None], rest, widen=False)
    assert not out.any()
    assert follow_lids(model, rest[:1], given, rest, rest[:1], rest[None], rest).any()
    assert set(BLINKS) <= set(model.expression_names)


def test_a_brow_that_is_kept_up_is_no_rest(model):
    names = model.expression_names
    assert all(name in names for pair in BROWS for name in pair)
    many = np.random.default_rng(0).uniform(0, 0.1, (50, len(names)))
    even = usual_expression(model, many)
    raised, knit = names.index("browOuterUpRight"), names.index("browDownLeft")
    many[:40, raised], many[:, [knit, names.index("browDownRight")]] = 0.7, 0.6
    rest = usual_expression(model, many)
    assert rest[raised] == pytest.approx(even[names.index("browOuterUpLeft")] + UNEVEN)
    assert rest[knit] == 0.6                                     # both may be low
    others = [k for k, name in enumerate(names) if not name.startswith(("browOuterUpRight", "browDown"))]
    np.testing.assert_array_equal(rest[others], even[others])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lids_close_by_a_share(model, share):
    rng = np.random.default_rng(4)
    for seed in range(3):
        identity = rng.normal(0, 0.7, model.identity_count)
        before = np.zeros(model.expression_count, np.float32)
        before[model.expression_names.index("eyeSquintLeft")] = 0.3 * seed
        gaps = lid_gaps(model, identity, before[None])[0]
        after = lid_gaps(model, identity, closed_further(model, identity, before, share)[None])[0]
        wanted = SHUT_HERE + (1 - share) * (gaps - SHUT_HERE) if share else gaps
        np.testing.assert_allclose(after, wanted, atol=0.6)
