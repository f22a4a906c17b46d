"""Data sets on disk: what is written is read, and damage is named."""
import json

import cv2
import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.lift import BRIGHTEST, Texture
from tests.texture_sets import made_up_clip, made_up_set
from texgan import check
from texgan.dataset import ARRAYS, clip_folders, decode, encode, finished, read_clip, read_dataset, write_clip


def test_codes_keep_albedo_to_half_a_step():
    albedo = np.linspace(0, BRIGHTEST, 1000, dtype=np.float32)
    assert np.abs(decode(encode(albedo)) - albedo).max() <= 0.5 * BRIGHTEST / 255 + 1e-6
    assert encode(np.float32([-1, 9])).tolist() == [0, 255]


def test_a_clip_is_read_as_it_was_written(tmp_path, model):
    clip = made_up_clip(model, "a")
    full = {0: Texture(np.full((64, 64, 3), 0.5, np.float32), np.ones((64, 64), np.float32))}
    write_clip(tmp_path, clip, full)
    (folder,) = clip_folders(tmp_path)
    back = read_clip(folder)
    assert back.info == clip.info and len(back) == 2
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(clip, name))
    assert sorted(p.name for p in (folder / "full").iterdir()) == ["000000.png", "000000_validity.png"]


def test_the_manifest_names_people_and_rights(tmp_path, model):
    made_up_set(tmp_path, model)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["identities"] == 4 and manifest["frames"] == 8
    assert manifest["clips"][0]["neutral"] == "neutral" and manifest["clips"][0]["rights"] == "made up"


@pytest.mark.parametrize("damage", ["clip.json", "textures.npy", "short", "format"])
def test_damage_is_named(tmp_path, model, damage):
    made_up_set(tmp_path, model, people=("a",))
    (folder,) = clip_folders(tmp_path)
    if damage == "short":
        np.save(folder / "validity.npy", np.zeros((1, 256, 256), np.uint8))
    elif damage == "format":
        info = json.loads((folder / "clip.json").read_text())
        (folder / "clip.json").write_text(json.dumps({**info, "format": 99}))
    else:
        (folder / damage).write_bytes(b"nothing of use")
    with pytest.raises(InputError, match="again"):
        read_dataset(tmp_path)


def test_no_data_set(tmp_path):
    with pytest.raises(InputError, match="texgan.extract"):
        clip_folders(tmp_path)


def test_check_finds_faults_and_draws_a_sheet(tmp_path, model, capsys):
    made_up_set(tmp_path, model)
    assert check.main([str(tmp_path), "-o", str(tmp_path / "sheet.png"), "--rows", "2"]) is None
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "4 clips of 4 people, 8 frames" in capsys.readouterr().out
    (folder, *_) = clip_folders(tmp_path)
    np.save(folder / "validity.npy", np.zeros((2, 256, 256), np.uint8))
    with pytest.raises(InputError, match="1 damaged"):
        check.main([str(tmp_path)])
    assert "nothing of it is seen" in capsys.readouterr().out


def test_a_sheet_of_what_is_undamaged(tmp_path, model):
    made_up_set(tmp_path, model, people=("a", "b"))
    info = json.loads((tmp_path / "clips" / "clip_a" / "clip.json").read_text())
    (tmp_path / "clips" / "clip_a" / "clip.json").write_text(json.dumps({**info, "neutral": 7}))
    drawn = tmp_path / "sheet.png"
    with pytest.raises(InputError, match="1 damaged"):
        check.main([str(tmp_path), "-o", str(drawn)])
    assert cv2.imread(str(drawn)).shape[0] == 2 * check.CELL                 # one row, the sound clip's
    for options, words in ((["-o", "sheet.xyz"], ".png"), (["-o", str(drawn), "--rows", "0"], "--rows 0")):
        with pytest.raises(InputError, match=words):
            check.main([str(tmp_path), *options])


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path, model, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)                     # what OpenCV says when the disk is full
    full = {0: Texture(np.full((64, 64, 3), 0.5, np.float32), np.ones((64, 64), np.float32))}
    with pytest.raises(InputError, match="000000.png: can't be written"):
        write_clip(tmp_path, made_up_clip(model, "a"), full)
    assert not finished(tmp_path)


def test_frames_on_the_sheet_differ(model):
    clip = made_up_clip(model, "a", frames=("neutral", "x", "y", "z"))
    clip.expression[:, 0] = [0, 0.1, 0.9, 0.11]
    assert check.distant_frames(clip, 3)[:2] == [0, 2]
