"""Puts the face of a photo into a video.

    python -m compositing.replace source.mp4 target.jpg -o out.mp4
    python -m compositing.replace --demo

The face in source.mp4 is tracked, the photo's face is given its expression, pose and light, and a graph cut decides
where one picture ends and the other begins. Frames without a usable face are passed through and listed in
OUT.report.json. The output says in its metadata that it is synthetic. Ask the people you show: see README.md, Consent.

A run that was stopped, killed or ran out of disk goes on when the same command is given again; see --work.

Exit status: 0 when the output is whole, 3 when it is finished, but more than 10 % of its frames had to be passed
through, 1 on errors (one line on stderr, nothing half-written), 2 when the command line can't be understood, 130 when
interrupted.
"""
from __future__ import annotations

import argparse
from collections import deque
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import assets
from compositing import credentials, labelling, seam, views
from compositing.graph_cut import COSTS, SeamLabeller
from compositing.performer import TexturePerformer
from compositing.pieces import composite_pieces
from compositing.presence import Mask, presence
from compositing.report import (
    StageTimer,
    build_report,
    exit_status,
    range_words,
    synthetic_marks,
    write_report,
)
from compositing.retarget import (
    Rendering,
    reduced,
    render,
    retarget_expression,
    seat_on,
    target_from_photo,
    texture_size_for,
)
from compositing.sharpness import SharpnessMatch
from compositing.tone import SKIN, ToneMatch
from compositing.video_writer import SUFFIXES, VideoWriter
from compositing.virtual import check_seed, virtual_face
from compositing.workdir import WorkDir, kept_fit, kept_track, remove_leftovers, result_journal, told_where
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting import commands
from fitting.detection import FaceDetector
from fitting.fit import fit_image, taken
from fitting.images import read_image
from fitting.lift import Lifter, Texture
from fitting.progress import progress_bar
from fitting.solver import NUMBA, engine_for
from fitting.span import cut_track, parse_edge, resolve_span
from fitting.track import read_pictures, track_clip
from fitting.trackfile import file_hash, load_track, save_track
from fitting.video_reader import WHOLE, Span, VideoFrame, VideoReader, probe
from texgan.transfer import METHODS, static, transfer_method

SOURCE_TEXTURE_SIZE = 512
NEUTRAL_FRAMES = 5            # that the source's neutral texture is the median of


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits for its labels, with its rendering, its texture if it will be shown, and what limits both.

    presence : float, weight of the target; keep : (H, W) float32, weight of painting in each pixel, or None for 1
    """

    frame: VideoFrame
    rendering: Rendering
    texture: np.ndarray | None = None
    presence: float = 1.0
    keep: np.ndarray | None = None


class Compositor:
    """Turns tracked frames of the source into finished ones, in order, with a latency of one seam window.

    Parameters
    ----------
    model : MorphableModel
    track : Track of the source
    target : TargetFace
    method : what infers the target's texture, see texgan.transfer; default static
    source_neutral : fitting.lift.Texture, the source's neutral one, for methods that need the source
    cost, smoothness : of compositing.graph_cut
    timer : StageTimer that the stages are added to
    skin : whose tone the face has, one of compositing.tone.SKIN
    mask : optional compositing.presence.Mask of what is never painted
    inspect : keep for every frame what it was made from, in `inspection`
    """

    def __init__(self, model, track, target, method=static, source_neutral=None, cost="between", smoothness=1e-3,
                 timer=None, skin="auto", mask=None, inspect=False):
        self._model, self._track, self._target = model, track, target
        self._labeller = SeamLabeller(model.coarse_edges, cost=cost, smoothness=smoothness)
        self._inner, self._outer = seam.seam_regions(model)
        nodes = model.coarse_index
        self._tone = ToneMatch(model.uv[nodes], ~self._inner & (model.regions["face"][nodes] > 0.9), self._outer, skin)
        self._expression = retarget_expression(model, track, target)
        self._seat = seat_on(model, target.identity, track.identity)
        self._sharpness, self._mask, self._presence = SharpnessMatch(), mask, presence(track.status)
        self._waiting, self._broken = deque(), True
        self._timer = timer or StageTimer()
        self._textures = TexturePerformer(model, track, target.texture, method, source_neutral, self._timer)
        self._inspect, self._shown = inspect, None
        self.inspection = None      # compositing.views.Inspection of the frame yielded last

    def push(self, frame):
        """Takes the next VideoFrame; yields (frame, rgb, alpha) for frames that are finished.

        rgb : (H, W, 3) float32 in [0, 1], alpha : (H, W) float32, 0 where the source is untouched; both None for a
        frame that is passed through
        """
        t = frame.index - int(self._track.frame_index[0])
        usable = 0 <= t < len(self._track) and self._track.status[t] == "ok"
        rendering = self._render(frame, t) if usable else None
        if rendering is None:
            yield from self._finish(self._labeller.flush())
            self.inspection = None
            yield frame, None, None
            self._broken = True
            self._textures.reset()
            return
        with self._timer("seam"):
            keep = self._mask and self._mask.keep(frame.index)
            labels = self._label(frame, rendering, keep)
        self._waiting.append(_Waiting(frame, rendering, self._shown, float(self._presence[t]), keep))
        yield from self._finish(labels)

    def flush(self):
        """Yields the frames that still wait."""
        yield from self._finish(self._labeller.flush())

    def settle(self):
        """Yields the frames that still wait; the next frame continues them. Then `state` can be taken."""
        yield from self._finish(self._labeller.settle())

    def state(self):
        """All that is remembered from frame to frame, as plain data (see fitting.checkpoint); after `settle`."""
        return {"tone": self._tone.state(), "sharpness": self._sharpness.state(), "broken": self._broken,
                "labeller": self._labeller.state(), "textures": self._textures.state()}

    def restore(self, state):
        """Goes on from a state of a compositor of the same settings."""
        self._broken = state["broken"]
        self._tone.restore(state["tone"])
        self._sharpness.restore(state["sharpness"])
        self._labeller.restore(state["labeller"])
        self._textures.restore(state["textures"])

    def _render(self, frame, t):
        model, track = self._model, self._track
        with self._timer("decode"):
            rgb = frame.rgb                       # computed on first use
        texture = self._textures(rgb, t)
        self._shown = views.thumbnail(texture) if self._inspect else None
        with self._timer("render"):
            return render(model, self._target.identity, texture, self._expression[t], track.rotation[t],
                          track.translation[t], track.light[t], track.focal, track.principal_point, rgb.shape[:2],
                          self._seat)

    def _label(self, frame, rendering, keep):
        left, top, right, bottom = rendering.window
        nodes = self._model.coarse_index
        crop = frame.rgb[top:bottom, left:right].astype(np.float32) / 255
        xy = rendering.posed.xy[nodes] - np.float32([left, top])
        source, target = seam.sample(crop, xy), seam.sample(rendering.rgb, xy)
        visible = seam.visible_vertices(rendering, nodes)
        if self._broken:
            self._tone.reset()
            self._sharpness.reset()
        free = visible if keep is None else visible & (seam.sample(keep[top:bottom, left:right], xy) > 0.5)
        gain = self._tone.gain(source, target, free)
        seam.tint(self._model, rendering, gain)
        inside = seam.label_mask(self._inner & free, self._model, rendering) > 0.5
        rendering.rgb[:] = self._sharpness(crop, rendering.rgb, inside)
        target = np.clip(target * gain, 0, 1)
        hard_source = self._outer | ~visible
        reach = seam.reach(source, target)
        labels = self._labeller.push(source, target, hard_source & ~(self._inner & visible), self._inner & visible,
                                     cost_source=reach, reset=self._broken)
        self._broken = False
        return labels

    def _finish(self, labels):
        for label in labels:
            waiting = self._waiting.popleft()
            with self._timer("blend"):
                left, top, right, bottom = waiting.rendering.window
                alpha = seam.blend_alpha(label, self._model, waiting.rendering) * np.float32(waiting.presence)
                if waiting.keep is not None:
                    alpha *= waiting.keep[top:bottom, left:right]
                picture = waiting.frame.rgb.astype(np.float32) / 255
                window = picture[top:bottom, left:right]
                picture[top:bottom, left:right] = seam.composite(window, waiting.rendering, alpha)
                whole = np.zeros(picture.shape[:2], np.float32)
                whole[top:bottom, left:right] = alpha
            if self._inspect:
                self.inspection = views.inspection_of(self._model, waiting.rendering, label, waiting.texture)
            yield waiting.frame, picture, whole


def calm_frames(track, usual=0.0, count=NEUTRAL_FRAMES):
    """Trusted frames with little expression and a face to the camera: (n,) int, n <= count, in order of time.

    usual : (n_exp,) float, what expression is measured from; default the model's neutral face
    """
    usable = np.flatnonzero(track.status == "ok")
    effort = ((track.expression[usable] - usual) ** 2).sum(axis=1) + 2 * (track.rotation[usable] ** 2).sum(axis=1)
    calm = usable[np.argsort(effort, kind="stable")[:max(count, len(usable) // 20)]]
    return np.sort(calm)[np.linspace(0, len(calm) - 1, min(count, len(calm))).astype(int)]


def neutral_source_texture(model, track, path, size=SOURCE_TEXTURE_SIZE, frames=None):
    """The source's neutral texture: per texel the median over `frames`, by default those of calm_frames.

    One frame alone would stamp its own shading and its slight expression, negated, on every other frame.

    Returns
    -------
    fitting.lift.Texture, (size, size, 3), seen in at least half of the frames where its validity is not 0
    """
    chosen = calm_frames(track) if frames is None else frames
    lifter = Lifter(model, size)
    pictures = read_pictures(path, track.frame_index[chosen])
    lifted = [lifter.neutral(image, track, t) for t, image in zip(chosen, pictures)]
    return Texture(np.median([x.rgb for x in lifted], axis=0), np.median([x.validity for x in lifted], axis=0))


@threadpool_limits.wrap(limits=1, user_api="blas")        # see fitting.track.track_clip
def replace_face(source, target, out, *, model, detector, texture="gan", face="largest", target_face="largest",
                 virtual=None, track_path=None, cost="between", smoothness=1e-3, crf=None, progress=True, timer=None,
                 engine=NUMBA, weights=None, device="cpu", label_text=None, signing=None, start=None, end=None,
                 compare=None, debug=None, work=None, skin="auto", mask=None):
    """Replaces a face in a video; writes `out` and `out`.report.json.

    Parameters
    ----------
    source : path of a video
    target : path of a photo, or None with `virtual`
    out : path of the result (.mp4, .mov, .mkv)
    model : MorphableModel
    detector : FaceDetector
    texture : name of a method in texgan.transfer.METHODS
    face, target_face : which face of the video, of the photo: 'largest' or a number counted from the left
    virtual : int seed for a face of nobody in place of a photo
    track_path : optional TRACK.npz of the source: read if it exists, otherwise written
    cost, smoothness : of the seam, see compositing.graph_cut
    crf : H.264 quality; default that of VideoWriter
    progress : bool, show on stderr how far the work has come
    timer : StageTimer that the stages are added to; by default a new one
    engine : fitting.solver.Engine
    weights : path of the texture generator's weights; default the shipped ones
    device : 'cpu' or 'cuda', where the generator runs
    label_text : optional str, a visible label for the replaced frames, see compositing.labelling
    signing : optional paths of a certificate and its key, see compositing.credentials
    start, end : fitting.span.Edge or None, the part in which the face is replaced; other frames are passed through
    compare, debug : optional paths of further videos, see compositing.views
    work : compositing.workdir.WorkDir, open, in which unfinished work is found and kept; default none
    skin : whose tone the face has, one of compositing.tone.SKIN
    mask : optional path of a video of the source's size, white where nothing is painted

    Returns
    -------
    dict, the report

    Raises
    ------
    InputError : unusable input, or not one frame could be replaced; nothing is written then
    """
    timer, remarks = timer or StageTimer(), []
    out = Path(out)
    info, known = probe(source), None             # says what is wrong with the video before any work is done
    labelling.check_label(label_text, info.height, info.width)
    held = Mask(mask, source) if mask is not None else nullcontext()
    span = resolve_span(source, start, end)
    method = transfer_method(texture, model, weights, device)
    if track_path is not None and Path(track_path).is_file():
        known = load_track(track_path, model)
        known = check_track(known, track_path, source, face, info, span)
    with timer("target"):
        if virtual is not None:
            person, target_hash = virtual_face(model, virtual), f"virtual face, seed {virtual}"
        else:
            image, target_hash = read_image(target), file_hash(target)
            fit, count = kept_fit(work, model, target_hash, target_face, engine, lambda: fit_image(
                model, image, detector, target_face, target, option="--target-face", engine=engine))
            if count > 1:
                remarks.append(f"{target}: {count} faces, took {taken(target_face)}; choose with --target-face N, "
                               "counted from the left")
            person = target_from_photo(model, image, fit)
    with timer("track"):
        track = known
        if track is None:
            track, more = kept_track(work, model, source, face, span, engine, lambda folder: track_clip(
                model, source, detector, face, progress=progress, engine=engine, span=span, folder=folder))
            remarks += more
            if track_path is not None:
                save_track(track, track_path)
    source_hash = str(track.source_sha256)
    if not (track.status == "ok").any():
        raise InputError(f"{source}: in none of {len(track)} frames could a face be followed well enough; nothing "
                         "written")
    person = reduced(person, texture_size_for(model, track))
    source_size = min(SOURCE_TEXTURE_SIZE, person.texture.rgb.shape[0])
    neutral = None
    if method is not static:
        with timer("neutral texture"):
            neutral = neutral_source_texture(model, track, source, source_size)
    compositor = Compositor(model, track, person, method, neutral, cost, smoothness, timer, skin,
                            mask=held if mask is not None else None, inspect=debug is not None)
    labeller = labelling.Labeller(label_text, info.height, info.width, track.landmarks, track.frame_index[0])
    replaced = np.zeros(len(track), bool)
    settings = {"texture": texture, "weights": None if weights is None else str(weights), "face": face,
                "target_face": target_face, "virtual": virtual, "seam_cost": cost,
                "seam_smoothness": smoothness, "skin": skin, "mask": mask and file_hash(mask),
                "texture_size": person.texture.rgb.shape[0], "crf": crf,
                "label": label_text, "start": start and start.text, "end": end and end.text}
    journal = result_journal(work, model, track, target_hash, settings, weights, engine, device,
                             [compare is not None, debug is not None])
    options = {"keep_pieces": journal is not None}
    if work is not None:
        for path in filter(None, (out, compare, debug)):
            remove_leftovers(Path(path))
    marks = synthetic_marks(source_hash, target_hash)
    quality = {} if crf is None else {"crf": crf}
    done = 0 if journal is None or not journal.count else journal.state["end"]
    with VideoReader(source, Span(done)) as reader:
        with ExitStack() as stack:
            stack.enter_context(held)
            writer = stack.enter_context(VideoWriter(out, reader, metadata=marks, **quality, **options))
            shown = [stack.enter_context(views.ViewWriter(path, kind, reader, model.coarse_edges, metadata=marks,
                                                           **options))
                     for kind, path in (("compare", compare), ("debug", debug)) if path is not None]

            total = len(track) if span == WHOLE else reader.info.frame_count_estimate
            with progress_bar(total, "composite", show=progress) as bar:
                composite_pieces(timer.each("decode", reader), compositor, writer, shown, replaced, journal,
                                 first=span.first, timer=timer, bar=bar, label=labeller.draw)
            if not replaced.any():
                raise InputError(f"{source}: no frame could be replaced; nothing written")
            frames = writer.frames_written
        if reader.damage and reader.damage not in remarks:
            remarks.append(reader.damage)
        if writer.audio_damage:
            remarks.append(writer.audio_damage)
    inputs = {"source": str(source), "source_sha256": source_hash,
              "target": str(target) if virtual is None else target_hash, "target_sha256": target_hash}
    if signing:
        with timer("sign"):
            credentials.sign(out, *signing, inputs, settings)
    report = build_report(inputs, settings, track, replaced, timer, frames, remarks)
    write_report(report, report_path(out))
    if work is not None:
        work.finish()
    return report


def check_track(track, path, source, face, info, span=WHOLE):
    """The span's part of a track; InputError when it is of something else than `source`, or of another of its faces."""
    remedy = "give another name with --track, or delete it to track again"
    if tuple(track.image_size) != (info.height, info.width):
        raise InputError(f"{path}: is the track of a clip of another size than {source}; {remedy}")
    if str(track.source_sha256) != file_hash(source):
        raise InputError(f"{path}: is the track of another clip than {source}; {remedy}")
    if str(track.face) != face:
        raise InputError(f"{path}: was made with --face {track.face}, not {face}; {remedy}")
    part = cut_track(track, span)
    if part is None:
        raise InputError(f"{path}: holds frames {track.frame_index[0]}-{track.frame_index[-1]} only, which is not all "
                         f"that is to be replaced; {remedy}")
    return part


def report_path(out):
    """Where the report of a result lies."""
    return Path(out).with_name(Path(out).name + ".report.json")


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m compositing.replace", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE.mp4", help="the video")
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET.jpg", help="a photo of the face to put in")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT.mp4",
                        help="result (.mp4, .mov or .mkv); default SOURCE_TARGET.mp4 in the present folder")
    parser.add_argument("--virtual", type=int, metavar="SEED", help="a face that belongs to nobody in place of TARGET")
    parser.add_argument("--texture", choices=METHODS, default="gan",
                        help="how the target gets its expression: the trained generator infers it ('gan', default), "
                             "the source's change is added ('delta'), or the photo's texture stays ('static')")
    parser.add_argument("--weights", type=Path, metavar="GENERATOR.safetensors",
                        help="of the generator (texgan.train); default: the embedded ones")
    parser.add_argument("--face", default="largest", metavar="N",
                        help="face of the video: 'largest' or a number, from the left in its first frame with one")
    parser.add_argument("--target-face", default="largest", metavar="N", help="face of the photo, likewise")
    parser.add_argument("--track", type=Path, metavar="TRACK.npz",
                        help="track of the video (fitting.track): read if the file exists, else written there")
    parser.add_argument("--seam", choices=COSTS, default="between",
                        help="what a seam costs: the difference 'between' the pictures (Kwatra et al.) or 'within' "
                             "each, eq. 9 (default: %(default)s)")
    parser.add_argument("--skin", choices=SKIN, default="auto",
                        help="whose tone the face has inside, at its border it is always the source's: the 'target's, "
                             "the 'source's, or the target's as far as the neck allows ('auto', default)")
    parser.add_argument("--mask", type=Path, metavar="VIDEO",
                        help="a video of the source's size, frame by frame beside it, white where nothing is ever "
                             "painted: a hand, a microphone")
    parser.add_argument("--start", metavar="T",
                        help="replace from here on: seconds (12.5), a clock (1:02.5) or a frame (300f); default: from "
                             "the first frame")
    parser.add_argument("--end", metavar="T",
                        help="replace up to here, likewise; the frame at T itself stays. Frames outside are tracked "
                             "and changed by nothing, they pass through the encoder once")
    parser.add_argument("--compare", type=Path, metavar="VIDEO", help="also write the source beside the result")
    parser.add_argument("--debug", type=Path, metavar="VIDEO",
                        help="also write source, mesh, texture, seam and result side by side")
    parser.add_argument("--crf", type=float, metavar="Q",
                        help="H.264 quality, 0 (lossless) to 51; default visually lossless")
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


def _check_views(args, source, out):
    """Raises InputError, before any work, for a --compare or --debug that can't be written or would hit other files."""
    taken_names = {source.resolve(): "the source", out.resolve(): "the result"}
    for option, path in (("--compare", args.compare), ("--debug", args.debug)):
        if path is None:
            continue
        commands.check_writable(path, option)
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{option} {path}: unknown suffix '{path.suffix}'; name it {', '.join(SUFFIXES)}")
        if path.resolve() in taken_names:
            raise InputError(f"{option} {path}: is {taken_names[path.resolve()]} itself; choose another name")
        taken_names[path.resolve()] = f"the video of {option}"


def main(argv=None):
    args = build_parser().parse_intermixed_args(argv)         # SOURCE -o OUT TARGET is understood, too
    backend = backend_for(args.device)
    source, target, out = args.source, args.target, args.out
    if args.demo:
        if source or target:
            raise InputError("--demo brings its own video and photo; leave SOURCE and TARGET out")
        source, target = assets.path("demo/single_face.mp4"), assets.path("demo/nobody.png")
        out = out or Path("demo.mp4")
        target = None if args.virtual is not None else target
    if source is None:
        raise InputError("no video given; usage: python -m compositing.replace SOURCE.mp4 TARGET.jpg")
    if (target is None) == (args.virtual is None):
        raise InputError("give either TARGET.jpg or --virtual SEED")
    if args.crf is not None and not 0 <= args.crf <= 51:
        raise InputError(f"--crf {args.crf:g}: give a number from 0 to 51")
    name = f"virtual{args.virtual}" if target is None else target.stem
    out = out or Path(f"{source.stem}_{name}.mp4")
    if args.virtual is not None:
        check_seed(args.virtual, "--virtual")
    commands.check_writable(out)
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out}: unknown suffix '{out.suffix}'; name the output {', '.join(SUFFIXES)}")
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out}: is the source itself; choose another name with -o")
    commands.check_writable(report_path(out))
    labelling.check_label(args.label)
    credentials.check_signing(args.sign, out)
    _check_views(args, source, out)
    if args.track is not None:
        commands.check_writable(args.track, "--track")
    start, end = (None if text is None else parse_edge(text, option)
                  for text, option in ((args.start, "--start"), (args.end, "--end")))
    work = WorkDir(args.work or out.with_name(out.name + ".work"), keep=args.work is not None,
                   resume=not args.no_resume)
    model = load_model(args.model)
    with work, told_where(work):
        report = replace_face(source, target, out, model=model, detector=FaceDetector(),
                              engine=engine_for(model, backend), texture=args.texture, face=args.face,
                              target_face=args.target_face, virtual=args.virtual, track_path=args.track,
                              cost=args.seam, crf=args.crf, weights=args.weights,
                              device=backend.torch_device or "cpu", label_text=args.label, signing=args.sign,
                              start=start, end=end, compare=args.compare, debug=args.debug, work=work,
                              skin=args.skin, mask=args.mask)
    for remark in report["remarks"]:
        print(remark)
    stages = ", ".join(f"{k} {v:.0f}" for k, v in report["milliseconds_per_frame"].items())
    wanted = report["frames"] - report["outside_span"]
    passed = wanted - report["replaced"]
    outside = f", {report['outside_span']} outside the span unchanged" if report["outside_span"] else ""
    where = f" (frames {range_words(report['passed_through'])})" if passed else ""
    memory = f"; peak memory {report['peak_memory_mb']} MB" if report["peak_memory_mb"] else ""
    for path in filter(None, (args.compare, args.debug)):
        print(f"wrote {path}")
    print(f"wrote {out}: {report['replaced']} of {wanted} frames replaced, {passed} passed through{where}{outside}; "
          f"ms per frame: {stages}{memory}; details in {report_path(out)}")
    return exit_status(report)


if __name__ == "__main__":
    commands.run(main)
