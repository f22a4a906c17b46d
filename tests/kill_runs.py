"""Kills compositing.replace with SIGKILL at random moments, goes on, and compares the file. Not part of the tests.

    python -m tests.kill_runs --folder /tmp/kill                                the demo, ten kills
    python -m tests.kill_runs --folder /tmp/kill --kills 10 -- two.mp4 --pair 1=a.jpg --pair 2=b.jpg

Everything behind `--` is the command line of compositing.replace, without -o. Work is kept every PIECE frames in place
of 250, so that short clips have something to go on from. Ends with status 1 when a file differs from that of the
undisturbed run, or when anything is left behind beside it.
"""
from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import assets

ROOT, PIECE = Path(__file__).parents[1], 12
DRIVER = f"""
import sys
import compositing.pieces, compositing.replace, fitting.checkpoint
from facemodel import commands
compositing.pieces.PIECE = fitting.checkpoint.EVERY = {PIECE}
commands.run(compositing.replace.main, sys.argv[1:])
"""


def start(folder: Path, command: list[str], out: str) -> subprocess.Popen:
    """A run in a process of its own."""
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen([sys.executable, "-c", DRIVER, *command, "-o", out], cwd=folder, stdout=log, stderr=log,
                                env={**os.environ, "PYTHONPATH": str(ROOT)})


def where(folder: Path, out: str) -> str:
    """What the killed run had kept."""
    kept = sorted(str(p.relative_to(folder)) for p in (folder / f"{out}.work").rglob("*") if p.suffix == ".npz")
    stages = {name: sum(f"/{name}" in k for k in kept) for name in ("tracking_", "track_", "result_")}
    return ", ".join(f"{count} {name.strip('_')}" for name, count in stages.items() if count) or "nothing"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="is made; must be empty")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=0.7, help="kill after this share of the whole run at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("command", nargs="*", help="of compositing.replace, without -o; default the demo's")
    args = parser.parse_args(argv)
    folder, dice = args.folder, random.Random(args.seed)
    folder.mkdir(exist_ok=True)
    command = args.command or [str(assets.path("demo/single_face.mp4")), str(assets.path("demo/nobody.png"))]
    command = [str(Path(x).absolute()) if Path(x).is_file() else x for x in command]
    begun = time.monotonic()
    if start(folder, command, "whole.mp4").wait() not in (0, 3):
        sys.exit(f"the undisturbed run failed; see {folder}/log.txt")
    took = time.monotonic() - begun
    whole, kills, rounds, bad = (folder / "whole.mp4").read_bytes(), 0, 0, 0
    print(f"undisturbed: {took:.0f} s, {len(whole)} bytes", flush=True)
    while kills < args.kills:
        rounds += 1
        out = f"out{rounds}.mp4"
        while True:
            process, wait = start(folder, command, out), took * dice.uniform(0.05, args.longest)
            try:
                if kills < args.kills:
                    process.wait(wait)
                else:
                    process.wait()
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"killed {out} after {wait:.1f} s; kept: {where(folder, out)}", flush=True)
        same = process.returncode in (0, 3) and (folder / out).read_bytes() == whole
        left = [p.name for p in folder.iterdir() if p.name.startswith(".") or p.name.endswith(".work")]
        bad += not same or bool(left)
        print(f"{out}: status {process.returncode}, {'identical' if same else 'DIFFERS'}, left behind: {left or '-'}",
              flush=True)
    print(f"{kills} kills, {rounds} files, {bad} wrong")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
