"""Trains the texture generator (sections 5.2, 5.3, 7.2, 7.3).

    python -m texgan.train DATASET... -o RUN

The generator's loss is masked L1 + MU * adversarial loss + GRAIN * grain loss: the paper's mu = 0.001 is read as the
weight of the adversarial term against an L1 of weight one; the last term is ours and keeps the skin from blurring.
RUN gets checkpoint.safetensors every few minutes (run the command again and it goes on, bit for bit as if it had not
been stopped; with other settings or data it is refused), curve.csv, TensorBoard events with pictures, and in the end
generator.safetensors, the moving average of the weights in half precision. Several GPUs or machines:

    torchrun --nproc-per-node 4 -m texgan.train DATASET... -o RUN
"""
from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from facemodel import commands
from facemodel.device import has_bfloat16, torch_device
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.lift import BRIGHTEST
from fitting.progress import progress_bar
from texgan.checkpoint import GRAIN, MU, RATES, State, TrainSettings, data_hash, read_metadata, write_tensors
from texgan.dataset import check_chart, read_dataset
from texgan.losses import adversarial_loss, grain_loss, masked_l1, to_network
from texgan.runlog import RunLog, check_installed
from texgan.sampling import FEATURE_WEIGHT, NONE, Examples, Masks
from texgan.split import split
from texgan.weights import write_generator

FLAT = 0.5                            # share of the steps before the rates fall linearly to nothing
EMA_LAST = 0.999
CHECKPOINT_MINUTES = 5.0
VALIDATE_EVERY, PICTURES_EVERY = 250, 500
VALIDATION_EXAMPLES = 24


def learning_rate(step, steps):
    """Share of the first rate at a step: level, then linearly down to nothing."""
    return min(1.0, (steps - step) / max(1, steps * (1 - FLAT)))


def ema_decay(step):
    """Decay of the moving average, with timm's warm-up: 1 - (1 + step)^(-2/3), at most EMA_LAST."""
    return min(EMA_LAST, 1 - (1 + step) ** (-2 / 3))


# ---------------------------------------------------------------- one step

class Trainer:
    """Steps of a run.

    Parameters
    ----------
    state : State
    settings : TrainSettings
    device : torch.device
    wrap : applied to both networks, for several processes
    """

    def __init__(self, state, settings, device, wrap=lambda network: network):
        self._state, self._settings, self._device = state, settings, device
        self._generator, self._discriminator = wrap(state.generator), wrap(state.discriminator)

    @property
    def average(self):
        """The generator whose weights are the moving average."""
        return self._state.average

    def _cast(self):
        able = self._device.type != "cpu" or has_bfloat16()
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.half and able)

    def predict(self, network, source, neutral):
        """The target's texture in [-1, 1] units."""
        change = network(source, neutral)
        return neutral + change if self._settings.change else change

    def step(self, batch):
        """One step of generator and discriminator on a batch (dict of tensors) -> dict of losses, floats.

        Raises
        ------
        FloatingPointError : a loss is not finite; weights, moments and step are as they were before, but the
            discriminator may have brought its estimates of its own norms (spectral_norm's u and v) forward
        """
        s, state = self._settings, self._state
        source, neutral, truth, weight = (batch[k] for k in ("source", "neutral", "truth", "weight"))
        known = (weight > 0).float()
        rate = learning_rate(state.step, s.steps)
        for optimiser, first in zip(state.optimisers, RATES):
            for group in optimiser.param_groups:
                group["lr"] = first * rate
        g_optimiser, d_optimiser = state.optimisers
        losses = {}
        with self._cast():
            made = self.predict(self._generator, source, neutral)
            losses["l1"] = loss = masked_l1(made, truth, weight)
            if s.grain:
                losses["grain"] = grain_loss(made, truth, weight)
                loss = loss + s.grain * losses["grain"]
            shown = neutral + known * (made - neutral)
            if s.adversarial:
                self._discriminator.requires_grad_(False)
                losses["fool"] = adversarial_loss(self._discriminator(source, neutral, shown), True)
                self._discriminator.requires_grad_(True)
                loss = loss + s.adversarial * losses["fool"]
        values = _finite(losses)
        g_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if s.adversarial:
            with self._cast():
                real = self._discriminator(source, neutral, neutral + known * (truth - neutral))
                fake = self._discriminator(source, neutral, shown.detach())
                losses["judge"] = 0.5 * (adversarial_loss(real, True) + adversarial_loss(fake, False))
            values = _finite(losses)
            d_optimiser.zero_grad(set_to_none=True)
            losses["judge"].backward()
            d_optimiser.step()
        g_optimiser.step()
        decay = ema_decay(state.step)
        with torch.no_grad():
            for mean, now in zip(state.average.parameters(), state.generator.parameters()):
                mean.lerp_(now, 1 - decay)
        state.step += 1
        return values

    @torch.no_grad()
    def validate(self, batches):
        """Masked L1 in albedo units of the averaged generator, and of doing nothing."""
        rows = []
        for batch in batches:
            with self._cast():
                made = self.predict(self._state.average, batch["source"], batch["neutral"])
            unit = BRIGHTEST / 2
            rows.append([unit * float(masked_l1(x, batch["truth"], batch["weight"])) for x in (made, batch["neutral"])])
        return dict(zip(("l1", "static"), np.mean(rows, axis=0)))


def _finite(losses):
    values = {k: v.item() for k, v in losses.items()}
    for k, v in values.items():
        if not math.isfinite(v):
            raise FloatingPointError(f"loss '{k}' is not finite")
    return values


def make_batch(examples, device):
    """Examples -> dict of (N, c, s, s) tensors: source, neutral, truth in [-1, 1], weight."""
    stack = lambda name: torch.from_numpy(np.stack([getattr(e, name) for e in examples]))
    images = {k: to_network(stack(k)).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last)
              for k in ("source", "neutral", "truth")}
    return {**images, "weight": stack("weight")[:, None].to(device)}


def batches(examples, first, batch, device, rank=0, world=1, ahead=3):
    """Yields make_batch of consecutive examples from step `first` on, prepared by a thread while a step runs."""
    def prepare(step):
        start = (step * world + rank) * batch
        return make_batch([examples(start + i) for i in range(batch)], device)

    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(prepare, first + i) for i in range(ahead))
        step = first + ahead
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(prepare, step))
            step += 1


# ---------------------------------------------------------------- the run

def train(datasets, run, settings=None, device="auto", model_name="commons", progress=True,
          checkpoint_minutes=CHECKPOINT_MINUTES):
    """Trains, or continues, a run; see the module's docstring for what it leaves in the folder.

    Parameters
    ----------
    datasets : list of Path
    run : Path, made if missing
    settings : TrainSettings
    device : 'auto', 'cpu' or 'cuda'
    checkpoint_minutes : float, how much work a crash may lose

    Returns
    -------
    Path of generator.safetensors

    Raises
    ------
    InputError : unusable data, a checkpoint of other settings or other data, a loss that is not finite, or no
        TensorBoard
    """
    settings = TrainSettings() if settings is None else settings
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch_device(device)
    check_installed()
    model = load_model(model_name)
    masks = Masks.of(model)
    clips, validation = split(read_dataset(*datasets))
    check_chart(clips + validation, model)
    mix = dict(settings.mix) or None
    try:
        examples = Examples(clips, masks, mix, None if settings.augment else NONE, settings.seed,
                            settings.feature_weight)
    except ValueError as error:
        raise InputError(f"{datasets[0]}: {error}; texgan.check says what is there") from error
    run.mkdir(parents=True, exist_ok=True)
    state, path, data = State(settings, device), run / "checkpoint.safetensors", data_hash(clips + validation, world)
    if path.exists():
        meta = read_metadata(path)
        if json.loads(meta.get("settings", "{}")) != json.loads(json.dumps(asdict(settings))):
            raise InputError(f"{path}: is of a run with other settings; give another folder with -o")
        if meta.get("data", data) != data:              # an older version's says nothing of its data
            raise InputError(f"{path}: is of a run on other data, or of another number of processes; give another "
                             "folder with -o, or the same data sets in the same order")
        state.load(load_file(path), int(meta["step"]))
    metadata = lambda: {"step": str(state.step), "settings": json.dumps(asdict(settings)), "data": data}
    distributed = world > 1
    wrap = _distribute(device) if distributed else (lambda network: network)
    trainer = Trainer(state, settings, device, wrap)
    held = _validation_batches(validation, masks, device, settings) if validation else []
    log = RunLog(run, state.step) if rank == 0 else None
    saved, feed = time.monotonic(), batches(examples, state.step, settings.batch, device, rank, world)
    try:
        with progress_bar(settings.steps - state.step, "train", "step", progress and rank == 0) as bar:
            while state.step < settings.steps:
                try:
                    losses = trainer.step(next(feed))
                except FloatingPointError as error:
                    raise InputError(f"{run}: {error} at step {state.step}; the last checkpoint is kept, try a smaller "
                                     "--batch or another --seed") from error
                if log:
                    log.losses(state.step, losses)
                    if held and (state.step % VALIDATE_EVERY == 0 or state.step == settings.steps):
                        log.validation(state.step, trainer.validate(held))
                    if held and state.step % PICTURES_EVERY == 0:
                        log.pictures(state.step, trainer, held[0])
                    if time.monotonic() - saved > 60 * checkpoint_minutes:
                        write_tensors(path, state.tensors(), metadata())
                        saved = time.monotonic()
                bar.update()
    finally:
        feed.close()
        if log:
            log.close()
    if rank == 0:
        write_tensors(path, state.tensors(), metadata())
        write_generator(run / "generator.safetensors", state.average, settings, clips, model, state.step,
                        validation)
    if distributed:
        torch.distributed.destroy_process_group()
    return run / "generator.safetensors"


def _distribute(device):
    from torch.nn.parallel import DistributedDataParallel
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    ids = [device.index] if device.type == "cuda" else None
    return lambda network: DistributedDataParallel(network, ids)


def _validation_batches(clips, masks, device, settings):
    examples = Examples(clips, masks, None, NONE, 12345, settings.feature_weight)
    return [make_batch([examples(i + j) for j in range(8)], device) for i in range(0, VALIDATION_EXAMPLES, 8)]


def parse_mix(text):
    """'photos=0.5,rendered=0.3,=0.2' -> (('', 0.2), ('photos', 0.5), ('rendered', 0.3))."""
    try:
        pairs = [p.split("=") for p in text.split(",")]
        mix = tuple(sorted((name.strip(), float(share)) for name, share in pairs))
    except ValueError:
        raise InputError(f"--mix {text}: give script=share,script=share") from None
    if min(s for _, s in mix) < 0 or not sum(s for _, s in mix):
        raise InputError(f"--mix {text}: shares must not be negative, nor all zero")
    return mix


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m texgan.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="folders of texgan.extract")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="folder, made if missing")
    parser.add_argument("--steps", type=int, default=TrainSettings.steps)
    parser.add_argument("--batch", type=int, default=TrainSettings.batch, help="examples per process (the paper: 64)")
    parser.add_argument("--channels", type=int, default=TrainSettings.channels, help="of the first layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", metavar="SCRIPT=SHARE,...",
                        help="shares of the examples by script ('photos', 'rendered', '' for clips of their own)")
    parser.add_argument("--no-masks", action="store_true", help="weigh mouth and eyes as the rest")
    parser.add_argument("--no-adversarial", action="store_true", help="L1 alone")
    parser.add_argument("--no-grain", action="store_true", help="leave out the loss on the amount of fine structure")
    parser.add_argument("--no-augmentation", action="store_true", help="neither new skins nor tones")
    parser.add_argument("--no-change", action="store_true", help="predict textures, not changes of the neutral one")
    parser.add_argument("--checkpoint-minutes", type=float, default=CHECKPOINT_MINUTES, metavar="M",
                        help="how much work a crash may lose (default: %(default)g)")
    parser.add_argument("--full-precision", action="store_true", help="float32 throughout")
    commands.add_common(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    for name in ("steps", "batch", "channels"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give 1 or more")
    commands.check_folder(args.out)
    mix = parse_mix(args.mix) if args.mix else ()
    settings = TrainSettings(
        steps=args.steps, batch=args.batch, channels=args.channels, seed=args.seed, mix=mix,
        adversarial=0.0 if args.no_adversarial else MU, grain=0.0 if args.no_grain else GRAIN,
        feature_weight=1.0 if args.no_masks else FEATURE_WEIGHT, augment=not args.no_augmentation,
        change=not args.no_change, half=not args.full_precision)
    path = train(args.datasets, args.out, settings, args.device, args.model,
                 checkpoint_minutes=args.checkpoint_minutes)
    print(f"wrote {path}")


if __name__ == "__main__":
    commands.run(main)
