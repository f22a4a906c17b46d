"""Table 1: its figures against closed forms and a second implementation, and the command as it is used."""
import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from facemodel.errors import InputError
from fitting.trackfile import file_hash
from tests.texture_sets import made_up_clip, made_up_set
from texgan import evaluate as table
from texgan.checkpoint import TrainSettings
from texgan.dataset import decode, encode, write_clip
from texgan.sampling import Masks
from texgan.train import train


def test_figures_of_a_constant_difference():
    rng = np.random.default_rng(0)
    truth = rng.uniform(50, 200, (64, 64, 3))
    weight = np.ones((64, 64))
    figures = table.compare(truth + 10, truth, weight)
    assert figures["l1"] == pytest.approx(10) and figures["l2"] == pytest.approx(100)
    assert figures["sharpness"] == pytest.approx(1)
    half = np.zeros((64, 64))
    half[:32] = 1
    mixed = truth.copy()
    mixed[:32] += 4
    assert table.compare(mixed, truth, half)["l1"] == pytest.approx(4)


def test_ssim_is_that_of_a_plain_loop():
    """Wang et al. 2004, eq. 13, by a loop over windows with explicit Gaussian weights."""
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 255, (24, 24, 1)).astype(np.float32).repeat(3, axis=2)
    b = np.clip(a + rng.normal(0, 30, (24, 24, 1)), 0, 255).astype(np.float32)
    x = np.arange(11) - 5
    kernel = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5 ** 2))
    kernel /= kernel.sum()
    ours = table.ssim_map(a, b)
    for i, j in ((5, 5), (12, 7), (18, 18)):
        p, q = (v[i - 5:i + 6, j - 5:j + 6, 0].astype(float) for v in (a, b))
        mp, mq = (kernel * p).sum(), (kernel * q).sum()
        vp, vq, c = (kernel * p * p).sum() - mp ** 2, (kernel * q * q).sum() - mq ** 2, (kernel * p * q).sum() - mp * mq
        truth = (2 * mp * mq + 6.5025) * (2 * c + 58.5225) / ((mp ** 2 + mq ** 2 + 6.5025) * (vp + vq + 58.5225))
        assert ours[i, j] == pytest.approx(truth, abs=1e-4)
    assert table.ssim_map(a, a).min() == pytest.approx(1)


def test_sharpness_falls_with_blur_and_is_one_for_the_truth():
    truth = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
    weight = np.ones((64, 64))
    assert table.compare(cv2.GaussianBlur(truth, (0, 0), 1.0), truth, weight)["sharpness"] < 0.5
    assert table.compare(truth, truth, weight)["sharpness"] == 1


def test_the_interval_covers_the_mean_and_shrinks_with_people():
    rng = np.random.default_rng(0)
    few = np.repeat(np.arange(5), 4)
    many = np.repeat(np.arange(80), 4)
    widths = []
    for people in (few, many):
        values = rng.normal(3, 1, len(people))
        low, high = table.interval(values, people.astype(str))
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


class Fixed:
    """A generator that adds the known change."""

    def __init__(self, change):
        self.mean_changes = {"smile": change}

    def texture(self, source, source_validity, neutral, neutral_validity):
        smiles = source[160, 128].mean() < source[100, 128].mean() - 0.05
        return neutral + (self.mean_changes["smile"] if smiles else 0)


def test_a_perfect_generator_has_no_error_and_the_others_what_they_leave(model, tmp_path):
    clips = [made_up_clip(model, n, seed=k) for k, n in enumerate("abc")]
    change = np.zeros((256, 256, 3), np.float32)
    change[150:180, 100:156] = -0.15
    out = table.evaluate(clips, model, Fixed(change), tmp_path / "dump", progress=False)
    assert out["pairs"] == 6
    whole = {m: out["methods"][m]["whole"] for m in table.METHODS}
    assert whole["gan"]["l1"] < 0.6 < whole["static"]["l1"]
    assert whole["delta"]["l1"] < 1.0 and whole["mean"]["l1"] < 0.6
    areas = table.weights(clips[0], 1, Masks.of(model))["whole"]
    expected = 0.15 * 255 / 1.3 * areas[150:180, 100:156].sum() / areas.sum()
    assert whole["static"]["l1"] == pytest.approx(expected, rel=0.02)
    assert out["follows"]["still"] < 0.1
    again = table.reenact(clips, clips, model, Fixed(change), progress=False)
    assert set(again) == {"photos"} and set(again["photos"]) == set(table.METHODS)
    assert again["photos"]["gan"]["whole"]["l1"] < 0.6 < again["photos"]["static"]["whole"]["l1"]
    names = {p.relative_to(tmp_path / "dump").as_posix() for p in (tmp_path / "dump").rglob("*.png")}
    assert {"truth/a_smile.png", "validity/a_smile.png", "gan/b_to_a_smile.png", "static/b_to_a_smile.png"} <= names


@pytest.fixture(scope="module")
def weights(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("weights")
    dataset = made_up_set(folder / "data", model, people=("x", "y", "z"))
    return train([dataset], folder / "run", TrainSettings(steps=1, batch=1, channels=4), "cpu", progress=False)


def test_a_folder_without_two_strangers_is_refused(tmp_path, weights):
    cv2.imwrite(str(tmp_path / "a_neutral.jpg"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="fewer than two people"):
        table.main([str(tmp_path), "-o", str(tmp_path / "t.json"), "--weights", str(weights)])
    with pytest.raises(InputError, match="no such folder"):
        table.main([str(tmp_path / "none"), "-o", str(tmp_path / "t.json"), "--weights", str(weights)])
    assert not (tmp_path / "t.json").exists()


def test_whom_the_weights_know_is_no_stranger(tmp_path):
    """From training or from validation, by the photos' hashes; old weights watched texgan.split.VALIDATION."""
    for name in "abcde":
        (tmp_path / f"{name}_neutral.jpg").write_bytes(name.encode())
    (tmp_path / "017_neutral.jpg").write_bytes(b"017")
    known = {n: json.dumps([file_hash(tmp_path / f"{n}_neutral.jpg")]) for n in "ab"}
    found = lambda **meta: [j.name for j in table.strangers([tmp_path], SimpleNamespace(meta=meta))]
    assert found(sha256=known["a"], validation_sha256=known["b"]) == ["017", "c", "d", "e"]
    assert found(sha256=known["a"]) == ["b", "c", "d", "e"]


def test_nobody_in_a_group_leaves_it_out(model):
    clips = [made_up_clip(model, n, seed=k) for k, n in enumerate("ab")]
    for clip in clips:
        clip.validity[:, table.weights(clip, 1, Masks.of(model))["mouth_eyes"] > 0] = 0          # sunglasses and a mask
    generator = Fixed(np.zeros((256, 256, 3), np.float32))
    out = table.evaluate(clips, model, generator, progress=False)
    assert all(set(m) == {"whole"} for m in out["methods"].values())
    floor = table.noise_floor(clips, [], Masks.of(model))
    assert floor == {}
    again = table.reenact(clips, clips, model, generator, progress=False)
    table.print_table({**out, "floor": floor, "reenacted": again})


def test_mirror_images_are_mirrored_back_as_faces_are(lopsided):
    """On a chart whose halves are no mirror images: a clip and the same clip, mirrored, are alike."""
    masks, clip = Masks.of(lopsided), made_up_clip(lopsided, "a")
    turned = [encode(masks.atlas.mirrored(decode(t))) for t in clip.textures]
    floor = table.noise_floor([clip], [replace(clip, textures=np.stack(turned))], masks)
    plain = [t[:, ::-1] for t in clip.textures]
    assert floor["whole"]["l1"] < 0.3 * table.noise_floor([clip], [replace(clip, textures=np.stack(plain))],
                                                          masks)["whole"]["l1"]


def test_options_that_cannot_be_used(tmp_path, model, weights, drawn_people):
    command = [str(drawn_people), "-o", str(tmp_path / "t.json"), "--weights", str(weights)]
    other = made_up_clip(model, "z")
    write_clip(tmp_path, replace(other, info=replace(other.info, chart_hash="another")))
    with pytest.raises(InputError, match="clip clip_z: is on the chart of another"):
        table.main([*command, "--clips", str(tmp_path)])
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda: no CUDA device"):
            table.main([*command, "--device", "cuda"])


def test_photos_that_are_left_out_are_in_the_status(tmp_path, model, weights, drawn_people, monkeypatch, capsys):
    """Of the photos one, of the mirror images all."""
    def extracted(jobs, dataset, *_, **__):
        if dataset.name == "mirrored":
            return {j.name: "no face" for j in jobs}
        for k, job in enumerate(jobs):
            clip = made_up_clip(model, job.identity, seed=k)
            write_clip(dataset, replace(clip, info=replace(clip.info, name=job.name)))
        return {"p1_grin.png": "no face"}

    monkeypatch.setattr(table, "extract", extracted)
    assert table.main([str(drawn_people), "-o", str(tmp_path / "t.json"), "--weights", str(weights)]) == 3
    result = json.loads((tmp_path / "t.json").read_text())
    assert result["floor"] == {} and result["left_out"] == {"p1_grin.png": "no face"}
    assert set(result["left_out_of_floor"]) == {"p1", "p2"}
    assert "left out of the floor p1: no face" in capsys.readouterr().out


def test_the_command_on_drawn_photos(tmp_path, weights, drawn_people, capsys):
    """Two virtual people, neutral and smiling, as a user's folder holds them."""
    out = tmp_path / "table.json"
    assert table.main([str(drawn_people), "-o", str(out), "--weights", str(weights), "--dump", str(tmp_path / "d"),
                       "--workers", "1"]) == 0
    result = json.loads(out.read_text())
    assert result["pairs"] == 2 and result["people"] == ["p1", "p2"] and not result["left_out"]
    for method in table.METHODS:
        for region in table.REGIONS:
            values = result["methods"][method][region]
            assert all(np.isfinite(values[f]) for f in table.FIGURES)
    l1 = {method: result["methods"][method]["whole"]["l1"] for method in table.METHODS}
    assert min(*l1.values(), result["floor"]["whole"]["l1"]) > 0
    assert len(set(l1.values())) == len(l1)                          # each method draws something of its own
    assert "mouth_eyes" in capsys.readouterr().out
    assert len(list((tmp_path / "d" / "gan").glob("*.png"))) == 2
