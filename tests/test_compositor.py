"""Frames that are shown twice: what the compositor makes of them, on a rendered person who turns and smiles."""
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from compositing.compositor import MOST_WAITING, Compositor
from compositing.grain import Grain
from compositing.presence import presence
from compositing.target import reduced
from compositing.virtual import virtual_face
from facemodel.camera import rotation_matrix
from tests import synthetic

COUNT = 9
SHOWN = np.array([0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8])
AGAIN = np.r_[False, np.diff(SHOWN) == 0]


@pytest.fixture(scope="module")
def act(model):
    """Pictures and their Track, COUNT frames."""
    shared, frame = synthetic.known_face(model, 3)
    smile, frames = [model.expression_names.index(f"mouthSmile{side}") for side in ("Left", "Right")], []
    for k in range(COUNT):
        expression = frame.expression * 0
        expression[smile] = k / COUNT
        frames.append(replace(frame, expression=expression, rotation=rotation_matrix(np.array([0, 0.02 * k - 0.1, 0]))))
    marks = np.float32([synthetic.true_landmarks(model, shared, one) for one in frames])
    return [synthetic.draw(model, shared, one) for one in frames], synthetic.track_of(model, shared, frames,
                                                                                      landmarks=marks)


def taken(track, rows):
    """A Track of some of a track's frames, numbered from 0."""
    names = ("status", "expression", "rotation", "translation", "light", "landmarks", "photometric_error",
             "landmark_error")
    return replace(track, **{name: getattr(track, name)[rows] for name in names}, frame_index=np.arange(len(rows)))


def finished(model, track, pictures, settle_after=None, resume=False, most=None, **options):
    """[(picture, alpha)] of all frames. settle_after : frame after which the state is taken; resume : by another
    compositor; most : int, largest number of frames that may be kept waiting after a push"""
    person = reduced(virtual_face(model, 7), 256)
    compositor, out = Compositor(model, track, person, **options), []
    for k, picture in enumerate(pictures):
        out += compositor.push(SimpleNamespace(index=k, rgb=picture))
        assert most is None or k + 1 - len(out) <= most
        if k == settle_after:
            out += compositor.settle()
            state = compositor.state()
            if resume:
                compositor.close()
                compositor = Compositor(model, track, person, **options)
                compositor.restore(state)
    out += compositor.flush()
    compositor.close()
    assert [frame.index for frame, _, _ in out] == list(range(len(pictures)))
    return [(picture, alpha) for _, picture, alpha in out]


def test_what_a_track_says_is_repeated(act):
    _, track = act
    np.testing.assert_array_equal(taken(track, SHOWN).repeated(), AGAIN)
    assert not track.repeated().any()
    unsure = taken(track, SHOWN)
    unsure.status[AGAIN] = "low_confidence"
    assert not unsure.repeated().any()


def test_a_repeated_frame_has_the_face_of_the_one_before(model, act):
    """All others come out as if it were not there; what is not face in it is its own."""
    pictures, track = act
    plain = finished(model, track, pictures)
    coded = [pictures[k].copy() for k in SHOWN]
    for k in np.flatnonzero(AGAIN):
        coded[k][0, 0] = 255                                      # far from the face
    for k, (picture, alpha) in enumerate(finished(model, taken(track, SHOWN), coded)):
        np.testing.assert_array_equal(alpha, plain[SHOWN[k]][1])
        np.testing.assert_array_equal(picture[1:], plain[SHOWN[k]][0][1:])
        np.testing.assert_array_equal(picture[0, 0], np.float32(coded[k][0, 0]) / 255)
    assert alpha.max() == 1


def test_a_hand_before_a_still_face_is_no_repeat(model, act):
    """The unknowns are the same, the picture is not: the frame goes through all of it."""
    pictures, track = act
    still = taken(track, np.array([2, 2, 2]))
    shown = [pictures[2], pictures[2].copy(), pictures[2]]
    x, y = still.landmarks[1, 8].astype(int)
    shown[1][y - 20:y + 20, x - 20:x + 20] = 20                   # at the chin
    seen, made = [], Compositor._lift
    watch = lambda self, item: seen.append(item.again) or made(self, item)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compositor, "_lift", watch)
        finished(model, still, shown)
        assert seen == [False, False, False]
        seen.clear()
        finished(model, still, [pictures[2]] * 3)
        assert seen == [False, True, True]
        seen.clear()
        whole = np.ones(pictures[2].shape[:2], np.float32)
        finished(model, still, [pictures[2]] * 3, mask=SimpleNamespace(keep=lambda index: whole))
        assert not any(seen)                                      # the mask may move


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_repeat_may_come_after_a_stop(model, act, after):
    """The first frame after a state goes through all of it, in the process that wrote the state and in the next."""
    pictures, track = act
    shown = [pictures[k] for k in SHOWN]
    went_on, resumed = (finished(model, taken(track, SHOWN), shown, after, resume) for resume in (False, True))
    for (picture, alpha), (other, its) in zip(went_on, resumed, strict=True):
        np.testing.assert_array_equal(picture, other)
        np.testing.assert_array_equal(alpha, its)


def test_a_still_picture_is_not_held_back(model, act):
    """However long it stands: no more frames wait than MOST_WAITING and those on the line."""
    pictures, track = act
    shown = np.r_[0, 1, np.full(60, 2), 3, 4]
    made = finished(model, taken(track, shown), [pictures[k] for k in shown], most=MOST_WAITING + 5)
    for k in range(3, 62):
        np.testing.assert_array_equal(made[k][0], made[2][0])


def test_a_repeat_fades_as_any_frame(model, act):
    """Frames before one that is lost: each has its own weight, repeated or not."""
    pictures, track = act
    lost = taken(track, SHOWN)
    lost.status[-1] = "lost"
    weights = [alpha.max() for picture, alpha in finished(model, lost, [pictures[k] for k in SHOWN])
               if picture is not None]
    np.testing.assert_allclose(weights, presence(lost.status)[:-1], atol=1e-6)
    assert AGAIN[8] and weights[8] < weights[7]


def test_what_changes_slowly_beside_a_still_face_is_seen(model, act):
    pictures, track = act
    shown, (x, y) = [], track.landmarks[2, 8].astype(int)
    for k in range(30):
        shown.append(pictures[2].copy())
        shown[k][y + 5:y + 45, x - 20:x + 20] = np.clip(pictures[2][y + 5:y + 45, x - 20:x + 20] + 1.0 * k, 0, 255)
    seen, made = [], Compositor._lift
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compositor, "_lift", lambda self, item: seen.append(item.again) or made(self, item))
        finished(model, taken(track, np.full(30, 2)), shown)
    assert seen[1:4] == [True] * 3 and seen[4:].count(False) >= 3


def test_a_grainy_video_s_face_is_grainy_in_every_frame_anew(model, act):
    """All over the face, as strong as said; nothing of it lies beside the face, and a repeated frame repeats it."""
    pictures, track = act
    grain = Grain.of(np.full((3, 3), 6 / 255))
    plain, grainy = (finished(model, taken(track, SHOWN), [pictures[k] for k in SHOWN], grain=g) for g in (None, grain))
    drawn = []
    for (picture, alpha), (other, its) in zip(plain, grainy):
        face = (alpha == 1) & (its == 1)
        high = lambda x: x - cv2.GaussianBlur(x, (0, 0), 1.4)
        drawn.append(high(other - picture)[face])
        np.testing.assert_array_equal(picture[(alpha == 0) & (its == 0)], other[(alpha == 0) & (its == 0)])
    expected = high(grain.drawn(0, 300, 300)).std()
    assert np.std(drawn[0]) == pytest.approx(expected, rel=0.3)
    for k in range(1, len(drawn)):
        same = len(drawn[k]) == len(drawn[k - 1]) and np.array_equal(drawn[k], drawn[k - 1])
        assert same == AGAIN[k]
