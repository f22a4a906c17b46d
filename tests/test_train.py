"""Training: losses against closed forms, resuming bit for bit, errors of the command."""
import json
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from facemodel.atlas import build_atlas
from facemodel.errors import InputError
from fitting.texture import albedo_texture
from tests.texture_sets import made_up_clip, made_up_set
from texgan import losses
from texgan import train as training
from texgan.checkpoint import State, TrainSettings, data_hash, read_metadata
from texgan.generator import TextureGenerator
from texgan.sampling import NONE, Examples, Masks
from texgan.train import Trainer, train

TINY = TrainSettings(steps=4, batch=1, channels=4, half=False)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, model):
    return made_up_set(tmp_path_factory.mktemp("made_up"), model, people=("a", "b", "c", "017"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    run = tmp_path_factory.mktemp("run")
    with_one_thread(train, [dataset], run, TINY, "cpu", progress=False)
    return run


def with_one_thread(function, *arguments, **options):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments, **options)
    finally:
        torch.set_num_threads(before)


def test_masked_l1_is_a_weighted_mean():
    a, b = torch.zeros(1, 3, 2, 2), torch.tensor([[1.0, 2], [3, 4]]).expand(1, 3, 2, 2)
    weight = torch.tensor([[[[0.0, 1], [1, 2]]]])
    assert float(losses.masked_l1(a, b, weight)) == pytest.approx((2 + 3 + 2 * 4) / 4)


def test_grain_forgives_where_structure_lies_but_not_that_it_is_blurred():
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.normal(0, 0.2, (1, 3, 64, 64)).astype(np.float32))
    weight = torch.ones(1, 1, 64, 64)
    moved, blurred = torch.roll(truth, 3, dims=3), torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    l1 = losses.masked_l1
    assert l1(blurred, truth, weight) < l1(moved, truth, weight)
    assert losses.grain_loss(moved, truth, weight) < 0.2 * losses.grain_loss(blurred, truth, weight)
    assert losses.grain_loss(truth, truth, weight) == 0
    assert losses.grain_loss(blurred, truth, 0 * weight) == 0


def test_adversarial_loss_is_eq_7():
    scores = torch.tensor([0.3, -2.0])
    d = torch.sigmoid(scores)
    torch.testing.assert_close(losses.adversarial_loss(scores, True), -torch.log(d).mean())
    torch.testing.assert_close(losses.adversarial_loss(scores, False), -torch.log(1 - d).mean())


def test_the_rate_falls_to_nothing_and_the_average_slows_down():
    assert training.learning_rate(0, 100) == training.learning_rate(49, 100) == 1
    assert 0 < training.learning_rate(99, 100) < 0.05
    assert training.ema_decay(0) == 0 and training.ema_decay(10 ** 9) == training.EMA_LAST


def test_a_step_changes_every_network_and_lowers_the_loss(dataset, model):
    settings = TrainSettings(steps=1000, batch=1, channels=4, half=False)
    state = State(settings, CPU)
    before = {k: v.clone() for k, v in state.tensors().items()}
    trainer = Trainer(state, settings, CPU)
    masks = Masks.of(model)
    clips = training.split(training.read_dataset(dataset))[0]
    examples = Examples(clips, masks)
    changing = next(e for e in map(examples, range(100)) if np.abs(e.truth - e.neutral).max() > 0.1)
    batch = training.make_batch([changing], CPU)
    course = [trainer.step(batch)["l1"] for _ in range(60)]
    assert course[-1] < 0.96 * course[0], course[::10]
    changed = {k for k, v in state.tensors().items() if k in before and not torch.equal(v, before[k])}
    assert {"generator.last.weight", "average.last.weight"} < changed
    assert any(k.startswith("discriminator.") for k in changed)


def test_examples_are_mirrored_as_faces_are(lopsided):
    """On a chart whose halves are no mirror images: every other example is the mirror image, all of it."""
    masks, clips = Masks.of(lopsided), [made_up_clip(lopsided, n, seed=k) for k, n in enumerate("ab")]
    plain = Examples(clips, masks, variation=NONE)
    turned = Examples(clips, masks, variation=replace(NONE, mirror=True))
    count = 0
    for here, there in zip(map(plain, range(12)), map(turned, range(12))):
        same = np.array_equal(here.truth, there.truth)
        count += not same
        for name in ("source", "neutral", "truth", "weight"):
            known = getattr(here, name)
            np.testing.assert_array_equal(getattr(there, name), known if same else masks.atlas.mirrored(known), name)
    assert 2 < count < 10


def test_what_is_resumed_is_what_was_not_stopped(tmp_path, dataset, trained, monkeypatch):
    step = Trainer.step
    calls = []

    def stopped(self, batch):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            with_one_thread(train, [dataset], tmp_path, TINY, "cpu", progress=False, checkpoint_minutes=0)
    assert read_metadata(tmp_path / "checkpoint.safetensors")["step"] == "2"
    with_one_thread(train, [dataset], tmp_path, TINY, "cpu", progress=False)
    for name in ("checkpoint.safetensors", "generator.safetensors"):
        resumed, straight = (training.load_file(folder / name) for folder in (tmp_path, trained))
        assert resumed.keys() == straight.keys()
        assert all(torch.equal(resumed[k], straight[k]) for k in straight)
        assert read_metadata(tmp_path / name) == read_metadata(trained / name)


def test_a_checkpoint_of_other_settings_is_refused(dataset, trained):
    other = TrainSettings(steps=4, batch=2, channels=4, half=False)
    with pytest.raises(InputError, match="other settings"):
        train([dataset], trained, other, "cpu", progress=False)


def test_a_checkpoint_of_other_data_is_refused(tmp_path, model, trained, monkeypatch):
    """Not rewritten, as weights that learned from others."""
    before = (trained / "generator.safetensors").read_bytes()
    other = made_up_set(tmp_path, model, people=("a", "b", "d", "017"))
    with pytest.raises(InputError, match="other data.*-o"):
        train([other], trained, TINY, "cpu", progress=False)
    assert (trained / "generator.safetensors").read_bytes() == before
    clips = training.read_dataset(other)
    again = [replace(c, info=replace(c.info, rights="new")) for c in clips]
    new = [replace(clips[0], info=replace(clips[0].info, frames=["neutral", "grin"])), *clips[1:]]
    assert data_hash(clips) == data_hash(again) and len({data_hash(clips), data_hash(new), data_hash(clips, 2)}) == 3


def test_without_tensorboard_the_command_says_so_first(tmp_path, dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="train"):
        train([dataset], tmp_path / "run", TINY, "cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(training, "masked_l1", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(InputError, match="not finite at step 0"):
        train([dataset], tmp_path, TINY, "cpu", progress=False)
    assert not (tmp_path / "generator.safetensors").exists()


def test_the_weights_say_what_they_saw(trained, model):
    meta = read_metadata(trained / "generator.safetensors")
    assert json.loads(meta["people"]) == ["a", "b", "c"] and json.loads(meta["rights"]) == ["made up"]
    assert len(json.loads(meta["sha256"])) == 6                # a validation person's photos are not among them
    assert json.loads(meta["validation"]) == ["017"] and len(json.loads(meta["validation_sha256"])) == 2
    generator = TextureGenerator(model, trained / "generator.safetensors")
    change = generator.mean_changes["smile"]
    inside = np.s_[152:178, 102:154]
    np.testing.assert_allclose(change[inside], -0.15, atol=0.01)
    assert np.abs(change[:140]).max() < 0.01


def test_the_generator_is_deterministic_and_of_the_right_chart(trained, model):
    generator = TextureGenerator(model, trained / "generator.safetensors")
    rng = np.random.default_rng(0)
    textures = rng.uniform(0.2, 0.9, (2, 256, 256, 3)).astype(np.float32)
    seen = np.ones((256, 256), np.float32)
    first = generator.texture(textures[0], seen, textures[1], seen)
    assert first.tobytes() == generator.texture(textures[0], seen, textures[1], seen).tobytes()
    assert first.shape == (256, 256, 3) and first.dtype == np.float32


def test_a_texture_has_the_same_bytes_however_many_threads_torch_has(model):
    """numba's parallel loops change that number within a process; three would change last bits."""
    generator, rng = TextureGenerator(model), np.random.default_rng(0)
    textures, seen = rng.random((2, 256, 256, 3), np.float32), np.ones((256, 256), np.float32)
    before, made = torch.get_num_threads(), set()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.add(generator.texture(textures[0], seen, textures[1], seen).tobytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(made) == 1


def test_half_precision_changes_no_level_that_is_seen(model, monkeypatch):
    """With the shipped weights, between a smooth face and itself changed at random; half a level of 255 at most."""
    generator, rng = TextureGenerator(model), np.random.default_rng(0)
    atlas, seen = build_atlas(model, 256), np.ones((256, 256), np.float32)
    face = albedo_texture(model, np.zeros(model.albedo_count), atlas)
    change = cv2.GaussianBlur(rng.normal(0, 1, face.shape).astype(np.float32), (0, 0), 4)
    textures = {}
    for half in (False, True):
        monkeypatch.setattr("texgan.generator.has_bfloat16", lambda half=half: half)
        textures[half] = generator.texture(face + 0.05 * change / change.std(), seen, face, seen)
    away = 255 * np.abs(textures[True] - textures[False])
    assert 0 < away.max() < 1 and away.mean() < 0.1
    assert np.abs(textures[False] - face).mean() > 0.005                         # there is a change


def test_weights_for_another_chart_or_none_at_all_are_refused(tmp_path, trained, model):
    with pytest.raises(InputError, match="texgan.train"):
        TextureGenerator(model, tmp_path / "nothing.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="can't be read"):
        TextureGenerator(model, tmp_path / "junk.safetensors")
    with pytest.raises(InputError, match="another face model"):
        TextureGenerator(replace(model, uv=model.uv * 0.9), trained / "generator.safetensors")


@pytest.mark.parametrize("arguments, words", [
    (["--steps", "0"], "--steps 0"), (["--mix", "photos"], "--mix photos"), (["--mix", "nobody=1"], "no clips"),
    (["--mix", "photos=0.5,phtoos=0.5"], "no clips .* 'phtoos'"),
    (["--device", "cuda"], "cuda")])
def test_bad_options_are_refused_in_one_line(tmp_path, dataset, arguments, words):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=words):
        training.main([str(dataset), "-o", str(tmp_path / "run"), *arguments])


def test_two_processes_agree_with_one_of_twice_the_batch(tmp_path, dataset):
    """torchrun on two processes: the averaged gradients are those of one process with both examples."""
    command = ["-m", "texgan.train", str(dataset), "--steps", "2", "--channels", "4", "--full-precision",
               "--device", "cpu", "--no-masks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = lambda *words: subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    run("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29631", *command, "--batch", "1",
        "-o", str(tmp_path / "two"))
    run(*command, "--batch", "2", "-o", str(tmp_path / "one"))
    one, two = (training.load_file(tmp_path / n / "checkpoint.safetensors") for n in ("one", "two"))
    # every example has its own sum of weights, so that the two means may differ a little
    for name in ("generator.last.weight", "generator.down.0.conv.weight"):
        torch.testing.assert_close(one[name], two[name], rtol=0.02, atol=2e-5)
    for optimiser in ("optimiser0", "optimiser1"):            # generator's and discriminator's gradients, averaged
        a, b = (torch.cat([t[k].flatten() for k in sorted(t) if k.startswith(optimiser) and k.endswith("exp_avg")])
                for t in (one, two))
        assert (a - b).norm() < 0.02 * a.norm()
