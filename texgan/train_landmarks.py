"""Trains the network that sees dense landmarks and guesses a head and its pose, on rendered faces and turned photos.

    python -m texgan.train_landmarks PHOTOS... --skins DATASET --ict ICT-FaceKit -o dense.safetensors

PHOTOS are folders of photos of faces; each photo is fitted and seen by other cameras. DATASET (texgan.extract of
photos) and ICT-FaceKit lend rendered people, before backgrounds cut from the pictures of SCENES, if given. People of
texgan.split's lists are left out. On two cores it takes 25 minutes to draw and an hour to train. What was drawn is kept
in a file with --examples, and taken from there the next time; --start goes on from trained weights.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import time
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch.nn import functional

from facemodel.atlas import build_atlas
from facemodel.errors import InputError
from facemodel.files import whole
from facemodel.morphable import FLIP, load_model
from facemodel.workers import worker_pool
from fitting import commands
from fitting.dense_landmarks import SIZE, DenseLandmarkNetwork
from fitting.detection import FaceDetector
from fitting.fit import PHOTO, fit_frames
from fitting.images import SUFFIXES, read_image
from fitting.progress import progress_bar
from texgan.actors import draw_actor
from texgan.checkpoint import half_precision, write_tensors
from texgan.dataset import decode, read_clip
from texgan.headshots import STORED, bind, identity_of, relief, rendered, turned
from texgan.perform import skins_of
from texgan.rendered import FACE_CENTRE
from texgan.skins import lifted, varied, with_brows_placed
from texgan.split import TEST, VALIDATION
from texgan.stage import load_stage

IDENTITY_SIGMA, LARGEST_GAP = 1.0, 0.6          # for texgan.actors.draw_actor: heads may differ more than actors
BATCH, TURNED = 64, 0.38                         # examples of a step, and the share of turned photos among them
RATE, RATE_AGAIN = 2e-3, 5e-4                    # highest learning rates, from scratch and from trained weights
WARMING = 0.08                                   # share of the steps until it is reached
DISTANCE_FIRST = 0.1                             # share of the steps in which the likelihood takes over from distance
HEADS, TURNS = 2.0, 20.0                         # weights of the heads' and turns' mean squared errors
VARIED = 0.85                                    # share of the people with a skin that nobody has
LIFTED = 0.65                                    # and of those with skins lifted from photos anew, where there are any
SKIN = 512                                       # pixels per side of the skins that people are drawn with
AVERAGE = 0.998                                  # of the moving average of the weights
HELD_OUT = 30                                    # rendered people on whom the error is reported
EVERY = 250                                      # steps between reports


@dataclass(frozen=True)
class Skin:
    """A person's skin: path of the texture in a data set, and of the photo that it is from, None where not at hand."""

    texture: Path
    photo: Path | None


def skins_and_photos(dataset, photos):
    """Skins of a data set's training people; their photos are looked for by name.

    Raises
    ------
    InputError : when there are none
    """
    named, out = {path.name: path for path in photos}, []
    for _, texture, _ in skins_of(dataset):
        info = read_clip(texture.parents[1]).info
        sources = [name for name in info.source if name not in info.left_out]
        out.append(Skin(texture, named.get(sources[info.neutral])))
    return out


@dataclass(frozen=True)
class Examples:
    """Pictures and what they show, as torch tensors.

    pictures : (N, STORED, STORED, 3) uint8; points : (N, K, 2) float32, pixels
    identity : (N, n_id) float32 and turn : (N, 3, 3) float32 (see texgan.headshots.rendered), nan where not known
    """

    pictures: torch.Tensor
    points: torch.Tensor
    identity: torch.Tensor
    turn: torch.Tensor

    @classmethod
    def of(cls, drawn, identity_count):
        """Examples from a list of (picture, points, identity, turn), the last two None where not known."""
        known = lambda value, shape: np.full(shape, np.nan, np.float32) if value is None else np.float32(value)
        pictures, points, identity, turn = zip(*drawn)
        return cls(*(torch.from_numpy(np.stack(values)) for values in (
            pictures, points, [known(v, identity_count) for v in identity], [known(v, (3, 3)) for v in turn])))

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, part):
        return Examples(*(getattr(self, f.name)[part] for f in fields(self)))


def plain(examples, chosen):
    """Examples as the network is asked at run time.

    Returns
    -------
    pictures (n, 3, SIZE, SIZE) float32 in [0, 1], points (n, K, 2) in [-1, 1], identity (n, n_id), turn (n, 3, 3)
    """
    return _placed(examples, chosen, torch.zeros(len(chosen)), torch.zeros(len(chosen)), torch.zeros(len(chosen), 2))


def augmented(examples, chosen, generator):
    """Examples, moved, covered in part, lit and photographed in many ways; see `plain`."""
    n = len(chosen)
    normal = lambda sigma, *shape: torch.randn(n, *shape, generator=generator) * sigma
    pictures, *shown = _placed(examples, chosen, normal(0.07), normal(0.06), normal(0.045, 2))
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
    seen : what the network gives; wanted : (N, K, 2); heads : (N, n_id) and turns : (N, 3, 3), nan where not known
    share : float, of the likelihood; 0: distance only
    """
    points, deviation, identity, vector = seen
    deviation = deviation.clamp(-6, 1)
    squared = ((points - wanted) ** 2).sum(dim=-1)
    likelihood = (squared * torch.exp(-2 * deviation) / 2 + 2 * deviation).mean()
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


def train(shots, photos, steps, seed=0, held_out=None, show=True, start=None):
    """A trained DenseLandmarkNetwork, averaged over its last steps.

    Parameters
    ----------
    shots, photos : Examples, rendered and turned; photos may be None
    steps : int
    held_out : Examples, what is reported on, or None
    start : state of a network to go on from, with less haste; parts that it lacks start anew

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
                parts.append(augmented(examples, chosen, generator))
        pictures, *wanted = (torch.cat(p) for p in zip(*parts))
        with torch.autocast("cpu", torch.bfloat16):
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


_worker = {}


def _prepare(ict_path, skins, scenes):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = load_model()
    stage = load_stage(ict_path, model)
    _worker.update(model=model, stage=stage, binding=bind(stage, model), detector=FaceDetector(), skins=skins,
                   worn={}, scenes=[read_image(path) for path in scenes], atlas=build_atlas(model, SKIN))


def _skin(skin, anew):
    """A Skin's texture (SKIN, SKIN, 3) float32, its brows in their place, or lifted from its photo anew."""
    worn, key, stage = _worker["worn"], (skin.texture, anew), _worker["stage"]
    if key not in worn:
        known = cv2.resize(decode(cv2.imread(str(skin.texture))[..., ::-1]), (SKIN, SKIN), interpolation=cv2.INTER_AREA)
        photo, fitted, landmarks = _fitted(skin.photo) if anew else (None, None, None)
        worn[key] = (with_brows_placed(stage, _worker["binding"], known, _worker["detector"]) if fitted is None else
                     lifted(stage, _worker["model"], _worker["atlas"], photo, fitted, landmarks, known))
    return worn[key]


def _fitted(path):
    """A photo (H, W, 3) uint8, its fit (Shared, Frame) and landmarks (68, 2); both None when it shows no face."""
    image, detector = read_image(path), _worker["detector"]
    faces = detector.detect(image)
    if not faces:
        return image, None, None
    landmarks = detector.landmarks(image, faces[0].box)
    shared, (frame,) = fit_frames(_worker["model"], [image], [landmarks], settings=PHOTO)
    return image, (shared, frame), landmarks


def _draw_person(number, seed, poses):
    """Pictures of one rendered person."""
    rng = np.random.default_rng([seed, number])
    chosen = [_worker["skins"][k] for k in rng.integers(len(_worker["skins"]), size=2)]
    anew = rng.random() < LIFTED and all(skin.photo for skin in chosen)
    skin, other = (_skin(skin, anew) for skin in chosen)
    if rng.random() < VARIED:
        skin = varied(_worker["stage"], _worker["binding"], skin, other, rng)
    if rng.random() < 0.5:
        skin = skin * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
    actor = draw_actor(_worker["stage"], rng, np.clip(skin, 0, 1), sigma=IDENTITY_SIGMA, largest_gap=LARGEST_GAP)
    head = (actor.neutral - np.float32(FACE_CENTRE)) * FLIP
    identity = identity_of(_worker["model"], _worker["binding"](head.astype(np.float64)))
    shots = [rendered(_worker["stage"], _worker["binding"], actor, rng, _worker["scenes"]) for _ in range(poses)]
    return [(picture, points, identity, turn) for picture, points, turn in shots]


def _turn_photo(number, path, seed, views):
    """Views of one photo; none when no face is found in it."""
    image, fitted, _ = _fitted(path)
    if fitted is None:
        return []
    laid, rng = relief(_worker["model"], image, *fitted), np.random.default_rng([seed, number, 1])
    return [(*turned(laid, rng, still=k == 0), None, None) for k in range(views)]


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


def pictures_in(folder):
    """Pictures (paths) of a folder, but for those of people who are tested or validated on.

    Raises
    ------
    InputError : when there are none
    """
    out = [p for p in sorted(Path(folder).iterdir()) if p.suffix.lower() in SUFFIXES
           and not p.name.startswith((*TEST, *VALIDATION))] if Path(folder).is_dir() else []
    if not out:
        raise InputError(f"{folder}: no folder with pictures (.jpg, .png, .webp)")
    return out


def draw(photos, skins, ict_path, scenes, people, poses, views, seed, workers=None):
    """Draws all examples: (rendered, turned), lists of (picture, points, identity or None, turn or None).

    Raises
    ------
    InputError : when no photo shows a face
    """
    with worker_pool(workers, _prepare, (ict_path, skins, scenes)) as pool:
        jobs = [pool.submit(_draw_person, k, seed, poses) for k in range(people)]
        jobs += [pool.submit(_turn_photo, k, path, seed, views) for k, path in enumerate(photos)]
        out = []
        with progress_bar(len(jobs), "draw", "person") as bar:
            for job in jobs:
                out.append(job.result())
                bar.update()
    flat = lambda parts: [example for part in parts for example in part]
    shots, seen = flat(out[:people]), flat(out[people:])
    if not seen:
        raise InputError(f"{photos[0].parent}: no face found in any of {len(photos)} photos; give photos of faces")
    return shots, seen


def keep(path, shots, views):
    """Writes Examples, rendered and turned, as an .npz that `kept` reads."""
    with whole(path, "choose another place with --examples") as beside, beside.open("wb") as file:
        np.savez(file, **{f"{kind}_{f.name}": getattr(examples, f.name).numpy()
                          for kind, examples in (("rendered", shots), ("turned", views)) for f in fields(Examples)})


def kept(path):
    """Examples, rendered and turned, from a file of `keep`.

    Raises
    ------
    InputError : when it is none
    """
    try:
        with np.load(path) as file:
            return tuple(Examples(*(torch.from_numpy(file[f"{kind}_{f.name}"]) for f in fields(Examples)))
                         for kind in ("rendered", "turned"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no examples of texgan.train_landmarks; delete it to have some drawn") from error


def write(path, network, identity_sigma, turn_sigma, model, photos, people, seed):
    """Writes what ships: half precision, with how the network is built and what it was trained on.

    identity_sigma : (n_id,) float, how far its guesses at the coefficients of `model` are off
    turn_sigma : float, radians, how far its guesses at the turn are off about each axis
    """
    tensors = {**half_precision(network), "identity_sigma": torch.as_tensor(identity_sigma).float(),
               "turn_sigma": torch.tensor(float(turn_sigma))}
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
    held = min(HELD_OUT, args.people // 2) * args.poses
    print(f"{len(shots) - held} rendered and {len(views)} turned pictures; {held} rendered ones held out", flush=True)
    shots, held_out = shots[:-held], shots[-held:]
    network = train(shots, views, args.steps, args.seed, held_out, start=start)
    _, heads, turns = errors(network, held_out)
    write(args.out, network, heads.pow(2).mean(dim=0).sqrt().clamp(max=1), turns.pow(2).mean().sqrt(), model, photos,
          args.people, args.seed)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    commands.run(main)
