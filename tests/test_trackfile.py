"""Tracks survive the disk; what can't be read is one clear line."""
import dataclasses

import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.trackfile import Track, load_track, save_track


def some_track(model, frames=3, status=None):
    rng = np.random.default_rng(0)
    f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return Track(
        model_name=model.name, model_hash=model.hash, image_size=np.array([100, 120]), frame_index=np.arange(frames),
        status=np.array(status or ["ok"] * frames), identity=f32(model.identity_count), albedo=f32(model.albedo_count),
        expression=np.abs(f32(frames, model.expression_count)).clip(0, 1),
        expression_names=np.array(model.expression_names), rotation=f32(frames, 3) * 0.1, translation=f32(frames, 3),
        focal=np.float32(200), principal_point=np.float32([60, 50]), light=f32(frames, 9, 3),
        landmarks=f32(frames, 68, 2), photometric_error=f32(frames), landmark_error=f32(frames))


def test_round_trip(model, tmp_path):
    track = some_track(model)
    save_track(track, tmp_path / "a.npz")
    again = load_track(tmp_path / "a.npz", model)
    for field in dataclasses.fields(Track):
        np.testing.assert_array_equal(getattr(track, field.name), getattr(again, field.name))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_errors_are_one_line(model, tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez(tmp_path / "other.npz", a=1)
    other = dataclasses.replace(some_track(model), model_hash="0" * 16)
    save_track(other, tmp_path / "model.npz")
    later = dataclasses.replace(some_track(model), format_version=99)
    save_track(later, tmp_path / "later.npz")
    for name, word in (("none.npz", "no such file"), ("junk.npz", "is no FIT.npz"), ("other.npz", "is no FIT.npz"),
                       ("model.npz", "fit again"), ("later.npz", "format version 99")):
        with pytest.raises(InputError, match=word) as caught:
            load_track(tmp_path / name, model)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(InputError, match="can't be written"):
        save_track(other, tmp_path / "no" / "folder.npz")
