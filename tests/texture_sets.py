"""Small data sets of made-up textures for the tests of texgan."""
import numpy as np

from facemodel.atlas import chart_hash
from texgan.dataset import SIZE, Clip, ClipInfo, encode, write_clip, write_manifest
from texgan.extract import PHOTO_SCRIPT


def made_up_clip(model, identity, frames=("neutral", "smile"), seed=0, script=PHOTO_SCRIPT, strength=0.15):
    """A Clip whose frames are a smooth skin with one spot that grows darker from frame to frame."""
    rng = np.random.default_rng(seed)
    skin = rng.uniform(0.4, 0.8, 3) + 0.05 * np.sin(np.arange(SIZE) / rng.uniform(9, 30))[:, None, None]
    skin = np.broadcast_to(skin, (SIZE, SIZE, 3)).astype(np.float32)
    spot = np.zeros((SIZE, SIZE, 1), np.float32)
    spot[150:180, 100:156] = 1
    textures = np.stack([encode(skin - strength * k * spot) for k in range(len(frames))])
    seen = np.full((len(frames), SIZE, SIZE), 255, np.uint8)
    info = ClipInfo(f"clip_{identity}", identity, [f"{identity}_{n}.png" for n in frames],
                    [f"{identity}{n}" for n in frames], "made up", list(frames), [1.0] * len(frames), 0, model.hash,
                    chart_hash(model), every=0, script=script)
    return Clip(info, textures, seen, seen.copy(), np.zeros((len(frames), model.expression_count), np.float32))


def made_up_set(folder, model, people=("a", "b", "c", "d"), **options):
    """Writes a data set of made_up_clip; returns its folder."""
    for k, identity in enumerate(people):
        write_clip(folder, made_up_clip(model, identity, seed=k, **options))
    write_manifest(folder, {})
    return folder
