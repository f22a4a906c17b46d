"""Measures how well a target's texture is inferred: the paper's Table 1 and what it leaves out.

    python -m texgan.evaluate FOLDER [--dump DIR] -o TABLE.json

FOLDER holds photos ID_neutral.jpg and ID_EXPRESSION.jpg. For every expression and every ordered pair of two people
(source, target) the target's texture is inferred from the source's texture and the target's neutral one, and compared
with the target's own. People whom the weights were trained or validated on are left out (they are known by their
photos' hashes; of weights that don't hold those of the validation, by texgan.split.VALIDATION).

Methods: `static` leaves the neutral texture as it is; `delta` adds the source's change (the paper's baseline);
`delta_local` is compositing's refined delta; `mean` adds the average change of the training people; `gan` is the
trained generator.

Figures, each over the whole face and over `mouth_eyes` (mouth, lips, eyes, lids), on texels that the truth's photo and,
outside the mouth, the neutral photo show, for albedo in [0, 1.3] times 255 / 1.3:
  l1, l2      mean absolute and mean squared difference, over texels and channels
  ssim        Gaussian window of 11 x 11 texels, sigma 1.5, range 255, on each channel, averaged over the texels
              (Wang et al. 2004, doi:10.1109/TIP.2003.819861)
  sharpness   sum of the squared gradients, over the truth's
Each is the mean over pairs, with a 95 % interval from resampling the people (targets) 2000 times.
In that table source and target smile each in their own way, so that a method which follows the source can't come as
near to the truth as one that knew the target's smile. `reenacted` is the same for people who re-enact themselves: the
source is the person's own picture in the skin of somebody else of FOLDER, by the ratio of their neutral textures, and
the truth is the picture as it was; for the photos together, and with --clips for each video.
`floor` is what the fit's own noise leaves: a photo against its mirror image, fitted anew and mirrored back.
`follows` says whether the source's expression is in the result: see `following`.

Exit status: 0 when every photo of these people is in the table, 3 when some had to be left out (they are named), 1 on
errors.
"""
from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from facemodel import commands
from facemodel.atlas import build_atlas
from facemodel.device import torch_device
from facemodel.errors import InputError
from facemodel.files import whole
from facemodel.morphable import load_model
from fitting.images import read_image
from fitting.lift import BRIGHTEST, Texture
from fitting.progress import progress_bar
from fitting.texture import region_texture
from fitting.trackfile import file_hash
from texgan.dataset import SIZE, check_chart, decode, encode, finished, read_dataset, write_picture
from texgan.extract import PHOTO_SCRIPT, extract, find_jobs
from texgan.generator import TextureGenerator
from texgan.sampling import Masks
from texgan.split import VALIDATION
from texgan.transfer import SourceTexture, delta

METHODS = ("static", "delta", "delta_local", "mean", "gan")
REGIONS = ("whole", "mouth_eyes")
FIGURES = ("l1", "l2", "ssim", "sharpness")
BOOTSTRAP = 2000
WINDOW, SIGMA, RANGE = 11, 1.5, 255.0


# ---------------------------------------------------------------- figures

def ssim_map(a, b):
    """Structural similarity of two (H, W, C) float images in [0, 255] at every texel: (H, W)."""
    blur = lambda x: cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA)
    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    return (((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean(axis=2)


def gradient_energy(image, weight):
    """Sum of the squared central differences of an (H, W, 3) image where (H, W) weight is."""
    dy, dx = np.gradient(image.astype(np.float64), axis=(0, 1))
    return float(((dx ** 2 + dy ** 2).sum(axis=2) * weight).sum())


def compare(result, truth, weight):
    """Figures of one result against the truth, both (H, W, 3) in [0, 255], over (H, W) weights: dict."""
    difference = (result.astype(np.float64) - truth)
    mean = lambda x: float((x * weight).sum() / weight.sum())
    inside = cv2.erode(weight.astype(np.float32), np.ones((3, 3), np.uint8))
    return {"l1": mean(np.abs(difference).mean(axis=2)), "l2": mean((difference ** 2).mean(axis=2)),
            "ssim": mean(ssim_map(result, truth)),
            "sharpness": gradient_energy(result, inside) / max(gradient_energy(truth, inside), 1e-9)}


def interval(values, people, seed=0):
    """95 % interval of a mean when the people in it are drawn anew: (low, high)."""
    rng, names = np.random.default_rng(seed), sorted(set(people))
    sums = np.array([[values[people == n].sum(), (people == n).sum()] for n in names])
    drawn = sums[rng.integers(len(names), size=(BOOTSTRAP, len(names)))].sum(axis=1)
    return [round(float(v), 4) for v in np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])]


# ---------------------------------------------------------------- methods

class Methods:
    """All methods on 256 x 256 textures of one chart."""

    def __init__(self, model, generator):
        atlas = build_atlas(model, SIZE)
        self._generator = generator
        self.masks = Masks.of(model)
        self._regions = [region_texture(model, n, atlas) for n in ("mouth_interior", "eyes", "eyebrows")]

    def __call__(self, name, source, t_source, target, expression):
        """The target's texture in [0, BRIGHTEST] by one method.

        Parameters
        ----------
        name : one of METHODS
        source, target : Clip
        t_source : int, the source's frame
        expression : str, its name
        """
        neutral, seen = _of(target, target.info.neutral)
        if name == "static":
            return neutral
        if name == "mean":
            change = self._generator.mean_changes.get(expression)
            if change is None:
                raise InputError(f"the weights know no average change to '{expression}'")
            return neutral + change
        texture, validity = _of(source, t_source)
        own, own_seen = _of(source, source.info.neutral)
        if name == "delta":
            return neutral + texture - own
        if name == "delta_local":
            return delta(Texture(neutral, seen), SourceTexture(texture, validity, own, own_seen, *self._regions))
        return self._generator.texture(texture, validity, neutral, seen)


def _of(clip, t):
    return decode(np.asarray(clip.textures[t])), np.asarray(clip.validity[t]) / np.float32(255)


def weights(target, t, masks):
    """Texels that are compared, by region: dict name -> (256, 256) float32."""
    truth, neutral = (np.asarray(target.validity[i]) / np.float32(255) for i in (t, target.info.neutral))
    seen = truth * np.maximum(neutral > 0.5, masks.mouth > 0.5) * masks.chart
    return {"whole": seen, "mouth_eyes": seen * (masks.features > 0.5)}


# ---------------------------------------------------------------- the table

def evaluate(clips, model, generator, dump=None, progress=True):
    """Table 1 over clips of photos.

    Parameters
    ----------
    clips : list of Clip, all of people that the weights do not know
    generator : TextureGenerator
    dump : Path or None, folder for every texture and validity map that is compared

    Returns
    -------
    dict, as TABLE.json holds it
    """
    methods, rows = Methods(model, generator), []
    pairs = [(a, b, n) for b in clips for n in b.info.frames if n != b.info.frames[b.info.neutral]
             for a in clips if a.info.identity != b.info.identity and n in a.info.frames]
    if not pairs:
        raise InputError("no two people with the same expression there; give ID_neutral.jpg and ID_EXPRESSION.jpg of "
                         "two people or more")
    known = [m for m in METHODS if m != "mean" or all(n in generator.mean_changes for _, _, n in pairs)]
    if dump is not None:
        _dump_inputs(dump, clips)
    seconds = []
    with progress_bar(len(pairs), "compare", "pair", progress) as bar:
        for source, target, expression in pairs:
            t_source, t = source.info.frames.index(expression), target.info.frames.index(expression)
            truth, _ = _of(target, t)
            areas = weights(target, t, methods.masks)
            for name in known:
                start = time.perf_counter()
                result = methods(name, source, t_source, target, expression)
                seconds += [time.perf_counter() - start] if name == "gan" else []
                codes = encode(result)
                if dump is not None:
                    _write(dump / name / f"{source.info.identity}_to_{target.info.identity}_{expression}.png", codes)
                for region, weight in areas.items():
                    if weight.sum() >= 1:
                        rows.append((name, region, target.info.identity,
                                     compare(codes, encode(truth).astype(float), weight)))
            bar.update()
    table = {m: _by_region([x for x in rows if x[0] == m]) for m in known}
    return {"people": sorted({c.info.identity for c in clips}), "pairs": len(pairs), "methods": table,
            "gan_ms_per_texture": round(1000 * float(np.median(seconds)), 2), "follows": following(clips, methods)}


def _by_region(rows):
    """Figures by region, of the regions that were seen at all."""
    return {r: _summary(found) for r in REGIONS if (found := [x for x in rows if x[1] == r])}


def _summary(rows):
    people = np.array([r[2] for r in rows])
    out = {}
    for figure in FIGURES:
        values = np.array([r[3][figure] for r in rows])
        out[figure] = round(float(values.mean()), 4)
        out[f"{figure}_95"] = interval(values, people)
    return out


def following(clips, methods):
    """Whether the source's expression shows in the result of `gan`.

    Every target gets each other person's expression. What a source's texture has of it, and what the result has, is
    measured in the same way, in `mouth_eyes`: the darkness and brightness of the inside of the mouth where the source
    shows it, and the change of the skin along the average change of all people. The correlation over the sources, for
    one target at a time, is 1 when stronger expressions make stronger ones and 0 when the source is ignored.

    Returns
    -------
    dict: `amount` (correlation of the change's strength), `mouth` (of the mouth's mean luminance), means over targets,
    and `still`, mean absolute change (of 255) that a neutral source causes
    """
    masks, amounts, mouths, stills = methods.masks, [], [], []
    for target in clips:
        own, _ = _of(target, target.info.neutral)
        strength, inside = [], []
        for source in clips:
            if source is target:
                continue
            base, _ = _of(source, source.info.neutral)
            result = methods("gan", source, source.info.neutral, target, None)
            seen = np.asarray(target.validity[target.info.neutral]) / 255.0 * masks.chart * (masks.mouth < 0.1)
            if seen.sum() >= 1:
                stills.append(float((np.abs(result - own).mean(axis=2) * seen).sum() / seen.sum()) * 255 / BRIGHTEST)
            for t, name in enumerate(source.info.frames):
                if t == source.info.neutral:
                    continue
                texture, validity = _of(source, t)
                made = methods("gan", source, t, target, name)
                change = masks.features * (masks.mouth < 0.1)
                axis = np.asarray(methods._generator.mean_changes.get(name, texture - base)) * change[..., None]
                strength.append([float(((x - y) * axis).sum()) for x, y in ((texture, base), (made, own))])
                shown = masks.mouth * (validity > 0.5)
                if shown.sum() > 20:
                    inside.append([float((x.mean(axis=2) * shown).sum() / shown.sum()) for x in (texture, made)])
        for pairs, into in ((strength, amounts), (inside, mouths)):
            if len(pairs) > 2:
                into.append(np.corrcoef(np.array(pairs).T)[0, 1])
    mean = lambda x: round(float(np.mean(x)), 3) if x else None
    return {"amount": mean(amounts), "mouth": mean(mouths), "still": mean(stills)}


def reenact(clips, lenders, model, generator, frames=40, progress=True):
    """People who re-enact themselves in another person's skin: the one case where the truth is known exactly.

    Parameters
    ----------
    clips : list of Clip, videos or photos
    lenders : list of Clip, people who lend their skins, in turn, nobody to himself
    frames : int, of each clip, spread evenly

    Returns
    -------
    dict group -> method -> region -> figures; a group is a video, or all photos; `mean` is there where it is known
    """
    methods, rows = Methods(model, generator), {}
    with progress_bar(len(clips), "re-enact", "clip", progress) as bar:
        for k, clip in enumerate(clips):
            others = [c for c in lenders if c.info.identity != clip.info.identity]
            dressed = _dressed(clip, others[k % len(others)], methods.masks)
            photos = clip.info.script == PHOTO_SCRIPT
            chosen = np.unique(np.linspace(0, len(clip) - 1, min(frames, len(clip))).astype(int))
            for t in chosen[chosen != clip.info.neutral]:
                truth, expression = _of(clip, t)[0], clip.info.frames[t]
                for name in METHODS:
                    if name == "mean" and expression not in generator.mean_changes:
                        continue
                    codes = encode(methods(name, dressed, t, clip, expression))
                    rows.setdefault("photos" if photos else clip.info.name, []).extend(
                        (name, region, clip.info.identity if photos else str(t),
                         compare(codes, encode(truth).astype(float), weight))
                        for region, weight in weights(clip, t, methods.masks).items() if weight.sum() >= 1)
            bar.update()
    return {group: {m: _by_region([x for x in found if x[0] == m]) for m in METHODS if any(x[0] == m for x in found)}
            for group, found in rows.items() if found}


def _dressed(clip, other, masks):
    """The clip in another person's skin, but for the inside of the mouth: a Clip."""
    own, new = _of(clip, clip.info.neutral)[0], _of(other, other.info.neutral)[0]
    smooth = lambda t: cv2.GaussianBlur(np.maximum(t, 0.05), (0, 0), 1.0)
    ratio = np.clip(smooth(new) / smooth(own), 0.4, 2.5)
    ratio += masks.mouth[..., None] * (1 - ratio)
    return replace(clip, textures=np.stack([encode(decode(np.asarray(t)) * ratio) for t in clip.textures]))


def noise_floor(clips, mirrored, masks):
    """What the fit's own noise leaves: figures of each texture against that of the mirrored photo, mirrored back.

    {} when there is no clip of `clips` among the `mirrored`.
    """
    other = {c.info.identity: c for c in mirrored}
    rows = []
    for clip in clips:
        twin = other.get(clip.info.identity)
        for t, name in enumerate(clip.info.frames):
            if twin is None or name not in twin.info.frames:
                continue
            a, b = _of(clip, t)[0], masks.atlas.mirrored(_of(twin, twin.info.frames.index(name))[0])
            for region, weight in weights(clip, t, masks).items():
                if weight.sum() >= 1:
                    rows.append(("floor", region, clip.info.identity,
                                 compare(encode(b), encode(a).astype(float), weight)))
    return _by_region(rows)


# ---------------------------------------------------------------- files

def _write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture)


def _dump_inputs(dump, clips):
    for clip in clips:
        for t, name in enumerate(clip.info.frames):
            _write(dump / "truth" / f"{clip.info.identity}_{name}.png", np.asarray(clip.textures[t]))
            _write(dump / "validity" / f"{clip.info.identity}_{name}.png", np.asarray(clip.validity[t]))


def strangers(inputs, generator, people=None):
    """The jobs of photos that show nobody the weights were trained or validated on.

    Parameters
    ----------
    inputs : list of Path
    people : list of str or None, only these

    Returns
    -------
    list of Job

    Raises
    ------
    InputError : when nobody is left
    """
    seen = {h for name in ("sha256", "validation_sha256") for h in json.loads(generator.meta.get(name, "[]"))}
    watched = () if "validation_sha256" in generator.meta else VALIDATION
    jobs = [j for j in find_jobs(inputs) if not j.is_video and (people is None or j.identity in people)]
    unknown = [j for j in jobs if j.identity not in watched and not any(file_hash(p) in seen for p in j.paths)]
    if len(unknown) < 2:
        raise InputError(f"{inputs[0]}: has fewer than two people that the weights were not trained or validated on; "
                         "give photos of others")
    return unknown


def _mirrored(jobs, folder):
    """Mirror images of the jobs' photos in a folder: list of Path."""
    out = []
    for path in (p for j in jobs for p in j.paths):
        out.append(Path(folder) / f"{path.stem}.png")
        write_picture(out[-1], read_image(path)[:, ::-1])
    return out


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m texgan.evaluate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photos ID_neutral.jpg and ID_EXPRESSION.jpg")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="TABLE.json")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="keep every texture and validity map there")
    parser.add_argument("--people", metavar="ID,ID", help="only these people")
    parser.add_argument("--weights", type=Path, metavar="GENERATOR.safetensors", help="default: the shipped ones")
    parser.add_argument("--dataset", type=Path, metavar="DATASET",
                        help="keep the extracted textures there, or take them from there")
    parser.add_argument("--clips", type=Path, metavar="DATASET", help="of videos, to re-enact themselves")
    parser.add_argument("--no-floor", action="store_true", help="leave out what the fit's own noise leaves")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    commands.add_common(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    commands.check_writable(args.out)
    if not args.folder.is_dir():
        raise InputError(f"{args.folder}: no such folder; give one with ID_neutral.jpg and ID_EXPRESSION.jpg")
    model = load_model(args.model)
    generator = TextureGenerator(model, args.weights, torch_device(args.device))
    fits_on = "cpu" if args.device == "cpu" else "auto"            # which need more than networks do, to be on a GPU
    videos = read_dataset(args.clips) if args.clips is not None else []
    check_chart(videos, model)
    jobs = strangers([args.folder], generator, args.people.split(",") if args.people else None)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = args.dataset or Path(scratch) / "photos"
        wrong = extract(jobs, dataset, args.model, workers=args.workers, device=fits_on)
        for name, error in wrong.items():
            print(f"left out {name}: {error}")
        wanted = {j.name for j in jobs}
        pick = lambda place: [c for c in read_dataset(place) if c.info.name in wanted
                              and c.info.script == PHOTO_SCRIPT]
        clips = pick(dataset)
        table = evaluate(clips, model, generator, args.dump)
        table["reenacted"] = reenact([*clips, *videos], clips, model, generator)
        if not args.no_floor:
            twins, used = Path(scratch) / "mirrored", {c.info.name for c in clips}
            pictures = _mirrored([j for j in jobs if j.name in used], scratch)
            lost = extract(find_jobs(pictures), twins, args.model, workers=args.workers, device=fits_on)
            for name, error in lost.items():
                print(f"left out of the floor {name}: {error}")
            table["floor"] = noise_floor(clips, pick(twins) if finished(twins) else [], Masks.of(model))
            table["left_out_of_floor"] = lost
    table["left_out"] = wrong
    with whole(args.out) as beside:
        beside.write_text(json.dumps(table, indent=1) + "\n")
    print_table(table)
    print(f"wrote {args.out}")
    return 3 if wrong else 0


def print_table(table):
    """Prints the table for people to read."""
    rows = dict(table["methods"])
    if "floor" in table:
        rows["floor"] = table["floor"]
    print(f"{table['pairs']} pairs of {len(table['people'])} people; follows {table['follows']}")
    _print_rows("", rows)
    for clip, methods in table.get("reenacted", {}).items():
        _print_rows(clip, methods)


def _print_rows(title, rows):
    for region in REGIONS:
        print(f"{f'{title} {region}'.strip():28s}" + "".join(f"{f:>24s}" for f in FIGURES))
        for name, values in rows.items():
            if region not in values:
                continue
            cells = [f"{values[region][f]:.3f} [{values[region][f + '_95'][0]:.3f}, {values[region][f + '_95'][1]:.3f}]"
                     for f in FIGURES]
            print(f"{name:28s}" + "".join(f"{c:>24s}" for c in cells))


if __name__ == "__main__":
    commands.run(main)
