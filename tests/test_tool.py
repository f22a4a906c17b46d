"""compositing.replace as a tool to rely on: exit status, spans, views, stopping and going on.

The clip is tracked once; textures are 'static' or 'delta', which need no weights.
"""
import json
from dataclasses import replace
from functools import partial

import pytest

import compositing.replace
import fitting.fit
import fitting.track
from fitting import commands
from fitting.trackfile import load_track, save_track
from tests import clips

COUNT = 16


@pytest.fixture(scope="module", autouse=True)
def quick_fits():
    """As in tests/test_replace.py."""
    with pytest.MonkeyPatch.context() as patch:
        quick = partial(fitting.fit.fit_frames, iterations=(2, 1, 1))
        patch.setattr(fitting.fit, "fit_frames", quick)
        patch.setattr(fitting.track, "fit_frames", quick)
        patch.setattr(compositing.replace, "track_clip", partial(fitting.track.track_clip, key_frames=1))
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """An NTSC clip with sound."""
    folder = tmp_path_factory.mktemp("clip")
    return clips.cut(folder / "clip.mp4", COUNT, crop=(480, 360), rate=clips.NTSC, sound=True)


@pytest.fixture(scope="module")
def track(model, clip):
    """The clip's TRACK.npz."""
    path = clip.with_suffix(".npz")
    save_track(compositing.replace.track_clip(model, clip, compositing.replace.FaceDetector(), progress=False).track,
               path)
    return path


def run(*argv):
    """The exit status of compositing.replace."""
    with pytest.raises(SystemExit) as caught:
        commands.run(compositing.replace.main, [str(a) for a in ("--texture", "static", "--virtual", 3, *argv)])
    return caught.value.code


def report_of(path):
    return json.loads(path.with_name(path.name + ".report.json").read_text())


@pytest.mark.parametrize(("lost", "status"), [((4,), 0), ((4, 9), 3)])
def test_status_3_when_many_frames_are_passed_through(capsys, clip, track, tmp_path, lost, status):
    known = load_track(track)
    what = known.status.copy()
    what[list(lost)] = "lost"
    save_track(replace(known, status=what), tmp_path / "t.npz")
    assert run(clip, "--track", tmp_path / "t.npz", "-o", tmp_path / "out.mp4") == status
    printed = capsys.readouterr().out
    assert f"{len(lost)} passed through (frames {', '.join(map(str, lost))})" in printed
    assert len(clips.decoded(tmp_path / "out.mp4")) == COUNT
