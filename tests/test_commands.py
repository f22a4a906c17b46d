"""What all commands share: one line for every error, and inputs that no output takes the place of."""
import pytest

import compositing.animate
import compositing.replace
import compositing.train_occlusion
import facemodel.build.__main__
import facemodel.build.population
import facemodel.readers.__main__
import fitting.export
import fitting.fit
import fitting.learn_albedo
import fitting.place_landmarks
import fitting.track
import texgan.align
import texgan.check
from facemodel import commands


def said(capsys, main, *argv, status=1):
    """The one line on stderr with which a command ends."""
    with pytest.raises(SystemExit) as end:
        commands.run(main, [str(a) for a in argv])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == status and line.startswith("error: ")
    return line


@pytest.mark.parametrize("module", [facemodel.build.__main__, facemodel.build.population, facemodel.readers.__main__,
                                    fitting.learn_albedo, fitting.place_landmarks, texgan.check,
                                    compositing.train_occlusion])
def test_a_command_line_that_makes_no_sense_is_one_line(capsys, module):
    assert "see python -m" in said(capsys, module.main, "--no-such-option", status=2)


def test_bad_input_of_commands_that_few_run(capsys, tmp_path):
    (tmp_path / "commons_face.npz").write_bytes(b"PK")
    (tmp_path / "albedo.npz").write_bytes(b"PK")
    missing = tmp_path / "none"
    for main, argv, words in (
            (facemodel.build.population.main, [missing], "none: no such model"),
            (facemodel.build.population.main, [tmp_path], "commons_face.npz: is damaged"),
            (facemodel.build.__main__.main, ["-o", missing / "x.npz"], "no such folder"),
            (facemodel.readers.__main__.main, [missing], "no Basel Face Model"),
            (fitting.learn_albedo.main, [tmp_path], "no photos there"),
            (fitting.learn_albedo.main, [tmp_path, "--rounds", 0], "give 1 or more"),
            (compositing.train_occlusion.main, [tmp_path, "--count", 0, "-o", missing], "give 1 or more"),
            (fitting.fit.main, [tmp_path / "a.jpg", "--model", tmp_path], "a.jpg")):
        assert words in said(capsys, main, *argv)


def test_no_output_takes_the_place_of_an_input(capsys, tmp_path):
    """Under its own name or another that means the same file; before anything is read."""
    names = ("a.mp4", "b.mp4", "mask.mp4", "photo.png", "fit.npz")
    files = {name: tmp_path / name for name in names}
    for path in files.values():
        path.write_bytes(b"mine")
    clip, other, mask, photo, fit = files.values()
    alias = tmp_path / "alias.mp4"
    alias.symlink_to(clip)
    swap = ("--virtual", 3)
    for main, argv in (
            (fitting.track.main, [clip, "-o", clip]),
            (fitting.export.main, [fit, "--image", photo, "-o", photo]),
            (texgan.align.main, [clip, other, "-o", other]),
            (compositing.replace.main, [clip, *swap, "-o", alias]),
            (compositing.replace.main, [clip, *swap, "--mask", mask, "-o", mask]),
            (compositing.replace.main, [clip, *swap, "--mask", mask, "-o", tmp_path / "out.mp4", "--compare", mask]),
            (compositing.replace.main, [clip, *swap, "-o", tmp_path / "out.mp4", "--debug", clip]),
            (compositing.replace.main, ["--pair", f"1={photo}", clip, "-o", tmp_path / "out.mp4", "--track", photo]),
            (compositing.animate.main, [clip, photo, "-o", alias])):
        assert "is one of the inputs" in said(capsys, main, *argv)
    assert all(path.read_bytes() == b"mine" for path in files.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "alias.mp4"])


def test_a_photo_is_not_replaced_by_its_fit(capsys, tmp_path):
    import cv2
    import numpy as np
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((64, 64, 3), np.uint8))
    assert "photo.png: is one of the inputs" in said(capsys, fitting.fit.main, photo, "-o", photo)
