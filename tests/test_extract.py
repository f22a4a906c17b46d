"""texgan.extract as a user runs it, and what it promises about the textures."""
import csv
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from facemodel.errors import InputError
from facemodel.workers import worker_pool
from fitting.detection import FaceDetector
from fitting.lift import Texture
from fitting.solver import NUMBA, Engine
from fitting.trackfile import load_track, save_track
from tests.texture_sets import made_up_clip
from texgan import extract as extraction
from texgan.dataset import decode, read_dataset, write_clip
from texgan.extract import find_jobs, is_done, read_people


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, drawn_people):
    out = tmp_path_factory.mktemp("extracted") / "set"
    status = extraction.main([str(drawn_people), "-o", str(out), "--rights", "drawn", "--workers", "1"])
    assert status == 0
    return out


def test_photos_of_a_person_are_one_clip(dataset, model):
    clips = read_dataset(dataset)
    assert [c.info.identity for c in clips] == ["p1", "p2"]
    for clip in clips:
        assert clip.info.frames == ["neutral", "smile"] and clip.info.neutral == 0 and clip.info.rights == "drawn"
        smile = model.expression_names.index("mouthSmileLeft")
        assert clip.expression[1, smile] > clip.expression[0, smile] + 0.15
        assert min(clip.info.quality) > 0.5
        full = dataset / "clips" / clip.info.name / "full"
        assert cv2.imread(str(full / "000001.png")).shape == (1024, 1024, 3)
    assert json.loads((dataset / "manifest.json").read_text())["identities"] == 2


def test_textures_of_one_person_agree_where_the_skin_stays(dataset, model):
    """Forehead and nose of a drawn face have the same albedo in both photos, of two people they have not."""
    one, two = read_dataset(dataset)
    skin = (np.asarray(one.validity).min(axis=0) > 230)
    skin[140:] = False
    gap = lambda a, b: np.abs(decode(a) - decode(b)).mean(axis=2)[skin].mean()
    assert gap(one.textures[0], one.textures[1]) < 0.02 < gap(one.textures[0], two.textures[0])


def test_photos_are_fitted_by_the_engine_that_is_asked_for(drawn_people, model):
    drawn = []
    counting = Engine(lambda *args, **more: drawn.append(1) or NUMBA.rasterize(*args, **more))
    (job, _) = find_jobs([drawn_people])
    extraction.extract_photos(model, extraction.Extractor(model), FaceDetector(), job, counting)
    assert len(drawn) > 10


def test_processes_that_share_a_gpu_are_few(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(extraction, "backend_for", lambda _: SimpleNamespace(torch_device="cuda"))
    monkeypatch.setattr(extraction, "worker_pool", lambda workers, *_: asked.append(workers) or worker_pool(1))
    extraction.extract([], tmp_path / "set", workers=16, progress=False)
    monkeypatch.setattr(extraction, "backend_for", lambda _: SimpleNamespace(torch_device=None))
    extraction.extract([], tmp_path / "set", workers=16, progress=False)
    assert asked == [extraction.GPU_WORKERS, 16]


def test_finished_clips_are_kept_and_changed_ones_are_made_again(dataset, drawn_people, model, tmp_path):
    jobs = find_jobs([drawn_people])
    assert all(is_done(dataset, j, model.hash, 1) for j in jobs)
    assert not is_done(dataset, jobs[0], "another model", 1)
    before = (dataset / "clips" / "p1" / "clip.json").stat().st_mtime_ns
    assert extraction.main([str(drawn_people), "-o", str(dataset), "--workers", "1"]) == 0
    assert (dataset / "clips" / "p1" / "clip.json").stat().st_mtime_ns == before


def test_what_cannot_be_used_is_named_and_the_rest_is_there(tmp_path, drawn_people, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for photo in drawn_people.glob("p1_*"):
        (folder / photo.name).write_bytes(photo.read_bytes())
    cv2.imwrite(str(folder / "nobody_neutral.png"), np.full((300, 300, 3), 90, np.uint8))
    assert extraction.main([str(folder), "-o", str(tmp_path / "set"), "--workers", "1"]) == 3
    assert "left out nobody" in capsys.readouterr().out
    assert [c.info.name for c in read_dataset(tmp_path / "set")] == ["p1"]


def test_a_photo_that_does_not_fit_is_named_in_every_run(tmp_path, model, monkeypatch, capsys):
    """Of a person with three photos the last can't be fitted: the clip knows it and is not made again."""
    paths = [tmp_path / f"q_{n}.png" for n in ("neutral", "smile", "hidden")]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((40, 40, 3), 50 * k, np.uint8))
    image, texture = np.zeros((8, 8, 3), np.uint8), Texture(np.zeros((8, 8, 3)), np.ones((8, 8)))
    lifter = SimpleNamespace(neutral=lambda *_: texture, frame=lambda *_: texture)
    made_up = made_up_clip(model, "q")
    whole = lambda info, *_: replace(made_up, info=replace(info, quality=[1, 1]))
    extractor = SimpleNamespace(lifter=lifter, clip=whole)
    for name, value in (("choose_face", lambda *_: SimpleNamespace(box=None)), ("Lifter", lambda *_: lifter),
                        ("track_photos", lambda *_: SimpleNamespace(status=np.array(["ok", "ok", "lost"])))):
        monkeypatch.setattr(extraction, name, value)
    detector = SimpleNamespace(find=lambda _: image, landmarks_of=lambda *_: None)
    (job,) = find_jobs(paths)
    clip, full = extraction.extract_photos(model, extractor, detector, job)
    assert clip.info.frames == ["neutral", "smile"] and clip.info.left_out == ["q_hidden.png"] and set(full) == {0, 1}
    write_clip(tmp_path / "set", clip, full)
    assert is_done(tmp_path / "set", job, model.hash, 1)
    given = [*map(str, paths), "-o", str(tmp_path / "set")]
    assert extraction.main(given) == extraction.main([*given, "--rights", "CC0"]) == 3
    assert capsys.readouterr().out.count("left out q_hidden.png: can't be fitted") == 2
    (again,) = read_dataset(tmp_path / "set")
    assert again.info == replace(clip.info, rights="CC0")                  # and only what was said of it is new
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["clips"][0]["rights"] == "CC0"


def test_a_failure_drops_work_that_has_not_begun():
    with pytest.raises(KeyError), worker_pool(1) as pool:
        waiting = [pool.submit(time.sleep, 0.2) for _ in range(100)]
        raise KeyError
    assert sum(w.cancelled() for w in waiting) > 90


def test_a_video_becomes_a_clip_with_a_calm_neutral_frame(tmp_path, model):
    import assets
    people = tmp_path / "people.csv"
    with open(people, "w", newline="") as f:
        csv.writer(f).writerows([["file", "identity", "rights"], ["single_face.mp4", "demo man", "MIT"]])
    out = tmp_path / "set"
    assert extraction.main([str(assets.path("demo/single_face.mp4")), "-o", str(out), "--every", "12", "--people",
                            str(people), "--tracks", str(tmp_path), "--workers", "1"]) == 0
    (clip,) = read_dataset(out)
    assert clip.info.identity == "demo man" and clip.info.rights == "MIT" and 6 <= len(clip) <= 8
    assert (tmp_path / "single_face.npz").is_file()
    bared = clip.expression[:, model.expression_names.index("mouthLowerDownLeft")]             # he comes to laugh
    assert bared[clip.info.neutral] < bared.max() - 0.3
    part = load_track(tmp_path / "single_face.npz")
    for cut in (replace(part, frame_index=part.frame_index + 5), replace(part, stopped_at=40)):
        save_track(cut, tmp_path / "single_face.npz")
        with pytest.raises(InputError, match="single_face.npz: holds a part of .*single_face.mp4 only"):
            extraction.extract_video(model, None, None, find_jobs([assets.path("demo/single_face.mp4")])[0],
                                     track_path=tmp_path / "single_face.npz")


@pytest.mark.parametrize("arguments, words", [
    (["nowhere"], "no such file"), (["{empty}"], "no photos or videos"), (["{people}", "--every", "0"], "1 or more"),
    (["{people}", "--tracks", "nowhere"], "no such folder"), (["{people}", "--people", "nowhere.csv"], "columns"),
    (["{people}", "--device", "cuda"], "--device cuda: .*CPU")])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, drawn_people, arguments, words, monkeypatch):
    monkeypatch.setattr("facemodel.device._has_gpu", lambda: False)
    empty = tmp_path / "empty"
    empty.mkdir()
    given = [a.format(empty=empty, people=drawn_people) for a in arguments]
    with pytest.raises(InputError, match=words):
        extraction.main([*given, "-o", str(tmp_path / "set")])
    assert not (tmp_path / "set").exists()


def test_names_and_people(tmp_path):
    for name in ("a_neutral.jpg", "a_smile.jpg", "b.jpg", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
    jobs = {j.name: j for j in find_jobs([tmp_path], rights="mine")}
    assert set(jobs) == {"a", "b", "clip"} and len(jobs["a"].paths) == 2 and jobs["clip"].is_video
    table = tmp_path / "people.csv"
    table.write_text("file,identity,rights,neutral\nb.jpg,a,,\nclip.mp4,c,public domain,17\n")
    jobs = {j.name: j for j in find_jobs([tmp_path], read_people(table), "mine")}
    assert len(jobs["a"].paths) == 3 and jobs["clip"].neutral == "17" and jobs["clip"].rights == "public domain"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "clip.mov").write_bytes(b"")
    with pytest.raises(InputError, match="named clip"):
        find_jobs([tmp_path, tmp_path / "more"])


def test_tables_of_people_that_do_not_fit_the_files(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"")
    table = tmp_path / "people.csv"
    table.write_text("file,identity,neutral\nclip.mp4,c, 07\n", encoding="utf-8-sig")         # as spreadsheets save it
    (job,) = find_jobs([tmp_path], read_people(table))
    assert job.identity == "c" and job.neutral == "7"
    for row, words in (("clip.mp4,c,neutral", "clip.mp4: 'neutral'.*number"),
                       ("clap.mp4,c,", "clap.mp4: is in the table")):
        table.write_text(f"file,identity,neutral\n{row}\n")
        with pytest.raises(InputError, match=words):
            find_jobs([tmp_path], read_people(table))
