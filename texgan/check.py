"""Checks a data set and draws a contact sheet of it.

    python -m texgan.check DATASET [-o SHEET.png]

Every clip is opened and its arrays are compared with what clip.json says; pictures of low quality and identities
without a second expression are counted. The sheet has a row per clip: the neutral texture, then frames spread over
its expressions, each above its confidence.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from facemodel import commands
from facemodel.errors import InputError
from texgan.dataset import SIZE, clip_folders, decode, read_clip, write_picture

POOR = 0.5
CELL = 128
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def faults(clip):
    """What is wrong with a Clip: list of str, empty when it is sound."""
    shapes = {"textures": (SIZE, SIZE, 3), "validity": (SIZE, SIZE), "confidence": (SIZE, SIZE)}
    found = [f"{name} is of shape {getattr(clip, name).shape[1:]}, expected {shape}"
             for name, shape in shapes.items() if getattr(clip, name).shape[1:] != shape]
    found += [f"{name} is {getattr(clip, name).dtype}, expected uint8"
              for name in shapes if getattr(clip, name).dtype != np.uint8]
    if not 0 <= clip.info.neutral < len(clip):
        found.append(f"neutral frame {clip.info.neutral} of {len(clip)}")
    if len(clip.info.quality) != len(clip):
        found.append(f"{len(clip.info.quality)} qualities for {len(clip)} frames")
    if not np.isfinite(clip.expression).all():
        found.append("expression is not finite")
    if not found:
        found += [f"frame {clip.info.frames[t]}: nothing of it is seen" for t in range(len(clip))
                  if not clip.validity[t].any()]
    return found


def distant_frames(clip, count):
    """Frames of a Clip whose expressions are far apart: the neutral one, then each time the farthest from all."""
    chosen = [clip.info.neutral]
    away = np.full(len(clip), np.inf)
    while len(chosen) < min(count, len(clip)):
        away = np.minimum(away, np.abs(clip.expression - clip.expression[chosen[-1]]).sum(axis=1))
        chosen.append(int(np.argmax(away)))
    return chosen


def sheet(clips, columns=6):
    """A contact sheet of Clips: (rows * 2 * CELL, columns * CELL, 3) uint8 RGB."""
    out = np.zeros((len(clips) * 2 * CELL, columns * CELL, 3), np.uint8)
    shrink = lambda a: cv2.resize(a, (CELL, CELL), interpolation=cv2.INTER_AREA)
    for row, clip in enumerate(clips):
        for column, t in enumerate(distant_frames(clip, columns)):
            at = np.s_[row * 2 * CELL:, column * CELL:(column + 1) * CELL]
            rgb = np.clip(decode(np.asarray(clip.textures[t])) * 255, 0, 255).astype(np.uint8)
            out[at][:CELL] = shrink(rgb)
            out[at][CELL:2 * CELL] = shrink(np.asarray(clip.confidence[t]))[..., None]
    return out


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m texgan.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder that texgan.extract wrote")
    parser.add_argument("-o", "--out", type=Path, metavar="SHEET.png", help="contact sheet; default: none is drawn")
    parser.add_argument("--rows", type=int, default=12, help="undamaged clips on the sheet, spread over the data set")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    if args.rows < 1:
        raise InputError(f"--rows {args.rows}: give 1 or more")
    if args.out is not None:
        commands.check_writable(args.out)
        if args.out.suffix.lower() not in SUFFIXES:
            raise InputError(f"{args.out}: can't be written as a picture; give a name that ends in .png")
    clips = [read_clip(folder) for folder in clip_folders(args.dataset)]
    broken = {c.info.name: f for c in clips if (f := faults(c))}
    for name, found in broken.items():
        print(f"{args.dataset}/clips/{name}: {'; '.join(found)}")
    poor = sum(q < POOR for c in clips for q in c.info.quality)
    alone = sum(len(c) == 1 for c in clips)
    print(f"{args.dataset}: {len(clips)} clips of {len({c.info.identity for c in clips})} people, "
          f"{sum(len(c) for c in clips)} frames, {poor} of quality below {POOR}, {alone} clips of a single frame")
    sound = [c for c in clips if c.info.name not in broken]
    if args.out is not None and sound:
        chosen = [sound[i] for i in np.unique(np.linspace(0, len(sound) - 1, min(args.rows, len(sound))).astype(int))]
        write_picture(args.out, sheet(chosen))
        print(f"wrote {args.out}")
    if broken:
        raise InputError(f"{args.dataset}: {len(broken)} damaged clips; delete their folders and run texgan.extract "
                         "again")


if __name__ == "__main__":
    commands.run(main)
