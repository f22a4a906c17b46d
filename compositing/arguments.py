"""The command line of compositing.replace: its options, and what is wrong with them, said before any work.

What compositing.animate has of it, too, is in add_shared and check_shared.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import assets
from compositing import credentials, labelling
from compositing.beard import MODES as BEARDS
from compositing.graph_cut import COSTS
from compositing.occlusion import MODES
from compositing.pairs import Pair, parse_pairs
from compositing.report import report_path
from compositing.tone import SKIN
from compositing.video_writer import SUFFIXES
from compositing.virtual import check_seed
from compositing.workdir import WorkDir
from facemodel import commands
from facemodel.errors import InputError
from fitting.span import parse_edge
from texgan.transfer import METHODS


def add_shared(parser):
    """Adds the options that compositing.animate has, too, in the same words."""
    parser.add_argument("--weights", type=Path, metavar="GENERATOR.safetensors",
                        help="of the generator (texgan.train); default: the embedded ones")
    parser.add_argument("--crf", type=float, metavar="Q",
                        help="H.264 quality, 0 (lossless) to 51; default visually lossless")


def check_shared(args, out):
    """Raises InputError, before any work, for a quality, a result or a track that can't be, or would hit other files.

    args : with source, target, crf and track
    """
    if args.crf is not None and not 0 <= args.crf <= 51:
        raise InputError(f"--crf {args.crf:g}: give a number from 0 to 51")
    inputs = inputs_of(args)
    commands.check_writable(out, inputs=[*inputs, args.track])
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out}: unknown suffix '{out.suffix}'; name the output {', '.join(SUFFIXES)}")
    commands.check_writable(report_path(out), inputs=[*inputs, args.track])
    if args.track is not None:
        commands.check_writable(args.track, "--track", inputs)


def inputs_of(args):
    """Paths that a command reads, None among them: of the video, photos, weights and mask."""
    pairs = getattr(args, "pair", None) or ()
    return [args.source, args.target, *(pair.target for pair in pairs), args.weights, getattr(args, "mask", None)]


def build_parser(description=None):
    """The parser; its --help begins with `description`."""
    parser = argparse.ArgumentParser(prog="python -m compositing.replace", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE.mp4", help="the video")
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET.jpg", help="a photo of the face to put in")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT.mp4",
                        help="result (.mp4, .mov or .mkv); default SOURCE_TARGET.mp4 in the present folder")
    parser.add_argument("--virtual", type=int, metavar="SEED", help="a face that belongs to nobody in place of TARGET")
    parser.add_argument("--texture", choices=METHODS, default="gan",
                        help="how the target gets its expression: the trained generator infers it ('gan', default), "
                             "the source's change is added ('delta'), or the photo's texture stays ('static')")
    parser.add_argument("--face", default="largest", metavar="N",
                        help="face of the video: 'largest' (default), 'leftmost', 'rightmost' or a number, from the "
                             "left, in its first frame with one; that person is followed through the clip")
    parser.add_argument("--pair", action="append", metavar="N=TARGET.jpg",
                        help="replace face number N, counted likewise, by this photo; once for each of several faces, "
                             "in place of TARGET and --face. N=virtual:SEED takes a face of nobody")
    parser.add_argument("--target-face", default="largest", metavar="N", help="face of the photo (of each), likewise")
    parser.add_argument("--track", type=Path, metavar="TRACK.npz",
                        help="track of the video (fitting.track): read if the file exists, else written there; "
                             "holds one face (several are kept by --work)")
    parser.add_argument("--seam", choices=COSTS, default="between",
                        help="what a seam costs: the difference 'between' the pictures (Kwatra et al.) or 'within' "
                             "each, eq. 9 (default: %(default)s)")
    parser.add_argument("--skin", choices=SKIN, default="auto",
                        help="whose tone the face has inside, at its border it is always the source's: the 'target's, "
                             "the 'source's, or the target's as far as the neck allows ('auto', default)")
    parser.add_argument("--mask", type=Path, metavar="VIDEO",
                        help="a video of the source's size, frame by frame beside it, white where nothing is ever "
                             "painted: a hand, a microphone")
    parser.add_argument("--occlusion", choices=MODES, default="auto",
                        help="keep in front what lies before the face, found by itself: hands, things, the frame of "
                             "glasses, and leave such things in the photo out ('auto', default); 'off' paints over all "
                             "but --mask and takes the photo as it is")
    parser.add_argument("--beard", choices=BEARDS, default="keep",
                        help="'keep' (default) a beard that the photo shows as far as the face goes, or take it 'off', "
                             "since on another head it ends at the jaw")
    parser.add_argument("--start", metavar="T",
                        help="replace from here on: seconds (12.5), a clock (1:02.5) or a frame (300f); default: from "
                             "the first frame")
    parser.add_argument("--end", metavar="T",
                        help="replace up to here, likewise; the frame at T itself stays. Frames outside are tracked "
                             "and changed by nothing, they pass through the encoder once")
    parser.add_argument("--compare", type=Path, metavar="VIDEO", help="also write the source beside the result")
    parser.add_argument("--debug", type=Path, metavar="VIDEO",
                        help="also write source, mesh, texture, seam and result side by side")
    add_shared(parser)
    labelling.add_option(parser)
    credentials.add_option(parser)
    parser.add_argument("--work", type=Path, metavar="DIR",
                        help="folder for unfinished work, which the same command goes on from after it was stopped or "
                             "killed; keeps tracks and fits for other photos and settings. Default: OUT.mp4.work, "
                             "removed at the end")
    parser.add_argument("--no-resume", action="store_true", help="start anew, forget what is in the work folder")
    parser.add_argument("--demo", action="store_true", help="run on the embedded clip and face; default OUT demo.mp4")
    commands.add_common(parser)
    return parser


def _check_views(args, out):
    """Raises InputError, before any work, for a --compare or --debug that can't be written or would hit other files."""
    taken_names = {out.resolve(): "the result"}
    for option, path in (("--compare", args.compare), ("--debug", args.debug)):
        if path is None:
            continue
        commands.check_writable(path, option, inputs=[*inputs_of(args), args.track])
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{option} {path}: unknown suffix '{path.suffix}'; name it {', '.join(SUFFIXES)}")
        if path.resolve() in taken_names:
            raise InputError(f"{option} {path}: is {taken_names[path.resolve()]} itself; choose another name")
        taken_names[path.resolve()] = f"the video of {option}"


def _inputs(args):
    """(source, target, pairs or None): what is to be done, with the demo's files for --demo."""
    source, target = args.source, args.target
    if args.demo:
        if source or target or args.pair:
            raise InputError("--demo brings its own video and photo; leave SOURCE, TARGET and --pair out")
        source, target = assets.path("demo/single_face.mp4"), assets.path("demo/nobody.png")
        target = None if args.virtual is not None else target
    if source is None:
        raise InputError("no video given; usage: python -m compositing.replace SOURCE.mp4 TARGET.jpg")
    if args.pair:
        for given, name in ((target, "TARGET"), (args.virtual, "--virtual")):
            if given is not None:
                raise InputError(f"{name} {given}: --pair says whose face to put in; leave {name} out")
        if args.face != "largest":
            raise InputError(f"--face {args.face}: --pair says which faces to replace; leave --face out")
        pairs = parse_pairs(args.pair)
        if args.track is not None and len(pairs) > 1:
            raise InputError(f"--track {args.track}: holds one face; with several --pair keep the tracks by --work DIR")
        return source, None, pairs
    if (target is None) == (args.virtual is None):
        raise InputError("give either TARGET.jpg or --virtual SEED")
    if args.virtual is not None:
        check_seed(args.virtual, "--virtual")
    return source, target, None


def parse(argv=None, description=None):
    """The command line, checked.

    Returns
    -------
    argparse.Namespace with source and out filled in, pair a list of compositing.pairs.Pair or None, start and end
    fitting.span.Edge or None, and work a compositing.workdir.WorkDir that is not open yet

    Raises
    ------
    InputError : what can't be done, or would hit other files
    """
    args = build_parser(description).parse_intermixed_args(argv)         # SOURCE -o OUT TARGET is understood, too
    args.source, args.target, args.pair = _inputs(args)
    names = "_".join(pair.name for pair in args.pair or [Pair(args.face, args.target, args.virtual)])
    args.out = out = args.out or Path("demo.mp4" if args.demo else f"{args.source.stem}_{names[:100]}.mp4")
    check_shared(args, out)
    labelling.check_label(args.label)
    credentials.check_signing(args.sign, out)
    _check_views(args, out)
    args.start, args.end = (None if text is None else parse_edge(text, option)
                            for text, option in ((args.start, "--start"), (args.end, "--end")))
    args.work = WorkDir(args.work or out.with_name(out.name + ".work"), keep=args.work is not None,
                        resume=not args.no_resume)
    return args
