"""Trains the networks that see what lies before a face, on faces with drawn things before them.

    python -m compositing.train_occlusion FACES... --skins DATASET --ict ICT-FaceKit -o occlusion.safetensors

FACES are photos, folders of photos and clips without hands or glasses before the face; every so many frames of a clip
are taken. DATASET (texgan.extract of photos) and ICT-FaceKit lend rendered people, who play the script of
texgan.rendered. People of texgan.split's test list are left out. Each network takes half an hour on one core.
"""
from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from compositing.occluders import draw_glasses, draw_hand, draw_object, noise
from compositing.occlusion import OcclusionDetector
from compositing.occlusion_crops import OBJECT, STRIP, View, cut, layout, placement
from compositing.occlusion_network import OcclusionNetwork
from facemodel import commands
from facemodel.device import has_bfloat16
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.images import SUFFIXES, read_image
from fitting.progress import progress_bar
from fitting.video_reader import VideoReader
from texgan.checkpoint import half_precision, write_tensors
from texgan.dataset import decode
from texgan.perform import skins_of
from texgan.rendered import SCRIPT, draw_actor, draw_setup, perform
from texgan.split import TEST
from texgan.stage import load_stage

BASE = View((448, 448), 1.568, 189.0)                # faces are kept like this, to be turned and moved
CLIPS = {".mp4", ".mov", ".mkv"}
EVERY, MOST = 8, 40                                  # which frames of a clip are taken, and how many at most
NETWORKS = {"object": (OBJECT, {"channels": (24, 48, 72, 96, 96), "detail": 2}),
            "glasses": (STRIP, {"channels": (16, 32, 48, 64), "detail": 1})}
RATE, RATE_AGAIN = 3e-3, 1e-3                        # highest learning rates, from scratch and from trained weights


def pictures(paths):
    """Yields the (H, W, 3) uint8 pictures of photos, folders and clips."""
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if any(file.name.startswith(person) for person in TEST):
                continue
            if file.suffix.lower() in SUFFIXES:
                yield read_image(file)
            elif file.suffix.lower() in CLIPS:
                with VideoReader(file) as reader:
                    yield from islice((frame.rgb for frame in reader if frame.index % EVERY == 0), MOST)


def performances(skins, ict, model, actors, seed=0, poses=6):
    """Yields (512, 512, 3) uint8 pictures of rendered people, `poses` of each."""
    stage, skins = load_stage(ict, model), skins_of(skins)
    for number in range(actors):
        rng = np.random.default_rng([seed, number])
        skin = decode(cv2.imread(str(skins[number % len(skins)][1]))[..., ::-1])
        actor, setup = draw_actor(stage, rng, skin), draw_setup(rng)
        for k in rng.permutation(len(SCRIPT))[:poses]:
            yield perform(stage, actor, setup, SCRIPT[k][1], rng)


def faces(images, model, detector):
    """The faces of pictures, laid out by BASE: (N, 448, 448, 3) uint8.

    Raises
    ------
    InputError : when there are none
    """
    places, out = layout(model, BASE), []
    for image in images:
        for face in detector.detect(image)[:1]:
            out.append(cut(image, placement(detector.landmarks(image, face.box), places), BASE))
    if not out:
        raise InputError("no face found in FACES; give photos or clips of people without things before their faces")
    return np.stack(out)


def _moved(rng, view):
    """A random way from BASE into a view, (3, 3): turned, moved, scaled, seen a little from aside."""
    factor, angle = view.scale / BASE.scale * np.exp(rng.normal(0, 0.06)), np.radians(rng.normal(0, 6))
    c, s = factor * np.cos(angle), factor * np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) @ np.diag([rng.uniform(0.9, 1.06), 1])
    from_ = np.array([BASE.size[0] / 2, BASE.above])
    to = np.array([view.size[0] / 2, view.above]) + rng.normal(0, 4, 2) * view.scale
    out = np.eye(3)
    out[:2, :2], out[:2, 2] = turn, to - turn @ from_
    out[2, :2] = rng.normal(0, 0.00025, 2)
    return out


def _light(rng, picture):
    """Other light on a scene: broad gradients, now and then the sharp edge of a shadow."""
    field = noise(rng, picture.shape[:2], (2, 4), rng.uniform(0, 0.3))
    if rng.random() < 0.25:
        y, x = np.mgrid[:picture.shape[0], :picture.shape[1]].astype(np.float32) / picture.shape[0] - 0.5
        angle, soft = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.2)
        side = x * np.cos(angle) + y * np.sin(angle) - rng.normal(0, 0.2) + 0.04 * noise(rng, picture.shape[:2])
        field += np.float32(np.log(rng.uniform(0.25, 0.8))) / (1 + np.exp(np.clip(-side / soft, -30, 30)))
    return picture * np.exp(field)[..., None]


def _photographed(rng, picture):
    """What a camera makes of a scene: colour, exposure, blur, noise, compression."""
    picture = np.clip(picture * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.08, 3)), 0, 1) ** rng.uniform(0.75, 1.3)
    if rng.random() < 0.15:
        picture += rng.uniform(0.5, 1) * (picture.mean(axis=2, keepdims=True) - picture)
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.1))
    picture = picture + rng.standard_normal(picture.shape) * rng.uniform(0, 0.025)
    picture = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)
    return picture


def sample(rng, bases, name):
    """One example for a network of NETWORKS: picture (h, w, 3) uint8, and (h, w) uint8, 255 where something is."""
    view, base = NETWORKS[name][0], bases[rng.integers(len(bases))]
    way, (width, height) = _moved(rng, view), view.size
    small = cv2.GaussianBlur(base, (0, 0), 0.5 / view.scale) if view.scale < 1 else base
    picture = cv2.warpPerspective(small, way, view.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    picture = _light(rng, picture[:, ::rng.choice([-1, 1])].astype(np.float32) / 255)
    mask = np.zeros((height, width), np.float32)
    if name == "glasses" and rng.random() < 0.65:
        layer, mask, lenses = _glasses(rng, view)
        if rng.random() < 0.12:
            picture *= layer.shadow[..., None]                   # the shadow alone is nothing
            mask = 0 * mask
        else:
            picture = _worn(picture, layer, lenses)
    elif name == "object":
        skin = np.median(picture[48:76, 44:84].reshape(-1, 3), axis=0)
        if rng.random() < 0.3:                                       # glasses are no things of this kind
            layer, _, lenses = _glasses(rng, view)
            picture = _worn(picture, layer, lenses)
        for _ in range(rng.choice([0, 1, 2], p=[0.25, 0.65, 0.1])):
            layer = _thing(rng, bases, view, skin)
            picture, mask = layer.over(picture), np.maximum(mask, layer.alpha)
        if rng.random() < 0.3:                                       # the frame ends below the mouth
            end = int(view.above + rng.uniform(70, 120) * view.scale)
            picture[end:], mask[end:] = picture[end - 1], mask[end - 1]
    return _photographed(rng, picture), (np.clip(mask, 0, 1) * 255).astype(np.uint8)


def _glasses(rng, view):
    """draw_glasses at about where the eyes lie in a view."""
    width, height = view.size
    eyes = np.array([[width / 2 + side * 32 * view.scale, view.above] for side in (-1, 1)])
    return draw_glasses(rng, (height, width), view.scale, eyes + rng.normal(0, 2 * view.scale, 2))


def _worn(picture, layer, lenses):
    """A picture (h, w, 3) float32 with glasses laid over it: their frame, then what their lenses reflect."""
    picture = layer.over(picture)
    picture += lenses[..., 3:] * (lenses[..., :3] - picture)
    return picture


def _thing(rng, bases, view, skin):
    """A hand in about the colour of the face's skin (3,), or another thing: a Layer."""
    width, height = view.size
    tip = np.array([width / 2, view.above + 35 * view.scale]) + rng.normal(0, 42 * view.scale, 2)
    if rng.random() < 0.68:
        skin = skin * np.exp(rng.normal(0.06, 0.18) + rng.normal(0, 0.05, 3))
        return draw_hand(rng, (height, width), view.scale, tip, np.clip(skin, 0.02, 1))
    other = bases[rng.integers(len(bases))].astype(np.float32) / 255
    x, y = rng.integers(0, BASE.size[0] - width, 2)
    return draw_object(rng, (height, width), view.scale, tip, other[y:y + height, x:x + width])


def train(name, bases, rng, count, passes, minutes=None, show=True, start=None):
    """A trained OcclusionNetwork.

    Parameters
    ----------
    name : key of NETWORKS
    bases : of `faces`
    rng : numpy Generator
    count : int, examples that are drawn
    passes : int, how often each is seen
    minutes : float, optional, end training early after so long
    start : OcclusionNetwork of the same settings to go on from, with less haste, or None
    """
    view, settings = NETWORKS[name]
    drawn = []
    with progress_bar(count, f"draw {name}", show=show) as bar:
        for _ in range(count):
            drawn.append(sample(rng, bases, name))
            bar.update()
    torch.manual_seed(int(rng.integers(2**31)))
    network = OcclusionNetwork(view.size, **settings).to(memory_format=torch.channels_last).train()
    if start is not None:
        network.load_state_dict(start.state_dict())
    highest, batch = RATE_AGAIN if start else RATE, 16
    steps = passes * count // batch
    optimiser = torch.optim.AdamW(network.parameters(), highest, weight_decay=1e-3)
    averaged = {k: v.clone() for k, v in network.state_dict().items()}
    begin, losses = time.monotonic(), []
    with progress_bar(steps, f"train {name}", show=show) as bar:
        for step in range(steps):
            done = max(step / steps, 0 if minutes is None else (time.monotonic() - begin) / (60 * minutes))
            if done >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = highest * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * done)) + 1e-5
            x, y = _batch(rng, drawn, rng.integers(0, count, batch))
            y = nn.functional.avg_pool2d(y, settings["detail"]) if settings["detail"] > 1 else y
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                logits = network(x.contiguous(memory_format=torch.channels_last)).float()
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y) + _dice(logits, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            keep = min(0.995, (1 + step) / (10 + step))
            for k, v in network.state_dict().items():
                averaged[k] = keep * averaged[k] + (1 - keep) * v if v.is_floating_point() else v
            if show and step % 100 == 99:
                print(f"{name} step {step + 1}: {np.mean(losses[-100:]):.4f}", flush=True)
            bar.update()
    network.load_state_dict(averaged)
    return network.eval()


def start_from(path, names):
    """The networks of these names in a file of `write`, to go on from: dict.

    Raises
    ------
    InputError : when it has no such networks, or ones of other settings
    """
    networks = OcclusionDetector(path).networks
    for name in names:
        view, settings = NETWORKS[name]
        if name not in networks or networks[name].settings != OcclusionNetwork(view.size, **settings).settings:
            raise InputError(f"{path}: its network for {name} is another one than is trained; leave --start away")
    return networks


def _batch(rng, drawn, which):
    pictures, masks = [], []
    for k in which:
        x, y = drawn[k]
        if rng.random() < 0.5:
            x, y = x[:, ::-1], y[:, ::-1]
        gain = np.exp(rng.normal(0, 0.1, 3)).astype(np.float32) / 255
        pictures.append(np.clip(x * gain, 0, 1).transpose(2, 0, 1))
        masks.append(y[None].astype(np.float32) / 255)
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(masks))


def _dice(logits, wanted):
    p = logits.sigmoid()
    return 1 - (2 * (p * wanted).sum() + 1) / (p.sum() + wanted.sum() + 1)


def write(path, networks, bases, seed):
    """Writes what ships: half precision, with how the networks are built and on how many faces they were trained."""
    tensors = {k: v for name, network in networks.items() for k, v in half_precision(network, f"{name}.").items()}
    write_tensors(path, tensors, {
        "format": "1", "settings": json.dumps({name: network.settings for name, network in networks.items()}),
        "faces": str(len(bases)), "seed": str(seed), "test": json.dumps(TEST)})


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m compositing.train_occlusion", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="+", metavar="FACES", help="photos, folders, clips")
    parser.add_argument("--skins", type=Path, metavar="DATASET", help="data set of photos, for rendered people")
    parser.add_argument("--ict", type=Path, metavar="PATH", help="folder or .npz of ICT-FaceKit, likewise")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="WEIGHTS.safetensors")
    parser.add_argument("--actors", type=int, default=40, help="rendered people (default: %(default)s)")
    parser.add_argument("--count", type=int, default=6000, help="examples for each network (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=8, help="how often each is seen (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="train each network no longer than this")
    parser.add_argument("--only", choices=NETWORKS, help="train this network; the other stays as it ships")
    parser.add_argument("--start", type=Path, metavar="WEIGHTS.safetensors", help="go on from these weights")
    parser.add_argument("--seed", type=int, default=0)
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    if min(args.actors, args.count, args.passes) < 1:
        raise InputError("--actors, --count and --passes: give 1 or more")
    if (args.skins is None) != (args.ict is None):
        raise InputError("--skins and --ict: give both, or neither")
    commands.check_writable(args.out)
    names = [args.only] if args.only else list(NETWORKS)
    networks = dict(OcclusionDetector().networks) if args.only else {}
    before = start_from(args.start, names) if args.start else {}
    cv2.setNumThreads(1)
    model, detector = load_model("commons"), FaceDetector()
    bases = faces(pictures(args.faces), model, detector)
    if args.skins is not None:
        bases = np.concatenate([bases, faces(performances(args.skins, args.ict, model, args.actors, args.seed), model,
                                             detector)])
    rng = np.random.default_rng(args.seed)
    for name in names:
        networks[name] = train(name, bases, rng, args.count, args.passes, args.minutes, start=before.get(name))
    write(args.out, networks, bases, args.seed)
    print(f"wrote {args.out}: trained on {len(bases)} faces")


if __name__ == "__main__":
    commands.run(main)
