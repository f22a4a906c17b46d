"""Trains the network that sees dense landmarks and guesses a head and its pose, on rendered faces and turned photos.

    python -m texgan.train_landmarks PHOTOS... --skins DATASET --ict ICT-FaceKit -o dense.safetensors

PHOTOS are folders of photos of faces; each photo is fitted and seen by other cameras. Where points that were placed by
hand lie beside a photo (NAME.tem, see texgan.webmorph), its skin is laid by them. DATASET (texgan.extract of
photos) and ICT-FaceKit lend rendered people, before backgrounds cut from the pictures of SCENES, if given. People of
texgan.split's lists are left out. On two cores it takes 25 minutes to draw; training takes two hours on one. What was
drawn is kept in a file with --examples, and taken from there the next time; --start goes on from trained weights.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch.nn import functional

from facemodel import commands
from facemodel.device import has_bfloat16
from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.symmetry import INNER, mirrored_identity
from fitting.dense_landmarks import SIZE, DenseLandmarkNetwork
from fitting.detection import FaceDetector
from texgan.checkpoint import half_precision, write_tensors
from texgan.headshots import STORED
from texgan.landmark_examples import Examples, draw, keep, kept, pictures_in, skins_and_photos
from texgan.split import TEST, VALIDATION
from texgan.stage import load_stage

BATCH, TURNED = 64, 0.38                         # examples of a step, and the share of turned photos among them
RATE, RATE_AGAIN = 2e-3, 7e-4                    # highest learning rates, from scratch and from trained weights
WARMING = 0.08                                   # share of the steps until it is reached
DISTANCE_FIRST = 0.1                             # share of the steps in which the likelihood takes over from distance
HEADS, TURNS = 2.0, 150.0                        # weights of the heads' and turns' mean squared errors
AVERAGE = 0.998                                  # of the moving average of the weights
HELD_OUT = 30                                    # rendered people on whom the error is reported
EVERY = 250                                      # steps between reports


def plain(examples, chosen):
    """Examples as the network is asked at run time.

    Returns
    -------
    pictures (n, 3, SIZE, SIZE) float32 in [0, 1], points (n, K, 2) in [-1, 1], identity (n, n_id), turn (n, 3, 3)
    """
    return _placed(examples, chosen, torch.zeros(len(chosen)), torch.zeros(len(chosen)), torch.zeros(len(chosen), 2))


def augmented(examples, chosen, generator, identity_mirror=None):
    """Examples, moved, covered in part, lit and photographed in many ways, every other one mirrored; see `plain`.

    identity_mirror : (n_id, n_id) float32, facemodel.symmetry.mirrored_identity, or None: no picture is mirrored.
        Where one is, points that are no other's mirror image are nan.
    """
    n = len(chosen)
    normal = lambda sigma, *shape: torch.randn(n, *shape, generator=generator) * sigma
    pictures, *shown = _placed(examples, chosen, normal(0.07), normal(0.06), normal(0.045, 2))
    if identity_mirror is not None:
        pictures, *shown = _mirrored(pictures, *shown, _uniform(generator, 0, 1, n) < 0.5, identity_mirror)
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
    return (pictures + noise).clamp(0, 1), *shown


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
    back = torch.eye(3).repeat(len(chosen), 1, 1)
    back[:, :2, :2] = torch.linalg.inv(matrix)
    points = torch.einsum("nij,nkj->nki", back[:, :2, :2], points)
    back[:, :2, :2] *= torch.exp(zoom)[:, None, None]                # the rotation in it
    return pictures, points, examples.identity[chosen], back @ examples.turn[chosen]


def _mirrored(pictures, points, identity, turn, which, identity_mirror):
    """Examples as of `plain`, those that `which` (n,) bool says mirrored."""
    other = torch.full_like(points, torch.nan)
    other[:, :len(INNER)] = points[:, INNER] * torch.tensor([-1.0, 1.0])
    sign = torch.tensor([-1.0, 1.0, 1.0])
    choose = lambda a, b: torch.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return (choose(pictures.flip(3), pictures), choose(other, points), choose(identity @ identity_mirror.T, identity),
            choose(turn * sign[:, None] * sign, turn))


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


def loss_of(seen, wanted, heads, turns, share):
    """Negative log likelihood of the points under normal errors, mixed with their mean distance, and the heads' errors.

    Parameters
    ----------
    seen : what the network gives
    wanted : (N, K, 2), heads : (N, n_id) and turns : (N, 3, 3), nan where not known
    share : float, of the likelihood; 0: distance only
    """
    points, deviation, identity, vector = seen
    deviation = deviation.clamp(-6, 1)
    there = ~wanted.isnan().any(dim=-1)
    squared = ((points[there] - wanted[there]) ** 2).sum(dim=-1)
    likelihood = (squared * torch.exp(-2 * deviation[there]) / 2 + 2 * deviation[there]).mean()
    known = ~(heads.isnan().any(dim=1) | turns.isnan().any(dim=2).any(dim=1))
    error = 0.0
    if known.any():
        error = HEADS * ((identity - heads)[known] ** 2).mean()
        # half the squared Frobenius norm of the difference of two rotations is the squared angle between them
        error = error + TURNS * ((rotations(vector) - turns)[known] ** 2).sum(dim=(1, 2)).mean() / 2
    return likelihood * share + (1 - share) * 20 * torch.sqrt(squared + 1e-6).mean() + error


def rotations(vectors):
    """Axes times angles (N, 3) to matrices (N, 3, 3)."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3))


def train(shots, photos, steps, seed=0, held_out=None, show=True, start=None, identity_mirror=None):
    """A trained DenseLandmarkNetwork, averaged over its last steps.

    Parameters
    ----------
    shots, photos : Examples, rendered and turned; photos may be None
    steps : int
    held_out : Examples, what is reported on, or None
    start : state of a network to go on from, with less haste; parts that it lacks start anew
    identity_mirror : as of `augmented`

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
        network.turn[-1].weight *= 0.1
        network.turn[-1].bias.zero_()
        usual = torch.cat([plain(shots, torch.arange(len(shots))[:500])[1].mean(0),
                           torch.full((shots.points.shape[1], 1), -3.0)], dim=1)
        last.bias.copy_(usual.flatten())
    if start:
        network.load_state_dict(start, strict=False)
    average, highest = copy.deepcopy(network), RATE_AGAIN if start else RATE
    optimiser = torch.optim.AdamW(network.parameters(), highest, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, max(steps, 2), pct_start=WARMING)
    count, begin = (round(TURNED * BATCH) if photos else 0), time.monotonic()
    for step in range(steps):
        parts = []
        for examples, k in ((shots, BATCH - count), (photos, count)):
            if k:
                chosen = torch.randint(len(examples), (k,), generator=generator)
                parts.append(augmented(examples, chosen, generator, identity_mirror))
        pictures, *wanted = (torch.cat(p) for p in zip(*parts))
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            seen = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = loss_of(seen, *wanted, 1.0 if start else min(1.0, step / (steps * DISTANCE_FIRST)))
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
    distance, heads, angles = errors(network, held_out)
    return (f", held out {distance.mean():.2f} px of {SIZE}, heads {heads.pow(2).mean():.3f}, "
            f"turns {np.degrees(angles.norm(dim=1).mean().item()):.2f} deg")


def errors(network, examples):
    """What a network is off by, on examples of which all is known.

    Returns
    -------
    distances (N, K) in pixels of the network's picture, errors (N, n_id) of the heads, and of their turns (N, 3), axes
    of the picture times radians
    """
    network.eval()
    distances, heads, turns = [], [], []
    for chosen in torch.arange(len(examples)).split(BATCH):
        pictures, wanted, identity, turn = plain(examples, chosen)
        with torch.inference_mode():
            points, _, guess, vector = network(pictures)
        distances.append((points - wanted).norm(dim=-1) * (SIZE / 2))
        heads.append(guess - identity)
        away = (rotations(vector) @ turn.mT).double().numpy()
        turns.append(torch.from_numpy(Rotation.from_matrix(away).as_rotvec()).float())
    return torch.cat(distances), torch.cat(heads), torch.cat(turns)


def state_in(path, model):
    """A network's state from the file of `write`, to go on from.

    Raises
    ------
    InputError : when it is none, or one of another network
    """
    try:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        network = DenseLandmarkNetwork(len(model.dense_landmarks), model.identity_count)
        lacking = network.load_state_dict(state, strict=False).missing_keys
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: no weights of texgan.train_landmarks for this model; leave --start away") from error
    if any(not name.startswith("turn.") for name in lacking):
        raise InputError(f"{path}: lacks parts of the network; leave --start away")
    return state


def write(path, network, identity_sigma, turn_sigma, model, photos, people, seed):
    """Writes what ships: half precision, with how the network is built and what it was trained on.

    identity_sigma : (n_id,) float, how far its guesses at the coefficients of `model` are off
    turn_sigma : float, radians, how far its guesses at the turn are off about each axis
    """
    tensors = {**half_precision(network), "identity_sigma": torch.as_tensor(identity_sigma).float(),
               "turn_sigma": torch.tensor(float(turn_sigma)),
               "identity_mirror": torch.from_numpy(mirrored_identity(model)).float()}
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
    parser.add_argument("--examples", type=Path, metavar="FILE.npz", help="keep what is drawn there, or take it")
    parser.add_argument("--start", type=Path, metavar="FILE.safetensors", help="go on from these weights")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--people", type=int, default=6000, help="rendered ones")
    parser.add_argument("--poses", type=int, default=5, help="of each rendered person")
    parser.add_argument("--views", type=int, default=60, help="of each photo")
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    for name in ("poses", "views", "steps", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name}: give 1 or more")
    if args.people < 2:
        raise InputError("--people: give 2 or more; the last are held out")
    for path in filter(None, (args.out, args.examples)):
        commands.check_writable(path)
    photos = [p for folder in args.photos for p in pictures_in(folder)]
    skins = skins_and_photos(args.skins, photos)
    scenes = pictures_in(args.scenes) if args.scenes else []
    model = load_model()
    start = state_in(args.start, model) if args.start else None
    load_stage(args.ict, model), FaceDetector()                       # say what is wrong before any work is done
    if args.examples and args.examples.is_file():
        shots, views = kept(args.examples)
    else:
        drawn = draw(photos, skins, args.ict, scenes, args.people, args.poses, args.views, args.seed, args.workers)
        shots, views = (Examples.of(part, model.identity_count) for part in drawn)
        del drawn
        if args.examples:
            keep(args.examples, shots, views)
    people = shots.person.unique()
    held = torch.isin(shots.person, people[-min(HELD_OUT, len(people) // 2):])
    shots, held_out = shots[~held], shots[held]
    print(f"{len(shots)} rendered and {len(views)} turned pictures; {len(held_out)} rendered ones held out", flush=True)
    mirror = torch.from_numpy(mirrored_identity(model)).float()
    network = train(shots, views, args.steps, args.seed, held_out, start=start, identity_mirror=mirror)
    _, heads, turns = errors(network, held_out)
    write(args.out, network, heads.pow(2).mean(dim=0).sqrt().clamp(max=1), turns.pow(2).mean().sqrt(), model, photos,
          len(people), args.seed)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    commands.run(main)
