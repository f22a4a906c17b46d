"""Rendered performances as a data set: one actor, seen through the fit."""
import numpy as np
import pytest

from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.lift import Texture
from fitting.texture import albedo_texture
from tests.test_rendered import ICT, needs_ict
from tests.texture_sets import made_up_clip
from texgan import perform as performing
from texgan.dataset import write_clip
from texgan.extract import Extractor
from texgan.rendered import SCRIPT
from texgan.stage import load_stage


@needs_ict
@pytest.mark.slow
def test_an_actor_becomes_a_clip_whose_frames_are_the_scripts(model):
    extractor = Extractor(model)
    skin = albedo_texture(model, None, extractor.lifter.atlas)
    frames = list(performing.actor_frames(load_stage(ICT, load_model()), skin, 0, 0))
    assert [n for n, _ in frames] == [n for n, _ in SCRIPT]
    clip = performing.extract_actor(model, extractor, FaceDetector(), frames, "actor", "drawn")
    assert len(clip) >= performing.LEAST_FRAMES and clip.info.frames[clip.info.neutral] == "neutral"
    assert clip.info.script == performing.RENDERED_SCRIPT
    weight = lambda frame, name: clip.expression[clip.info.frames.index(frame), model.expression_names.index(name)]
    assert weight("jaw_wide", "jawOpen") > weight("neutral", "jawOpen") + 0.3
    assert weight("blink", "eyeBlinkLeft") > weight("neutral", "eyeBlinkLeft") + 0.15


def test_an_actor_that_is_not_found_is_left_out(model):
    grey = [(name, np.full((128, 128, 3), 90, np.uint8)) for name, _ in SCRIPT]
    assert performing.extract_actor(model, None, FaceDetector(), grey, "nobody", "") is None


def test_skins_come_from_training_people_only(tmp_path, model):
    full = {0: Texture(np.full((64, 64, 3), 0.5, np.float32), np.ones((64, 64), np.float32))}
    for identity in ("005", "somebody", "017"):                # the first and the last are held back (texgan.split)
        write_clip(tmp_path, made_up_clip(model, identity), full)
    assert [s[0] for s in performing.skins_of(tmp_path)] == ["somebody"]


def test_a_data_set_has_one_seed(tmp_path, model):
    settings = {"seed": 1, "model_hash": model.hash, "skins_sha256": "a"}
    performing.begin(tmp_path / "set", settings)
    performing.begin(tmp_path / "set", {**settings, "seed": 2})             # nothing there yet that has another
    write_clip(tmp_path / "set", made_up_clip(model, "actor0000"))
    performing.begin(tmp_path / "set", {**settings, "seed": 2, "actors": 9})
    before = (tmp_path / "set" / "manifest.json").read_bytes()
    for other, words in (({"seed": 3}, "another --seed"), ({"seed": 2, "model_hash": "x"}, "another --model"),
                         ({"seed": 2, "skins_sha256": "b"}, "another SKINS")):
        with pytest.raises(InputError, match=f"{words}; give another folder"):
            performing.begin(tmp_path / "set", {**settings, **other})
    assert (tmp_path / "set" / "manifest.json").read_bytes() == before


def test_there_is_no_device_to_choose(tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        performing.main([str(tmp_path), "-o", str(tmp_path / "out"), "--ict", "nowhere", "--device", "cpu"])
    assert refused.value.code == 2 and "--device" in capsys.readouterr().err


def test_without_photos_or_ict_the_command_says_so(tmp_path, model):
    with pytest.raises(InputError, match="texgan.extract"):
        performing.main([str(tmp_path), "--ict", "nowhere", "-o", str(tmp_path / "out")])
