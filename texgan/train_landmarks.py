"""Trains the network that sees dense landmarks and guesses a head's shape, on rendered faces and on turned photos.

    python -m texgan.train_landmarks PHOTOS... --skins DATASET --ict ICT-FaceKit -o dense.safetensors

PHOTOS are folders of photos of faces; each photo is fitted and seen by other cameras. DATASET (texgan.extract of
photos) and ICT-FaceKit lend rendered people, before backgrounds cut from the pictures of SCENES, if given. People of
texgan.split's lists are left out. On two cores it takes a quarter of an hour to draw and three quarters to train.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from facemodel.errors import InputError
from facemodel.morphable import FLIP, load_model
from facemodel.workers import worker_pool
from fitting import commands
from fitting.dense_landmarks import SIZE, DenseLandmarkNetwork
from fitting.detection import FaceDetector
from fitting.fit import PHOTO, fit_frames
from fitting.images import read_image
from fitting.progress import progress_bar
from texgan.actors import draw_actor
from texgan.checkpoint import half_precision, write_tensors
from texgan.dataset import decode
from texgan.headshots import STORED, bind, identity_of, relief, rendered, turned
from texgan.perform import skins_of
from texgan.rendered import FACE_CENTRE
from texgan.split import TEST, VALIDATION
from texgan.stage import load_stage

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
IDENTITY_SIGMA, LARGEST_GAP = 0.95, 0.6          # for texgan.actors.draw_actor: heads may differ more than actors
BATCH, TURNED = 64, 0.38                         # examples of a step, and the share of turned photos among them
RATE, WARMING = 2e-3, 0.08                       # highest learning rate, share of the steps until it is reached
DISTANCE_FIRST = 0.1                             # share of the steps in which the likelihood takes over from distance
HEADS = 2.0                                      # weight of the heads' mean squared error
AVERAGE = 0.998                                  # of the moving average of the weights
HELD_OUT = 30                                    # rendered people on whom the error is reported
EVERY = 250                                      # steps between reports


class Examples:
    """Pictures (N, STORED, STORED, 3) uint8, their points (N, K, 2) and heads (N, n_id), as torch tensors.

    drawn : list of (picture, points, identity); identity None where it is not known, which makes it nan here
    """

    def __init__(self, drawn, identity_count):
        unknown = np.full(identity_count, np.nan)
        self.pictures, self.points, self.identity = (torch.from_numpy(np.stack(values)) for values in zip(*(
            (picture, points, np.float32(unknown if identity is None else identity))
            for picture, points, identity in drawn)))

    def __len__(self):
        return len(self.pictures)


def plain(examples, chosen):
    """Examples as the network is asked at run time: pictures (n, 3, SIZE, SIZE) in [0, 1] and points in [-1, 1]."""
    return _placed(examples, chosen, torch.zeros(len(chosen)), torch.zeros(len(chosen)), torch.zeros(len(chosen), 2))


def augmented(examples, chosen, generator):
    """Examples, moved, covered in part, lit and photographed in many ways; see `plain`."""
    n = len(chosen)
    normal = lambda sigma, *shape: torch.randn(n, *shape, generator=generator) * sigma
    pictures, points = _placed(examples, chosen, normal(0.07), normal(0.06), normal(0.045, 2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    for _ in range(2):
        _cover(pictures, x, y, generator)
    turn = _uniform(generator, 0, 2 * np.pi, n, 1, 1)
    slope = (x * torch.cos(turn) + y * torch.sin(turn)) * normal(0.25, 1, 1)
    gain = slope[:, None] + normal(0.3, 1, 1, 1) + normal(0.1, 3, 1, 1)
    pictures = (pictures * torch.exp(gain)).clamp(1e-3, 1.3) ** torch.exp(normal(0.25, 1, 1, 1))
    grey = _uniform(generator, 0, 1, n, 1, 1, 1) < 0.15
    pictures = torch.where(grey, pictures.mean(1, keepdim=True), pictures)
    choice, factor = _uniform(generator, 0, 1, 2).tolist()
    if choice < 0.25:
        small = functional.interpolate(pictures, scale_factor=0.3 + 0.4 * factor, mode="bilinear", antialias=True)
        pictures = functional.interpolate(small, size=SIZE, mode="bilinear")
    elif choice < 0.4:
        pictures = functional.avg_pool2d(pictures, 3, 1, 1)
    noise = torch.randn(pictures.shape, generator=generator) * _uniform(generator, 0, 0.03, n, 1, 1, 1)
    return (pictures + noise).clamp(0, 1), points


def _uniform(generator, low, high, *shape):
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _placed(examples, chosen, angle, zoom, shift):
    """Chosen examples turned by `angle`, seen by exp(`zoom`) as much, moved by `shift` (in half pictures)."""
    pictures = examples.pictures[chosen].permute(0, 3, 1, 2).float() / 255
    c, s = torch.cos(angle) * torch.exp(zoom), torch.sin(angle) * torch.exp(zoom)
    matrix = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
    theta = torch.cat([matrix, shift[:, :, None]], dim=2) * (SIZE / STORED)
    grid = functional.affine_grid(theta, (len(chosen), 3, SIZE, SIZE), align_corners=False)
    pictures = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    points = (examples.points[chosen] - STORED / 2) * (2 / SIZE) - shift[:, None]
    return pictures, torch.einsum("nij,nkj->nki", torch.linalg.inv(matrix), points)


def _cover(pictures, x, y, generator):
    """Lays soft ellipses over some of the pictures, in place: pieces of other pictures, or plain colours."""
    n = int(0.45 * len(pictures))
    under = torch.randperm(len(pictures), generator=generator)[:n]
    cx, cy, turn = (_uniform(generator, -a, a, n, 1, 1) for a in (1, 1, np.pi))
    a, b = (_uniform(generator, 0.08, 0.5, n, 1, 1) for _ in range(2))
    along, across = (x - cx) * torch.cos(turn) + (y - cy) * torch.sin(turn), (y - cy) * torch.cos(turn) - (
        x - cx) * torch.sin(turn)
    mask = torch.sigmoid((1 - (along / a) ** 2 - (across / b) ** 2) * 8)[:, None]
    over = pictures[torch.randperm(len(pictures), generator=generator)[:n]].flip(2)
    moved = torch.randint(-SIZE // 2, SIZE // 2, (2,), generator=generator).tolist()
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    over = torch.where(_uniform(generator, 0, 1, n, 1, 1, 1) < 0.4, colour, over.roll(moved, (2, 3)))
    pictures[under] = pictures[under] * (1 - mask) + over * mask


def loss_of(seen, wanted, heads, share):
    """Negative log likelihood of the points under normal errors, mixed with their mean distance, and heads' error.

    Parameters
    ----------
    seen : what the network gives; wanted : (N, K, 2); heads : (N, n_id), nan where not known
    share : float, of the likelihood; 0: distance only
    """
    points, deviation, identity = seen
    deviation = deviation.clamp(-6, 1)
    squared = ((points - wanted) ** 2).sum(dim=-1)
    likelihood = (squared * torch.exp(-2 * deviation) / 2 + 2 * deviation).mean()
    known = ~heads.isnan().any(dim=1)
    error = ((identity - heads)[known] ** 2).mean() if known.any() else 0.0
    return likelihood * share + (1 - share) * 20 * torch.sqrt(squared + 1e-6).mean() + HEADS * error


def train(shots, photos, steps, seed=0, held_out=None, show=True):
    """A trained DenseLandmarkNetwork, averaged over its last steps.

    Parameters
    ----------
    shots, photos : Examples, rendered and turned; photos may be None
    steps : int
    held_out : Examples, what is reported on, or None

    Raises
    ------
    InputError : when the loss stops being finite
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = DenseLandmarkNetwork(shots.points.shape[1], shots.identity.shape[1])
    network = network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        last = network.place[-1]
        last.weight *= 0.1
        network.shape[-1].weight *= 0.1
        network.shape[-1].bias.zero_()
        usual = torch.cat([plain(shots, torch.arange(len(shots))[:500])[1].mean(0),
                           torch.full((shots.points.shape[1], 1), -3.0)], dim=1)
        last.bias.copy_(usual.flatten())
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, max(steps, 2), pct_start=WARMING)
    count, begin = (round(TURNED * BATCH) if photos else 0), time.monotonic()
    for step in range(steps):
        parts = []
        for examples, k in ((shots, BATCH - count), (photos, count)):
            if k:
                chosen = torch.randint(len(examples), (k,), generator=generator)
                parts.append((*augmented(examples, chosen, generator), examples.identity[chosen]))
        pictures, wanted, heads = (torch.cat(p) for p in zip(*parts))
        with torch.autocast("cpu", torch.bfloat16):
            seen = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = loss_of(seen, wanted, heads, min(1.0, step / (steps * DISTANCE_FIRST)))
        if not torch.isfinite(loss):
            raise InputError(f"step {step}: the loss is no longer finite; train with another --seed")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        rate.step()
        keep = min(AVERAGE, step / (step + 50))
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), network.state_dict().values()):
                a.lerp_(b, 1 - keep) if a.dtype.is_floating_point else a.copy_(b)
        if show and (step % EVERY == EVERY - 1 or step == steps - 1):
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}{_told(average, held_out)}, "
                  f"{(step + 1) * BATCH / (time.monotonic() - begin):.0f} pictures/s", flush=True)
    return average.eval()


def _told(network, held_out):
    if held_out is None:
        return ""
    distance, heads = errors(network, held_out)
    return f", held out {distance.mean():.2f} px of {SIZE}, heads {heads.pow(2).mean():.2f}"


def errors(network, examples):
    """Distances (N, K) in pixels of the network's picture, and errors (N, n_id) of the heads it guesses."""
    network.eval()
    distances, heads = [], []
    for chosen in torch.arange(len(examples)).split(BATCH):
        pictures, wanted = plain(examples, chosen)
        with torch.inference_mode():
            points, _, identity = network(pictures)
        distances.append((points - wanted).norm(dim=-1) * (SIZE / 2))
        heads.append(identity - examples.identity[chosen])
    return torch.cat(distances), torch.cat(heads)


_worker = {}


def _prepare(ict_path, skins, scenes):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = load_model()
    stage = load_stage(ict_path, model)
    _worker.update(model=model, stage=stage, binding=bind(stage, ict_path, model), skins=skins,
                   scenes=[read_image(path) for path in scenes])


def _draw_person(number, seed, poses):
    """Pictures of one rendered person."""
    rng = np.random.default_rng([seed, number])
    _, path, _ = _worker["skins"][rng.integers(len(_worker["skins"]))]
    skin = decode(cv2.imread(str(path))[..., ::-1])
    if rng.random() < 0.5:
        skin = skin * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
    actor = draw_actor(_worker["stage"], rng, np.clip(skin, 0, 1), sigma=IDENTITY_SIGMA, largest_gap=LARGEST_GAP)
    head = (actor.neutral - np.float32(FACE_CENTRE)) * FLIP
    identity = identity_of(_worker["model"], _worker["binding"](head.astype(np.float64)))
    return [(*rendered(_worker["stage"], _worker["binding"], actor, rng, _worker["scenes"]), identity)
            for _ in range(poses)]


def _turn_photo(number, path, seed, views):
    """Views of one photo; none when no face is found in it."""
    image, detector, model = read_image(path), FaceDetector(), _worker["model"]
    faces = detector.detect(image)
    if not faces:
        return []
    shared, (frame,) = fit_frames(model, [image], [detector.landmarks(image, faces[0].box)], settings=PHOTO)
    laid, rng = relief(model, image, shared, frame), np.random.default_rng([seed, number, 1])
    return [(*turned(laid, rng, still=k == 0), None) for k in range(views)]


def pictures_in(folder):
    """Pictures (paths) of a folder, but for those of people who are tested or validated on.

    Raises
    ------
    InputError : when there are none
    """
    out = [p for p in sorted(Path(folder).iterdir()) if p.suffix.lower() in PICTURES
           and not p.name.startswith((*TEST, *VALIDATION))] if Path(folder).is_dir() else []
    if not out:
        raise InputError(f"{folder}: no folder with pictures (.jpg, .png, .webp)")
    return out


def draw(photos, skins, ict_path, scenes, people, poses, views, seed, workers=None):
    """Draws all examples: (rendered, turned), lists of (picture, points, identity or None)."""
    with worker_pool(workers, _prepare, (ict_path, skins, scenes)) as pool:
        jobs = [pool.submit(_draw_person, k, seed, poses) for k in range(people)]
        jobs += [pool.submit(_turn_photo, k, path, seed, views) for k, path in enumerate(photos)]
        out = []
        with progress_bar(len(jobs), "draw", "person") as bar:
            for job in jobs:
                out.append(job.result())
                bar.update()
    flat = lambda parts: [example for part in parts for example in part]
    return flat(out[:people]), flat(out[people:])


def write(path, network, identity_sigma, model, photos, people, seed):
    """Writes what ships: half precision, with how the network is built and what it was trained on.

    identity_sigma : (n_id,) float, how far its guesses at the coefficients of `model` are off
    """
    tensors = {**half_precision(network), "identity_sigma": torch.as_tensor(identity_sigma).float()}
    write_tensors(path, tensors, {
        "format": "1", "settings": json.dumps(network.settings), "identity_hash": model.identity_hash,
        "seed": str(seed), "rendered_people": str(people),
        "photos": json.dumps([p.name for p in photos]), "test": json.dumps(TEST + VALIDATION)})


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m texgan.train_landmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="folders of photos of faces")
    parser.add_argument("--skins", type=Path, required=True, metavar="DATASET", help="of photos (texgan.extract)")
    parser.add_argument("--ict", type=Path, required=True, metavar="PATH", help="folder or .npz of ICT-FaceKit")
    parser.add_argument("--scenes", type=Path, help="folder of pictures for backgrounds")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--people", type=int, default=1800, help="rendered ones")
    parser.add_argument("--poses", type=int, default=9, help="of each rendered person")
    parser.add_argument("--views", type=int, default=60, help="of each photo")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    for name in ("poses", "views", "steps", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name}: give 1 or more")
    if args.people < 2:
        raise InputError("--people: give 2 or more; the last are held out")
    commands.check_writable(args.out)
    photos, skins = [p for folder in args.photos for p in pictures_in(folder)], skins_of(args.skins)
    scenes = pictures_in(args.scenes) if args.scenes else []
    model = load_model()
    load_stage(args.ict, model)                                       # says what is wrong before any work is done
    shots, views = draw(photos, skins, args.ict, scenes, args.people, args.poses, args.views, args.seed, args.workers)
    held = min(HELD_OUT, args.people // 2) * args.poses
    print(f"{len(shots) - held} rendered and {len(views)} turned pictures; {held} rendered ones held out", flush=True)
    kept = lambda drawn: Examples(drawn, model.identity_count) if drawn else None
    held_out = kept(shots[-held:])
    network = train(kept(shots[:-held]), kept(views), args.steps, args.seed, held_out)
    sigma = errors(network, held_out)[1].pow(2).mean(dim=0).sqrt().clamp(max=1)
    write(args.out, network, sigma, model, photos, args.people, args.seed)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    commands.run(main)
