"""The trained generator at work: a SourceTexture and a target's neutral texture in, the target's texture out."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import assets
from facemodel.atlas import chart_hash
from facemodel.device import has_bfloat16, inference
from facemodel.errors import InputError
from fitting.lift import BRIGHTEST
from texgan.checkpoint import read_metadata
from texgan.network import Generator
from texgan.sampling import Masks, network_input
from texgan.transfer import SHIPPED


class TextureGenerator:
    """Infers the change of a neutral texture (section 5).

    On processors that multiply in bfloat16 textures differ by half a level of 255 at most, .03 levels usually.

    Parameters
    ----------
    model : MorphableModel whose chart the textures are on
    path : of generator.safetensors; default the shipped weights
    device : 'cpu' or 'cuda'

    Raises
    ------
    InputError : unreadable weights, or weights for another model's chart
    """

    def __init__(self, model, path=None, device="cpu"):
        path = Path(path) if path is not None else assets.path(SHIPPED)
        if not path.is_file():
            raise InputError(f"{path}: no such file; train one with python -m texgan.train")
        self.meta = read_metadata(path)
        if self.meta.get("format") != "1" or "architecture" not in self.meta:
            raise InputError(f"{path}: holds no weights of texgan.train")
        if self.meta["chart_hash"] != chart_hash(model):
            raise InputError(f"{path}: was trained for the chart of another face model than {model.name}; train one "
                             "for it with python -m texgan.train, or use --texture delta")
        tensors = load_file(path)
        self.mean_changes = {k.split(".", 1)[1]: v.float().numpy() for k, v in tensors.items()
                             if k.startswith("mean_change.")}
        self._network = Generator(**json.loads(self.meta["architecture"]))
        self._network.load_state_dict({k: v.float() for k, v in tensors.items() if not k.startswith("mean_change.")})
        self._device, self._is_change = torch.device(device), self.meta["change"] == "1"
        self._network.to(self._device, memory_format=torch.channels_last).freeze()
        self.size = self._network.settings["size"]
        self.masks = Masks.of(model, self.size)

    def change(self, source, source_validity, neutral, neutral_validity):
        """The change that takes the neutral texture, as `network_input` gives it, to the source's expression.

        Parameters
        ----------
        source, neutral : (256, 256, 3) float32 albedo
        source_validity, neutral_validity : (256, 256) float32

        Returns
        -------
        (256, 256, 3) float32
        """
        inputs = [network_input(t, v, self.masks) for t, v in ((source, source_validity), (neutral, neutral_validity))]
        a, b = (torch.from_numpy(x * (2 / BRIGHTEST) - 1).permute(2, 0, 1)[None].to(self._device) for x in inputs)
        with inference(), torch.autocast("cpu", torch.bfloat16, enabled=self._device.type == "cpu" and has_bfloat16()):
            out = self._network(a.contiguous(memory_format=torch.channels_last),
                                b.contiguous(memory_format=torch.channels_last))
        out = out if self._is_change else out - b
        return out[0].permute(1, 2, 0).cpu().numpy() * np.float32(BRIGHTEST / 2)

    def texture(self, source, source_validity, neutral, neutral_validity):
        """The target's texture at 256 x 256, (256, 256, 3) float32 in [0, BRIGHTEST]; parameters as for `change`."""
        change = self.change(source, source_validity, neutral, neutral_validity)
        return (network_input(neutral, neutral_validity, self.masks) + change).clip(0, BRIGHTEST)
