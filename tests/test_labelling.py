"""The visible label: legible on any ground, never on the face, and nothing else in the picture changes."""
import numpy as np
import pytest

from compositing.labelling import Labeller, check_label, draw_plate, face_outline
from compositing.video_writer import compose_yuv
from facemodel.errors import InputError
from fitting.video_reader import read_frames
from tests import clips

SIZES = [(360, 640), (1080, 1920), (240, 320), (359, 639), (1280, 720)]


def face(left, top, width, height):
    """68 landmarks around an ellipse, in the order that the outline needs: jaw, brows, the rest inside."""
    middle, radii = np.array([left + width / 2, top + height / 2]), np.array([width, height]) / 2
    jaw, brow = np.linspace(np.pi, 0, 17), np.linspace(1.2 * np.pi, 1.8 * np.pi, 10)
    around = np.concatenate([jaw, brow])
    marks = np.repeat(middle[None], 68, axis=0)
    marks[:27] = middle + radii * np.stack([np.cos(around), np.sin(around)], axis=1)
    return marks.astype(np.float32)


def changed_box(alpha):
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def luminance(grey):
    """Relative luminance of an sRGB grey, as in WCAG 2."""
    return np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("height, width", SIZES)
def test_letters_stand_out_on_any_ground(height, width):
    marks = face(width * 0.35, height * 0.2, width * 0.25, height * 0.5)[None]
    labeller, plate = Labeller("synthetic", height, width, marks), draw_plate("synthetic", height, width)
    strongest, rows = plate > 0.9 * plate.max(), np.flatnonzero((plate > 0.5).any(axis=1))
    assert plate.max() > 0.9
    assert rows[-1] - rows[0] >= max(10, min(height, width) / 30)               # ascender to descender, pixels
    for ground in (0.0, 0.5, 1.0):
        picture, alpha = labeller.draw(np.full((height, width, 3), ground, np.float32),
                                       np.zeros((height, width), np.float32), 0)
        top, bottom, left, right = changed_box(alpha)
        assert (alpha[top:bottom, left:right] == 1).all() and (bottom - top, right - left) == plate.shape
        shown = picture[top:bottom, left:right, 0]
        light, dark = luminance(shown[strongest].min()), luminance(shown[plate == 0].max())
        assert (light + 0.05) / (dark + 0.05) >= 7
        assert (picture[alpha == 0] == np.float32(ground)).all()


@pytest.mark.parametrize("crop", [None, (639, 359)])
def test_no_other_sample_of_the_frame_changes(tmp_path, crop):
    frame = next(read_frames(clips.cut(tmp_path / "clip.mp4", 1, crop=crop)))
    planes, height, width = frame.planes, *frame.rgb.shape[:2]
    labeller = Labeller("synthetic", height, width, np.full((1, 68, 2), np.nan))
    picture, alpha = labeller.draw(frame.rgb.astype(np.float32) / 255, np.zeros((height, width), np.float32), 0)
    top, bottom, left, right = changed_box(alpha)
    after = compose_yuv(planes, picture, alpha, frame.colour)
    for name, step in (("y", 1), ("u", 2 if planes.subsampled else 1), ("v", 2 if planes.subsampled else 1)):
        changed = getattr(planes, name) != getattr(after, name)
        inside = np.s_[top // step:bottom // step, left // step:right // step]
        assert changed[inside].any() or name != "y"
        changed[inside] = False
        assert not changed.any()
    assert top % 2 == bottom % 2 == left % 2 == right % 2 == 0


def test_the_label_stays_in_a_corner_that_is_free_throughout():
    """The face walks through the lower right corner in some frames: the lower left one is taken for all."""
    walk = np.stack([face(x, 150, 120, 180) for x in (200, 300, 400, 500)])
    walk[1] = np.nan
    labeller, boxes = Labeller("synthetic", 360, 640, walk), set()
    for t in range(4):
        _, alpha = labeller.draw(np.zeros((360, 640, 3), np.float32), np.zeros((360, 640), np.float32), t)
        boxes.add(changed_box(alpha))
        later = Labeller("synthetic", 360, 640, walk, first=100)
        assert (later.draw(np.zeros((360, 640, 3), np.float32), 0 * alpha, 100 + t)[1] == alpha).all()
    assert len(boxes) == 1
    top, _, _, right = boxes.pop()
    assert top > 180 and right < 320


def test_the_label_gives_way_to_faces():
    """Two people, who leave no corner free for all frames; then a face that fills the picture."""
    left, right = face(0, 0, 200, 360), np.stack([face(440, -100, 200, 300), face(440, 160, 200, 300)])
    labeller = Labeller("synthetic", 360, 640, [np.stack([left, left]), right])
    for t, upper in ((0, False), (1, True)):
        _, alpha = labeller.draw(np.zeros((360, 640, 3), np.float32), np.zeros((360, 640), np.float32), t)
        top, _, box_left, _ = changed_box(alpha)
        assert (top < 180) == upper and box_left > 320
    huge = face(-60, -60, 760, 480)
    before = np.zeros((360, 640), np.float32)
    before[300:] = 0.5                                        # the compositor's own pixels are left alone, too
    picture, alpha = Labeller("synthetic", 360, 640, huge[None]).draw(np.zeros((360, 640, 3), np.float32), before, 0)
    assert (alpha[300:] == 0.5).all() and (picture[300:] == 0).all()


def test_the_outline_holds_the_face_and_its_forehead():
    marks = face(100, 100, 100, 150)
    outline = face_outline(marks)
    assert (outline.min(axis=0) < marks.min(axis=0)).all() and (outline.max(axis=0) > marks.max(axis=0)).all()
    assert outline[:, 1].min() < 100 - 0.25 * 150
    assert face_outline(np.full((68, 2), np.nan)) is None


def test_nothing_is_drawn_without_a_label_or_a_picture():
    picture, alpha = np.zeros((90, 160, 3), np.float32), np.zeros((90, 160), np.float32)
    nobody = np.full((1, 68, 2), np.nan)
    assert Labeller(None, 90, 160, nobody).draw(picture, alpha, 0) == (picture, alpha)
    assert Labeller("synthetic", 90, 160, nobody).draw(None, None, 0) == (None, None)
    Labeller("synthetic", 90, 160, nobody).draw(picture, alpha, 0)
    assert not picture.any() and not alpha.any()              # what came in is not written to


def test_texts_that_cannot_be_drawn(tmp_path, monkeypatch):
    for text, words in (("", "1 to 200"), (" ", "1 to 200"), ("x" * 201, "1 to 200"), ("a\nb", "lacks"),
                        ("\u5408\u6210", "lacks"),
                        ("\u5408" * 199, "lacks"), ("synthetic " * 12, "shorter")):
        with pytest.raises(InputError, match=words) as caught:
            check_label(text, 360, 640)
        assert "\n" not in str(caught.value).replace(text, "")
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="put --label after"):
        check_label("clip.mp4")
    check_label(None)
    check_label("Made with AI: 100 % synthetic!", 360, 640)
    long = draw_plate("a rather long label that says it is synthetic", 360, 640)
    assert long.shape[1] <= 640 and long.shape[0] >= 12
    with pytest.raises(InputError, match="shorter"):
        check_label("synthetic", 16, 16)
