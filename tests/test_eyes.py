"""Gazes read and eyes drawn: against eyes that are painted onto the eyeballs with a known gaze."""
from dataclasses import replace

import numpy as np
import pytest

from compositing.eyes import FAINTLY, GRID, EyeRedrawer, Usual, _followed, along, eye_redrawer, take_apart
from compositing.gaze import IRIS, eye_charts, find_iris, gaze_vector, read_gaze
from compositing.key_frames import neutral_source_texture
from compositing.lids import lid_gaps
from compositing.performer import TexturePerformer
from compositing.retarget import render
from compositing.virtual import virtual_face
from facemodel.light import ambient_light
from fitting.lift import Texture
from fitting.parameters import Frame, Shared
from tests import synthetic

SIZE = 512
AHEAD = np.radians([[-8.0, -19.0], [8.0, -19.0]])           # as read from photos of people who look ahead
RIM, PUPIL = np.array([0.20, 0.28, 0.34]), np.array([0.02, 0.02, 0.02])


def painted(model, texture, shape, gazes, radius=IRIS):
    """A texture whose eyes are white, with blue irises that look where `gazes` (2, 2) say on a face of this shape."""
    out = texture.copy()
    for chart, gaze in zip(eye_charts(model, len(texture)), gazes):
        _, distance = along(chart.directions(shape), gaze, radius)
        iris, pupil = (np.clip((r - distance) / 0.06 + 0.5, 0, 1)[..., None] for r in (1.0, 0.4))
        eye = np.full((*distance.shape, 3), 0.78) + iris * (RIM - 0.78)
        eye += pupil * (PUPIL - eye)
        out[chart.window] += chart.weight[..., None] * (eye - out[chart.window])
    return out


def expression_of(model, **values):
    out = np.zeros(model.expression_count, np.float32)
    for name, value in values.items():
        out[[model.expression_names.index(name + side) for side in ("Left", "Right")]] = value
    return out


@pytest.fixture(scope="module")
def face(model):
    """A face of nobody that looks ahead with painted eyes."""
    one = virtual_face(model, 7, size=SIZE)
    rgb = painted(model, one.texture.rgb, model.shape(one.identity), AHEAD)
    return replace(one, texture=Texture(rgb.astype(np.float32), one.texture.validity))


def eye_area(chart):
    return np.where(chart.weight > 0.99)


@pytest.mark.parametrize("across, down", [(0, -19), (30, -15), (-42, -25), (10, -32)])
def test_a_gaze_is_found(model, face, across, down):
    """Also when the lids hide most of the iris; how high it stands is then less sure."""
    wanted = np.radians([across, down])
    for expression, error in ((0 * face.expression, [3, 5]), (expression_of(model, eyeBlink=0.35), [4, 12])):
        shape = model.shape(face.identity, expression)
        texture = painted(model, face.texture.rgb, shape, [wanted, wanted])
        for chart in eye_charts(model, 256):
            small = texture.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
            gaze, evidence = read_gaze(chart, shape, small, np.ones((256, 256)))
            assert evidence > 0.3
            assert (np.degrees(np.abs(gaze - wanted)) < error).all()


def test_what_shows_no_iris_is_not_believed(model, face):
    shape = model.shape(face.identity)
    chart = eye_charts(model, 256)[0]
    noise = np.random.default_rng(0).uniform(0.4, 0.6, (256, 256, 3))
    assert read_gaze(chart, shape, noise, np.ones((256, 256)))[1] < 0.3
    assert read_gaze(chart, shape, noise, np.zeros((256, 256)))[1] is None
    closed = model.shape(face.identity, expression_of(model, eyeBlink=1.0))
    assert read_gaze(chart, closed, noise, np.ones((256, 256)))[1] is None
    bright = -np.ones(chart.weight.shape) * (chart.directions(shape) @ gaze_vector(AHEAD[0]) < 0.87)     # a white disc
    assert find_iris(chart.directions(shape), bright, chart.weight)[1] < 0.3


def test_an_eye_that_looks_as_in_the_photo_is_the_photo_s(model, face):
    shape = model.shape(face.identity)
    for chart, ahead in zip(eye_charts(model, SIZE), AHEAD):
        eye = take_apart(model, face, chart)
        assert np.degrees(np.abs(eye.ahead - ahead)).max() < 1.5
        assert abs(eye.radius - IRIS) < 0.06 * IRIS
        drawn = eye.drawn(chart.directions(shape), eye.ahead)
        error = np.abs(drawn - face.texture.rgb[chart.window]).max(axis=2)[eye_area(chart)]
        assert error.mean() < 0.02 and np.quantile(error, 0.95) < 0.08


@pytest.mark.parametrize("blink", [0.0, 0.4])
def test_a_turned_eye_is_as_if_painted_so(model, face, blink):
    """An iris that was half hidden by the lids is completed; none of it stays behind where it was."""
    shape = model.shape(face.identity, expression_of(model, eyeBlink=blink))
    turn = np.radians([25.0, 6.0])
    truth = painted(model, face.texture.rgb, shape, AHEAD + turn)
    for chart, ahead in zip(eye_charts(model, SIZE), AHEAD):
        drawn = take_apart(model, face, chart).drawn(chart.directions(shape), ahead + turn)
        where = eye_area(chart)
        error = np.abs(drawn - truth[chart.window]).max(axis=2)[where]
        unturned = np.abs(face.texture.rgb[chart.window] - truth[chart.window]).max(axis=2)[where]
        assert error.mean() < 0.03 < 0.1 < unturned.mean()


def test_a_photo_without_irises_gives_no_eyes(model, face):
    """None at all, hidden ones that were filled in, and ones that glasses cover."""
    blank = replace(face, texture=Texture(np.full((SIZE, SIZE, 3), 0.6, np.float32), face.texture.validity))
    unseen = replace(face, texture=Texture(face.texture.rgb, np.zeros((SIZE, SIZE), np.float32)))
    for one in (blank, unseen):
        assert all(take_apart(model, one, chart) is None for chart in eye_charts(model, SIZE))


class Performance:
    """A source with painted eyes: its track of `count` frames without expression, and textures of it by gaze."""

    def __init__(self, model, face, count, seed=3):
        self.model, self.face = model, virtual_face(model, seed, size=SIZE)
        shared = Shared(self.face.identity, np.zeros(model.albedo_count), 900.0)
        frame = Frame(np.zeros(model.expression_count), np.eye(3), np.array([0.0, 0, 560]), ambient_light(0.8))
        self.track = synthetic.track_of(model, shared, [frame] * count, 400)
        self.shown = np.zeros((count, model.expression_count), np.float32)
        self.target, self.seen = face, np.ones((SIZE, SIZE), np.float32)

    def texture(self, turn):
        shape = self.model.shape(self.face.identity)
        return painted(self.model, self.face.texture.rgb, shape, AHEAD + np.radians(turn)).astype(np.float32)

    def redrawer(self, **options):
        charts = eye_charts(self.model, SIZE)
        eyes = [take_apart(self.model, self.target, chart) for chart in charts]
        small, shape = eye_charts(self.model, GRID), self.model.shape(self.face.identity)
        usual = Usual(AHEAD, np.array([c.lid(shape) for c in small]), np.array([c.gap(shape) for c in small]), 1.0)
        return EyeRedrawer(self.model, self.target, eyes, self.track, self.shown, usual, charts, small, **options)


def redrawn(eyes, texture, *source):
    out = texture.copy()
    eyes.redraw(out, *source)
    return out


def gaze_shown(model, face, texture):
    shape = model.shape(face.identity)
    return np.degrees([read_gaze(chart, shape, texture, np.ones((SIZE, SIZE)))[0] for chart in eye_charts(model, SIZE)])


def test_eyes_follow_hold_and_go_on(model, face):
    """They jump where the source's jump, stay where they were while it blinks, and a state continues them."""
    play = Performance(model, face, 6)
    one, dark = play.redrawer(), np.zeros((SIZE, SIZE), np.float32)
    draw = lambda eyes, turn, t, seen=play.seen: redrawn(eyes, face.texture.rgb, play.texture(turn), seen, t)
    first = gaze_shown(model, face, draw(one, [0, 0], 0))
    assert np.abs(first - np.degrees(AHEAD)).max() < 2
    for t in (1, 2):
        drawn = draw(one, [30, 5], t)
    assert np.abs(gaze_shown(model, face, drawn) - np.degrees(AHEAD) - [30, 5]).max() < 6
    state = one.state()
    np.testing.assert_array_equal(draw(one, [0, 0], 3, dark), drawn)
    other = play.redrawer()
    other.restore(state)
    draw(other, [0, 0], 3, dark)
    np.testing.assert_array_equal(draw(one, [-10, 0], 4), draw(other, [-10, 0], 4))
    one.reset()
    np.testing.assert_array_equal(draw(one, [0, 0], 5), draw(play.redrawer(), [0, 0], 5))


def test_eyes_without_irises_are_closed(model, face):
    """A source whose lids the fit holds open while no iris shows; and one that never shows any plainly."""
    play, lidded = Performance(model, face, 6), face.texture.rgb.copy()
    for chart in eye_charts(model, SIZE):
        lidded[chart.window] += chart.weight[..., None] * (np.float32([0.6, 0.45, 0.4]) - lidded[chart.window])
    gaps = lambda eyes: lid_gaps(model, face.identity, eyes.expression[None])[0]
    eyes, never = play.redrawer(), play.redrawer(blinks=False)
    for one in (eyes, never):
        redrawn(one, face.texture.rgb, play.texture([0, 0]), play.seen, 0)
        np.testing.assert_array_equal(one.expression, play.shown[0])
        for t in (1, 2, 3):
            redrawn(one, face.texture.rgb, lidded, play.seen, t)
    assert (gaps(eyes) < 1.5).all() and (gaps(never) > 5).all()
    again = play.redrawer()
    again.restore(eyes.state())
    for one in (again, eyes):
        redrawn(one, face.texture.rgb, lidded, play.seen, 4)
    np.testing.assert_array_equal(again.expression, eyes.expression)
    redrawn(eyes, face.texture.rgb, play.texture([0, 0]), 0 * play.seen, 4)              # hidden eyes stay as they were
    assert (gaps(eyes) < 1.5).all()
    for t in (5, 5, 5, 5):
        redrawn(eyes, face.texture.rgb, play.texture([0, 0]), play.seen, t)
    np.testing.assert_array_equal(eyes.expression, play.shown[5])


def test_a_winking_eye_is_closed_and_the_other_goes_on_looking(model, face):
    """The fit leaves it half open, as detectors do. With lids as far apart as the other's it is a reflection."""
    play, chart = Performance(model, face, 8), eye_charts(model, SIZE)[1]
    narrow = np.zeros(model.expression_count, np.float32)
    narrow[model.expression_names.index("eyeBlinkLeft")] = 0.45
    lid = np.float32([0.6, 0.45, 0.4])
    gaps = lambda eyes: lid_gaps(model, face.identity, eyes.expression[None])[0]
    for expression, closed in ((narrow, True), (play.shown[0].copy(), False)):
        play.track.expression[1:], play.shown[1:] = expression, expression
        eyes = play.redrawer()
        redrawn(eyes, face.texture.rgb, play.texture([0, 0]), play.seen, 0)
        before = eyes.state()["turn"].copy()
        for t in range(1, 8):
            seen = play.texture([20, 0])
            seen[chart.window] += chart.weight[..., None] * (lid - seen[chart.window])
            redrawn(eyes, face.texture.rgb, seen, play.seen, t)
        assert (gaps(eyes)[1] < 1.5) == closed and gaps(eyes)[0] > 5
        assert np.degrees(eyes.state()["turn"] - before)[0, 0] > 15


@pytest.mark.parametrize("narrower", [0.0, 0.3])
def test_a_reflection_in_one_eye_is_no_gaze(model, face, narrower):
    """One eye shows a dark spot far aside, the other none at all: the target goes on looking ahead."""
    play = Performance(model, face, 3)
    play.track.expression[:, model.expression_names.index("eyeBlinkLeft")] = narrower
    eyes = play.redrawer(blinks=False)
    redrawn(eyes, face.texture.rgb, play.texture([0, 0]), play.seen, 0)
    glare, chart = play.texture([30, 0]), eye_charts(model, SIZE)[1]
    glare[chart.window] += chart.weight[..., None] * (np.float32([0.6, 0.45, 0.4]) - glare[chart.window])
    before = eyes.state()["turn"].copy()
    redrawn(eyes, face.texture.rgb, glare, play.seen, 1)
    np.testing.assert_array_equal(eyes.state()["turn"], before)
    redrawn(eyes, face.texture.rgb, play.texture([30, 0]), play.seen, 2)
    assert np.degrees(eyes.state()["turn"] - before)[:, 0].min() > 15


def test_only_the_eyes_change_and_closed_ones_do_not(model, face):
    play = Performance(model, face, 2)
    play.shown[1] = expression_of(model, eyeBlink=1.0)
    eyes, texture = play.redrawer(), np.random.default_rng(0).uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
    before = texture.copy()
    drawn = redrawn(eyes, texture, play.texture([20, 0]), play.seen, 0)
    outside = np.ones((SIZE, SIZE), bool)
    for chart in eye_charts(model, SIZE):
        outside[chart.window] &= chart.weight == 0                    # lids that are open are left alone, too
    np.testing.assert_array_equal(drawn[outside], before[outside])
    assert np.abs(drawn - before)[~outside].mean() > 0.1
    shut = redrawn(eyes, texture, play.texture([20, 0]), play.seen, 1)
    for chart in eye_charts(model, SIZE):
        where = eye_area(chart)
        np.testing.assert_array_equal(shut[chart.window][where], before[chart.window][where])


def test_no_vertex_is_looked_at_that_was_not_asked_for(model, face):
    """MorphableModel.shape leaves other rows undefined."""
    class Poisoned:
        def __getattr__(self, name):
            return getattr(model, name)

        def shape(self, identity=None, expression=None, rows=None):
            out = model.shape(identity, expression)
            if rows is not None:
                out[np.setdiff1d(np.arange(len(out)), rows)] = np.nan
            return out

    play, poisoned = Performance(model, face, 1), Performance(Poisoned(), face, 1)
    textures = [redrawn(p.redrawer(), face.texture.rgb, play.texture([15, 0]), play.seen, 0) for p in (play, poisoned)]
    np.testing.assert_allclose(*textures, atol=1e-4)


def test_the_performer_hands_on_what_eyes_remember(model, face):
    """The eyes' state goes into the performer's and comes back, and a cut is passed on."""
    play = Performance(model, face, 2)
    performer = lambda: TexturePerformer(model, play.track, face.texture, eyes=play.redrawer())
    one, other = performer(), performer()
    redrawn(one._eyes, face.texture.rgb, play.texture([25, 0]), play.seen, 0)
    other.restore(one.state())
    assert other.state()["eyes"]["turn"] is not None
    np.testing.assert_array_equal(other.state()["eyes"]["turn"], one.state()["eyes"]["turn"])
    one.reset()
    again = one.state()["eyes"]
    assert again["turn"] is None and not again["shut"].any() and again["plain"] == 1


def acted(model, turns, seed=3):
    """A rendered source whose painted eyes turn from AHEAD by `turns`, degrees: track, pictures, neutral Texture."""
    size, focal, centre = 400, 900.0, np.float32([200, 200])
    face, shape = virtual_face(model, seed, size=SIZE), model.shape(virtual_face(model, seed, size=SIZE).identity)
    shared = Shared(face.identity, np.zeros(model.albedo_count), focal)
    frame = Frame(np.zeros(model.expression_count), np.eye(3), np.array([0.0, 0, 420]), ambient_light(0.8))
    pictures = {}
    for t, turn in enumerate(turns):
        texture = painted(model, face.texture.rgb, shape, AHEAD + np.radians(turn)).astype(np.float32)
        drawn = render(model, face.identity, texture, frame.expression, frame.rotation, frame.translation, frame.light,
                       focal, centre, (size, size))
        picture = np.full((size, size, 3), 120, np.uint8)
        left, top, right, bottom = drawn.window
        picture[top:bottom, left:right][drawn.mask] = np.round(drawn.rgb[drawn.mask] * 255)
        pictures[t] = picture
    track = synthetic.track_of(model, shared, [frame] * len(turns), size)
    return track, pictures, neutral_source_texture(model, track, list(pictures.items()), SIZE)


def test_a_source_s_usual_gaze_is_found(model, face):
    """Six pictures look ahead by this source's own, slightly odd measure, two aside; a clip that looks aside throughout
    does look aside, unless all is to be relative; and without pictures there are no eyes, but lids."""
    odd, shown = np.array([3.0, 4.0]), np.zeros((8, model.expression_count), np.float32)
    track, pictures, neutral = acted(model, [odd] * 6 + [odd + [30, 0]] * 2)
    eyes = eye_redrawer(model, track, face, shown, pictures, neutral)
    assert eyes._blinks
    assert np.abs(np.degrees(eyes._usual.gaze - AHEAD) - odd).max() < 4
    track, pictures, neutral = acted(model, [[24.0, 0]] * 8)
    aside, kept = (eye_redrawer(model, track, face, shown, pictures, neutral, relative) for relative in (False, True))
    turned = [np.degrees(one._usual.gaze - AHEAD)[:, 0] for one in (aside, kept)]
    assert turned[0].max() < 9 and turned[1].min() > 12
    lids = eye_redrawer(model, track, face, shown, {}, neutral)
    texture = np.random.default_rng(0).uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_array_equal(redrawn(lids, texture, neutral.rgb, neutral.validity, 0), texture)
    shown[1] = expression_of(model, eyeBlink=0.6)
    assert np.abs(redrawn(lids, texture, neutral.rgb, neutral.validity, 1) - texture).max() > 0.1


def test_eyes_that_rest_do_not_tremble_and_those_that_move_are_followed():
    """Readings off by a third of a degree leave what a first-order filter of that share leaves; motion lags little."""
    trust, rng = np.ones(2), np.random.default_rng(0)

    def shown(turns):
        out = [None]
        for turn in turns:
            out.append(_followed(out[-1], np.tile(turn, (2, 1)), trust))
        return np.degrees(np.array(out[1:])).mean(axis=1)

    noise = rng.normal(0, np.radians(0.3), (4000, 2))
    assert shown(noise)[50:].std() == pytest.approx(0.3 * np.sqrt(FAINTLY / (2 - FAINTLY)), rel=0.1)
    for speed, most in ((0.2, 1.6), (1.0, 2.6), (3.0, 4.0)):                        # degrees a frame
        path = np.radians(speed) * np.arange(60)[:, None] * [1, 0]
        lag = np.degrees(path) - shown(path)
        assert 0 <= lag[:, 0].max() < most
    jump = np.radians([[0, 0]] * 3 + [[12, 0]] * 12)
    assert shown(jump)[3, 0] > 10 and abs(shown(jump)[-1, 0] - 12) < 0.5


def test_skin_between_a_fit_s_lids_is_no_eye(model, face):
    """A fit that opens the photo's eyes too far: what shows below an iris that rises is white, then skin."""
    rgb, skin = face.texture.rgb.copy(), np.float32([0.75, 0.52, 0.42])
    shape, bands = model.shape(face.identity), []
    for chart in eye_charts(model, SIZE):
        down = chart.directions(shape)[..., 1]
        low = down > down[eye_area(chart)].max() - 0.15
        rgb[chart.window] = np.where((low | (chart.weight == 0))[..., None], skin, rgb[chart.window])
        bands.append(low & (chart.weight > 0.99))
    lidded = replace(face, texture=Texture(rgb, face.texture.validity))
    for chart, band in zip(eye_charts(model, SIZE), bands):
        eye = take_apart(model, lidded, chart)
        assert band.sum() > 50 and np.median(eye.opening[band]) < 0.1
        assert eye.opening[(chart.weight > 0.99) & ~band].mean() > 0.95
    whole = [take_apart(model, face, chart) for chart in eye_charts(model, SIZE)]
    for eye in whole:                                                # without skin on it, an eye is all of its chart
        assert eye.opening.sum() > 0.9 * eye.chart.weight.sum()


def test_eyes_are_as_high_above_the_target_s_lids_as_above_the_source_s(model, face):
    """A fit that lays the source's lids wrongly lays its irises likewise, and the target's eyes do not notice."""
    cheeks = expression_of(model, cheekSquint=0.0, eyeSquint=0.6)
    play = Performance(model, face, 2)
    play.track.expression[1] = play.shown[1] = cheeks
    charts = eye_charts(model, SIZE)
    open_lids, raised = ([chart.lid(model.shape(play.face.identity, e))[1] for chart in charts] for e in (None, cheeks))
    assert np.degrees(np.subtract(raised, open_lids)).max() < -2
    seen = painted(model, play.face.texture.rgb, model.shape(play.face.identity, cheeks),
                   AHEAD + np.column_stack([[0, 0], np.subtract(raised, open_lids)])).astype(np.float32)
    eyes = play.redrawer()
    redrawn(eyes, face.texture.rgb, play.texture([0, 0]), play.seen, 0)
    before = eyes.state()["turn"].copy()
    redrawn(eyes, face.texture.rgb, seen, play.seen, 1)
    assert np.degrees(np.abs(eyes.state()["turn"] - before)).max() < 1


def test_narrowed_eyes_do_not_look_up(model, face):
    """Their lashes do; eyes as open as usual may."""
    for blink, high in ((0.4, -1.0), (0.0, -5.0)):
        play = Performance(model, face, 6)
        play.track.expression[:] = play.shown[:] = expression_of(model, eyeBlink=blink)
        shape, eyes = model.shape(play.face.identity, play.track.expression[0]), play.redrawer()
        up = painted(model, play.face.texture.rgb, shape, AHEAD + np.radians([0, -12])).astype(np.float32)
        for t in range(6):
            redrawn(eyes, face.texture.rgb, up, play.seen, t)
        found = np.degrees(eyes.state()["turn"])[:, 1]
        assert (found > high).all() if blink else (found < high).all()


def test_a_reflection_in_one_lowered_eye_keeps_neither_open(model, face):
    """A blink behind glasses: landmarks leave both lids half open, and one lens mirrors something dark."""
    play, other = Performance(model, face, 5), eye_charts(model, SIZE)[1]
    play.track.expression[1:] = play.shown[1:] = expression_of(model, eyeBlink=0.45)
    eyes = play.redrawer()
    redrawn(eyes, face.texture.rgb, play.texture([0, 0]), play.seen, 0)
    glare = play.texture([30, 12])
    glare[other.window] += other.weight[..., None] * (np.float32([0.6, 0.45, 0.4]) - glare[other.window])
    for t in range(1, 5):
        redrawn(eyes, face.texture.rgb, glare, play.seen, t)
    assert (lid_gaps(model, face.identity, eyes.expression[None])[0] < 1.5).all()
