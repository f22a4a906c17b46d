"""Weights that can ship: the averaged generator in half precision, with what is needed to use it and to know it."""
from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import torch

from facemodel.atlas import chart_hash
from texgan.checkpoint import half_precision, write_tensors
from texgan.dataset import decode
from texgan.extract import PHOTO_SCRIPT
from texgan.split import TEST


def write_generator(path, network, settings, clips, model, step, validation=()):
    """Writes weights that can ship: half precision, with all that is needed to use them and to know what they saw.

    The mean change of the training people between their neutral and each other expression, on the chart, goes along:
    it is what texgan.evaluate compares with. `validation` are the clips whose losses were watched.
    """
    tensors = half_precision(network)
    means = mean_changes(clips)
    tensors.update({f"mean_change.{k}": torch.from_numpy(v).half() for k, v in means.items()})
    people = lambda clips: json.dumps(sorted({c.info.identity for c in clips}))
    photos = lambda clips: json.dumps(sorted(h for c in clips for h in c.info.sha256))
    write_tensors(path, tensors, {
        "format": "1", "architecture": json.dumps(network.settings), "change": str(int(settings.change)),
        "steps": str(step), "settings": json.dumps(asdict(settings)), "chart_hash": chart_hash(model),
        "people": people(clips), "rights": json.dumps(sorted({c.info.rights for c in clips})), "sha256": photos(clips),
        "validation": people(validation), "validation_sha256": photos(validation), "test": json.dumps(TEST)})


def mean_changes(clips):
    """Average change of people's textures from neutral to each expression that photos show.

    Returns
    -------
    dict expression -> (256, 256, 3) float32, zero where nobody was seen
    """
    total, count = {}, {}
    for clip in clips:
        if clip.info.script != PHOTO_SCRIPT:
            continue
        neutral = decode(clip.textures[clip.info.neutral])
        for t, name in enumerate(clip.info.frames):
            if t == clip.info.neutral:
                continue
            w = (clip.validity[t] / np.float32(255))[..., None]
            total[name] = total.get(name, 0) + w * (decode(clip.textures[t]) - neutral)
            count[name] = count.get(name, 0) + w
    return {k: (v / np.maximum(count[k], 0.5)).astype(np.float32) for k, v in total.items()}
