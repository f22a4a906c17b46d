"""The state of a training run, and safetensors files on disk."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from facemodel.errors import InputError
from facemodel.files import whole
from texgan.network import Generator, PatchDiscriminator
from texgan.sampling import FEATURE_WEIGHT

MU, GRAIN = 0.001, 0.5                # weights of the adversarial loss (section 5.2) and of losses.grain_loss
RATES = (2e-4, 2e-5)                  # of generator and discriminator, section 7.3
BETAS = (0.5, 0.999)                  # of Adam, as in pix2pix


@dataclass(frozen=True)
class TrainSettings:
    """What a run depends on; a checkpoint can be continued only with the same."""

    steps: int = 6000
    batch: int = 8
    channels: int = 32
    seed: int = 0
    mix: tuple = ()                   # ((script, share), ...), empty: by number of clips
    adversarial: float = MU
    grain: float = GRAIN
    feature_weight: float = FEATURE_WEIGHT
    augment: bool = True
    change: bool = True               # predict a change of the neutral texture, or the texture itself
    half: bool = True                 # compute in bfloat16 where autocast does, on a GPU or a CPU that has it


class State:
    """Networks, optimisers, moving average and step: all that a checkpoint holds."""

    def __init__(self, settings, device):
        torch.manual_seed(settings.seed)
        layout = torch.channels_last
        self.generator = Generator(settings.channels).to(device, memory_format=layout)
        self.discriminator = PatchDiscriminator(settings.channels).to(device, memory_format=layout)
        self.average = Generator(settings.channels).to(device, memory_format=layout)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimisers = tuple(torch.optim.Adam(n.parameters(), r, BETAS) for n, r in
                                zip((self.generator, self.discriminator), RATES))
        self.step = 0

    def tensors(self):
        """All tensors by name."""
        out = {}
        for name in ("generator", "discriminator", "average"):
            out.update({f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()})
        for i, optimiser in enumerate(self.optimisers):
            for k, values in optimiser.state_dict()["state"].items():
                out.update({f"optimiser{i}.{k}.{n}": v for n, v in values.items()})
        return {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in out.items()}

    def load(self, tensors, step):
        for name in ("generator", "discriminator", "average"):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            getattr(self, name).load_state_dict(own)
        for i, optimiser in enumerate(self.optimisers):
            state, groups = {}, optimiser.state_dict()["param_groups"]
            for k, v in tensors.items():
                if k.startswith(f"optimiser{i}."):
                    _, number, name = k.split(".")
                    state.setdefault(int(number), {})[name] = v
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step = step


def data_hash(clips, world=1):
    """What a run learns from, as a hash: its Clips in their order, and the number of processes that share them."""
    names = ("name", "identity", "script", "sha256", "frames", "quality", "neutral", "chart_hash")
    told = [[getattr(c.info, n) for n in names] for c in clips]
    return hashlib.sha256(json.dumps([world, told]).encode()).hexdigest()


def half_precision(network, prefix=""):
    """A network's tensors as they ship, by name behind a prefix: floats in half precision, counts as they are."""
    return {prefix + k: v.detach().half().cpu().contiguous() if v.is_floating_point() else v
            for k, v in network.state_dict().items()}


def write_tensors(path, tensors, metadata):
    """Writes a safetensors file beside its place, then renames.

    Raises
    ------
    InputError : when it can't be written
    """
    with whole(path) as beside:
        try:
            save_file(tensors, beside, metadata)
        except SafetensorError as error:
            raise InputError(f"{path}: can't be written ({error}); choose another place with -o") from error


def read_metadata(path):
    """The metadata of a safetensors file, a dict of str; raises InputError when it is none."""
    try:
        with safe_open(path, "pt") as f:
            return f.metadata() or {}
    except Exception as error:                      # the library raises its own kind, without a common base
        raise InputError(f"{path}: can't be read ({error})") from error
