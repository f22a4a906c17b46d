"""Following one face through a clip, and the choice of key frames."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from facemodel.errors import InputError
from fitting import checkpoint
from fitting.detection import WEAK, FaceDetector, eye_distance
from fitting.follow import FULL_SEARCH_EVERY, PATIENCE, Following, choose_key_frames, follow
from tests import clips


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def two_faces():
    return [clips.side_by_side(p, p[:, ::-1][:, 40:]) for p in clips.demo_frames(8)]


def seen(following):
    return np.isfinite(following.landmarks).all(axis=(1, 2))


@pytest.mark.parametrize(("choice", "left"), [("1", True), ("2", False)])
def test_following_keeps_to_one_of_two_faces(detector, two_faces, choice, left):
    following = follow(two_faces, detector, choice)
    assert following.face_count == 2
    assert following.confirmed.all() and seen(following).all()
    centres = following.landmarks.mean(axis=1)
    assert ((centres[:, 0] < 360) == left).all()
    assert np.linalg.norm(np.diff(centres, axis=0), axis=1).max() < 10
    assert follow(two_faces[:1], detector, "largest").face_count == 2


def test_following_stays_with_its_face_when_the_other_leaves(detector, two_faces):
    frames = [f.copy() for f in two_faces]
    for frame in frames[4:]:
        frame[:, 360:] = clips.grey(360, 360)
    following = follow(frames, detector, "1")
    assert seen(following).all() and (following.landmarks[..., 0].mean(axis=1) < 360).all()


def test_a_choice_that_does_not_exist(detector, two_faces):
    for choice in ("3", "0", "-1", "left", "²"):
        with pytest.raises(InputError, match="2 faces; give 1 to 2"):
            follow(two_faces[:1], detector, choice, "two.mp4")
    with pytest.raises(InputError, match="--face 2: there is 1 face; give 1"):
        follow(clips.demo_frames(1), detector, "2", "one.mp4")


def test_no_face_at_all(detector):
    with pytest.raises(InputError, match=r"grey\.mp4: no face found in 7 frames"):
        follow([clips.grey()] * 7, detector, path="grey.mp4")


@pytest.mark.parametrize("absent", [1, 4, PATIENCE + 4])
def test_a_face_that_leaves_is_gone_at_once_and_found_again(detector, absent):
    pictures = list(clips.demo_frames(24))
    for t in range(5, 5 + absent):
        pictures[t] = clips.grey()
    following = follow(pictures, detector)
    gone = slice(5, 5 + absent)
    assert seen(following)[:5].all()
    assert not seen(following)[gone].any() and not following.confirmed[gone].any()
    assert seen(following)[5 + absent + FULL_SEARCH_EVERY - 1:].all()
    whole = follow(clips.demo_frames(24), detector)
    distance = np.linalg.norm(following.landmarks[-1] - whole.landmarks[-1], axis=1).mean()
    assert distance < 0.03 * eye_distance(whole.landmarks[-1])


def test_a_face_that_leaves_with_the_last_frame(detector):
    following = follow([*clips.demo_frames(5), clips.grey()], detector)
    assert seen(following).tolist() == [True] * 5 + [False]


def test_the_first_face_may_come_late(detector):
    following = follow([clips.grey()] * 3 + list(clips.demo_frames(8)), detector)
    assert not seen(following)[:3].any() and seen(following)[3 + FULL_SEARCH_EVERY:].all()
    assert following.face_count == 1


def test_progress_is_called_once_a_frame(detector):
    calls = []
    follow(clips.demo_frames(3), detector, progress=lambda: calls.append(1))
    assert len(calls) == 3


def some_following(count, seed=0, spread=6.0):
    """Landmarks of the shape of a face that move at random."""
    rng = np.random.default_rng(seed)
    face = np.zeros((68, 2))
    face[:, 0], face[:, 1] = np.linspace(0, 100, 68), 40 * np.sin(np.arange(68))
    face[36:42], face[42:48], face[48:68] = [30, 40], [70, 40], [50, 80]
    marks = (face + rng.normal(0, spread, (count, 68, 2))).astype(np.float32)
    return Following(marks, np.ones(count, bool), np.zeros(count, bool), 1)


def test_key_frames_are_distinct_sorted_and_the_same_each_time():
    following = some_following(30)
    keys = choose_key_frames(following, 8)
    assert len(set(keys)) == 8 and keys == sorted(keys)
    assert keys == choose_key_frames(following, 8)
    assert choose_key_frames(following, 1)[0] in keys


def test_key_frames_of_a_still_picture_are_distinct():
    following = some_following(1)
    still = Following(np.repeat(following.landmarks, 5, axis=0), np.ones(5, bool), np.zeros(5, bool), 1)
    assert len(set(choose_key_frames(still, 3))) == 3
    assert choose_key_frames(still, 8) == [0, 1, 2, 3, 4]


def test_key_frames_span_the_expressions_and_leave_out_what_is_not_sure():
    following = some_following(20, spread=0.1)
    marks, confirmed = following.landmarks, following.confirmed
    marks[7, 48:68, 1] += 30                       # an open mouth
    marks[12, 48:68, 1] += 60                      # a wider one that the detector did not see
    confirmed[12] = False
    marks[3] = np.nan
    keys = choose_key_frames(following, 2)
    assert 7 in keys and 12 not in keys
    assert sorted(choose_key_frames(following, 99)) == [t for t in range(20) if t not in (3, 12)]


@pytest.fixture(scope="module")
def crossing():
    """Pictures, and the middles in x of the two faces, (F, 2)."""
    shown = [clips.crossing(t, 40) for t in range(40)]
    return [s[0] for s in shown], np.array([s[1:] for s in shown])


@pytest.mark.parametrize(("who", "times"), [(0, 1), (1, 1), (0, 2), (1, 2), (1, 3)])
def test_two_people_change_places(detector, crossing, who, times):
    """Each is followed to where he goes; the one behind is gone while he is hidden, and nobody takes his place.

    times : how often each picture is shown
    """
    pictures, middles = (np.repeat(x, times, axis=0) for x in crossing)
    following = follow(pictures, detector, str(who + 1))
    x = following.landmarks[..., 0].mean(axis=1)
    there = seen(following)
    assert (np.abs(x - middles[:, who])[there] < 40).all()
    apart = np.abs(middles[:, 0] - middles[:, 1]) > 260
    assert there[apart].mean() > 0.75 and there[[0, -1]].all()
    assert following.face_count == 2
    if who == 0:
        assert there.all()
    else:
        assert not there[np.abs(middles[:, 0] - middles[:, 1]) < 60].any()


def test_a_cut_to_somebody_else(detector):
    """In the same place: the first frames of him that were taken for the other's are given up."""
    picture = np.asarray(clips.stranger())
    own = [cv2.resize(p[40:340, 140:440], (240, 240)) for p in clips.demo_frames(8)]
    there = seen(follow([*own, *[picture] * 10, *own], detector))
    assert there[:8].all() and not there[8:18].any() and there[17 + FULL_SEARCH_EVERY:].all()


def coded(picture, seed):
    """A picture with what a second coding changes: a grey level here and there."""
    noise = np.random.default_rng(seed).choice([-1, 0, 1], picture.shape, p=[0.02, 0.96, 0.02])
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


def test_repeated_frames_are_known(detector):
    """25 frames a second made 30: what is found there is that of the frame before, bit for bit; motion is no repeat."""
    pictures = list(clips.demo_frames(20))
    shown = [k - k // 6 for k in range(20)]
    again = np.r_[False, np.diff(shown) == 0]
    following = follow([coded(pictures[k], t) for t, k in enumerate(shown)], detector)
    np.testing.assert_array_equal(following.repeated, again)
    np.testing.assert_array_equal(following.landmarks[again], following.landmarks[np.flatnonzero(again) - 1])
    assert (following.landmarks[~again][1:] != following.landmarks[~again][:-1]).any(axis=(1, 2)).all()
    assert not follow(pictures, detector).repeated.any()


class Blindable:
    """A detector that finds no more faces once `blind` is set."""

    def __init__(self, detector):
        self._detector, self.blind, self.searches = detector, False, 0

    def find(self, image, scale=None):
        self.searches += self.blind and scale is None
        return [] if self.blind else self._detector.find(image, scale)

    def __getattr__(self, name):
        return getattr(self._detector, name)


class InCompany:
    """A detector that sees another face beside each, and another person in it once `stranger` is set."""

    def __init__(self, detector):
        self._detector, self.stranger = detector, False

    def find(self, image, scale=None):
        faces = self._detector.find(image, scale)
        return faces + [replace(face, box=face.box + [200, 0, 200, 0]) for face in faces]

    def descriptor(self, image, landmarks):
        return self._detector.descriptor(image, landmarks) + self.stranger

    def __getattr__(self, name):
        return getattr(self._detector, name)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_all_of_a_stranger_is_given_up(detector, times):
    """Who takes a face's place without a jump is looked at late: what was taken for the face's by then goes."""
    moving = list(clips.demo_frames(24))
    for change in range(9, 13):
        eyes = InCompany(detector)

        def pictures(eyes=eyes, change=change):
            for k in range(24 * times):
                eyes.stranger = k // times >= change
                yield moving[k // times]

        there = seen(follow(pictures(), eyes))
        assert there[:(change - 3) * times].all() and not there[change * times:].any()


@pytest.mark.parametrize("shown", [range(24), np.arange(48) // 2, np.minimum(np.arange(40), 4)])
def test_a_face_that_is_never_confirmed_again_is_given_up(detector, shown):
    """Whether the picture moves on, in every frame or in every other one, or stands still: no landmarks stay."""
    moving, eyes = list(clips.demo_frames(24)), Blindable(detector)

    def pictures():
        for k in shown:
            eyes.blind = k >= 4
            yield moving[k]

    there, confirmed = seen(follow(pictures(), eyes)), np.asarray(shown) < 4
    assert there[confirmed].all() and not there[np.flatnonzero(~confirmed)[2:]].any()
    assert eyes.searches > 2


def test_one_blink_is_no_repeat(detector):
    """All else stands still: eyes that shut, in the tenth part of the face, are seen."""
    picture = next(iter(clips.demo_frames(1)))
    eyes = follow([picture], detector).landmarks[0, 36:48].mean(axis=0).astype(int)
    shut, lid = picture.copy(), [int(c) for c in picture[eyes[1] + 15, eyes[0]]]
    cv2.ellipse(shut, (int(eyes[0]) - 22, int(eyes[1])), (9, 4), 0, 0, 360, lid, -1)
    following = follow([picture, picture, shut, shut, picture], detector)
    np.testing.assert_array_equal(following.repeated, [False, True, False, True, False])


def test_stopped_in_the_midst_of_a_crossing(detector, crossing, tmp_path, monkeypatch):
    """What is remembered of the person, and frames given up after they were kept, survive."""
    monkeypatch.setattr(checkpoint, "EVERY", 3)
    pictures, _ = crossing
    pictures = [pictures[t - t // 6] for t in range(len(pictures))]
    whole = follow(pictures, detector, "2")
    assert whole.repeated.any()
    for stop in (14, 17, 20):
        follow(pictures[:stop], detector, "2", journal=checkpoint.Journal(tmp_path / str(stop)))
        journal = checkpoint.Journal(tmp_path / str(stop))
        rest = follow(pictures[3 * journal.count:], detector, "2", journal=journal)
        np.testing.assert_array_equal(rest.landmarks, whole.landmarks)
        np.testing.assert_array_equal(rest.confirmed, whole.confirmed)
        np.testing.assert_array_equal(rest.repeated, whole.repeated)


def test_a_head_that_scores_too_low_is_followed(detector):
    """Tilted by 46 degrees in every frame: the landmarks lie where the upright head's do."""
    moving = list(clips.demo_frames(8))
    height, width = moving[0].shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 46, 1)
    tilted = [cv2.warpAffine(p, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) for p in moving]
    assert not detector.detect(tilted[0])
    upright, found = (follow(pictures, detector).landmarks for pictures in (moving, tilted))
    upright = upright @ turn[:, :2].T + turn[:, 2]
    assert np.linalg.norm(found - upright, axis=2).mean() < 0.04 * eye_distance(upright[0])


def test_the_leftmost_and_the_rightmost(detector, two_faces):
    for choice, left in (("leftmost", True), ("rightmost", False)):
        x = follow(two_faces[:2], detector, choice).landmarks[..., 0].mean(axis=1)
        assert ((x < 360) == left).all()


def test_a_tilted_head_is_found_in_a_photo_if_landmarks_are_sure_of_it(detector):
    """A head that the detector all but misses, and the same further turned, where landmarks end up beside the face."""
    frame = next(iter(clips.demo_frames(1)))
    height, width = frame.shape[:2]
    turned = lambda degrees: cv2.warpAffine(frame, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1),
                                            (width, height), borderMode=cv2.BORDER_REPLICATE)
    assert not detector.detect(turned(46)) and not detector.detect(turned(52))
    assert detector.detect(turned(52), threshold=WEAK)
    (found,) = detector.find(turned(46))
    (upright,) = detector.detect(frame)
    assert np.linalg.norm(found.centre - upright.centre) < upright.size / 2 and WEAK <= found.score < 0
    assert not detector.find(turned(52))
    assert [f.score for f in detector.find(frame)] == [upright.score]
