"""Brings a photo to life with the expressions of a video.

    python -m compositing.animate source.mp4 target.jpg -o out.mp4

The face in source.mp4 is tracked; what it does, measured from its own rest, is put on the photo's face as it rests
there, in the photo's own light. Hair and background stay as they are. Every frame of the video gives one of the output,
at the same time and with the video's sound. Where the video shows no usable face the last expression is held; such
frames are listed in OUT.report.json. The output says in its metadata that it is synthetic. Ask the people you show: see
README.md, Consent.

Exit status: 0 when the output is whole, 1 on errors (one line on stderr, nothing half-written), 2 when the command line
can't be understood, 130 when interrupted.
"""
from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from compositing.arguments import add_shared, check_shared
from compositing.eyes import eye_redrawer
from compositing.key_frames import SOURCE_TEXTURE_SIZE, neutral_source_texture, pictures_of, spread_frames
from compositing.monochrome import toning_of
from compositing.performer import TexturePerformer
from compositing.pipeline import Pipeline
from compositing.puppet import Puppet, without_lips_inside
from compositing.relative import MAX_TURN, relative_expression, resting_frames, turns
from compositing.replace import check_track, report_path
from compositing.report import StageTimer, build_report, synthetic_marks, write_report
from compositing.target import reduced, target_from_photo, texture_size_for
from compositing.video_writer import VideoWriter, compose_yuv
from facemodel import commands
from facemodel.atlas import build_atlas
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.fit import fit_image, taken
from fitting.images import read_image
from fitting.progress import progress_bar
from fitting.solver import NUMBA, engine_for
from fitting.texture import region_texture
from fitting.track import track_clip
from fitting.trackfile import file_hash, load_track, save_track
from fitting.video_reader import VideoReader, probe
from fitting.yuv import Colour, Planes
from texgan.transfer import METHODS, GanTransfer, static, transfer_method

HEIGHT = 1080               # pixels; higher photos are reduced
FADE = 8                    # frames in which a returning face takes over from the held expression, at most
PHOTO_COLOUR = Colour(matrix=1, range=1, primaries=1, transfer=1)        # BT.709, limited range


class Hold:
    """Holds the last state through frames without one, and fades over to those that follow.

    rest : tuple of arrays, the state before the first

    >>> hold = Hold((np.zeros(1),))
    >>> [float(hold(s)[0][0]) for s in (None, (np.ones(1),), (np.ones(1),), None)]
    [0.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, rest):
        self._shown = self._held = rest
        self._missed, self._fade, self._step = 0, 0, 0

    def __call__(self, state):
        """What to show for this frame: `state`, or the held one for None."""
        if state is None:
            self._held, self._missed = self._shown, self._missed + 1
            return self._shown
        if self._missed:
            self._fade, self._step, self._missed = min(self._missed, FADE), 0, 0
        self._step += 1
        share = self._step / (self._fade + 1)
        if share >= 1:
            self._shown = state
            return state
        share *= share * (3 - 2 * share)
        self._shown = tuple(a + np.float32(share) * (b - a) for a, b in zip(self._held, state))
        return self._shown


@dataclass(frozen=True)
class PhotoFrame:
    """The photo in place of a video frame, with that one's time; what VideoWriter.write takes."""

    index: int
    pts: int
    time_base: Fraction
    duration: int
    planes: Planes
    colour: Colour = PHOTO_COLOUR

    @classmethod
    def at(cls, frame, planes):
        return cls(frame.index, frame.pts, frame.time_base, frame.duration, planes)


def photo_planes(photo):
    """A photo (H, W, 3) uint8 with even sides as 4:2:0 Planes in PHOTO_COLOUR."""
    height, width = photo.shape[:2]
    blank = Planes(np.zeros((height, width), np.uint8), *np.zeros((2, height // 2, width // 2), np.uint8))
    return compose_yuv(blank, photo, np.ones((height, width), bool), PHOTO_COLOUR)


def even_photo(photo, height=HEIGHT):
    """A photo at most `height` pixels high, both sides even: reduced by areas, else its last row or column left out."""
    h, w = photo.shape[:2]
    if h > height:
        size = (max(round(w * height / h / 2) * 2, 2), height // 2 * 2)
        return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(photo[:h // 2 * 2, :w // 2 * 2])


class Animator:
    """Gives every frame of a source, in order, a picture of the photo.

    Parameters
    ----------
    model : MorphableModel
    track : Track of the source
    photo : (H, W, 3) uint8
    fit : Track of the photo
    target : TargetFace
    method, source_neutral, timer : see compositing.performer.TexturePerformer
    posed : bool, whether the head follows the source's turns
    pictures : dict of pictures of the clip, by frame of the track, where gazes shall follow it
    """

    def __init__(self, model, track, photo, fit, target, method=static, source_neutral=None, posed=False, timer=None,
                 pictures=None):
        self._track, self._timer = track, timer or StageTimer()
        self._puppet = Puppet(model, photo, fit, target, posed)
        self._expression = relative_expression(model, track, fit)
        self._eyes = eyes = pictures and eye_redrawer(model, track, target, self._expression, pictures, source_neutral,
                                                      relative=True)
        self._textures = TexturePerformer(model, track, target.texture, method, source_neutral, self._timer, eyes)
        self._turns = turns(model, track) if posed else np.zeros((len(track), 3), np.float32)
        self._moved = posed
        self._hold = Hold((fit.expression[0], target.texture.rgb, np.zeros(3, np.float32)))
        self._neutral, self._bias, self._teeth = target.texture.rgb, *self._corrections(model, target.texture, eyes)
        self._picture = photo.astype(np.float32) / 255
        self._toning = toning_of([photo], fit.landmarks)

    def __call__(self, frames):
        """Pictures for VideoFrames, in order: yields (frame, rgb, changed, held).

        Several frames are under way at once, see compositing.pipeline.

        rgb : (H, W, 3) float32 in [0, 1], written over by the next. changed : (H, W) bool, where it is not the photo
        held : bool, whether the frame shows no usable face and the last expression stays
        """
        with closing(Pipeline(self._lift, self._infer, self._state)) as line:
            for frame in frames:
                t = frame.index
                usable = t < len(self._track) and self._track.status[t] == "ok"
                for done in line.push((frame, t if usable else None)):
                    yield self._drawn(*done)
            for done in line.drain():
                yield self._drawn(*done)

    def _lift(self, item):
        """First: the source's texture. item : (frame, its number in the track or None where it is not usable)"""
        frame, t = item
        if t is None:
            return frame, t, None
        with self._timer("decode"):
            rgb = frame.rgb
        return frame, t, self._textures.lift(rgb, t)

    def _infer(self, item):
        """Second: the photo's texture."""
        frame, t, lifted = item
        return frame, t, lifted, None if t is None else self._textures.infer(lifted)

    def _state(self, item):
        """Third: the frame, and what is to be drawn for it: expression, texture and turn; None where it is held."""
        frame, t, lifted, texture = item
        if t is None:
            self._textures.reset()
            return frame, None
        texture = self._textures.redraw(texture, lifted, t)
        if self._bias is not None:
            texture = texture - self._bias
        if self._teeth is not None:
            texture = texture + self._teeth * (self._neutral - texture)
        return frame, (self._eyes.expression if self._eyes else self._expression[t], texture, self._turns[t])

    def _drawn(self, frame, state):
        expression, texture, turn = self._hold(state)
        with self._timer("render"):
            drawn = self._puppet.draw(expression, texture, turn if self._moved else None)
            rgb = self._toning(drawn.rgb) if self._toning else drawn.rgb
        left, top, right, bottom = drawn.window
        self._picture[top:bottom, left:right] = rgb
        changed = np.zeros(self._picture.shape[:2], bool)
        changed[top:bottom, left:right] = drawn.changed
        return frame, self._picture, changed, state is None

    def _corrections(self, model, neutral, eyes):
        """What the method's textures are corrected by, each None where there is nothing to correct.

        Returns
        -------
        bias : (S, S, 3) float32, what the method changes at the source's rest, to be taken off: the photo has its own.
            Not inside a mouth that the photo does not show, where the method's values stand for themselves, nor in
            eyes that are drawn anew
        teeth : (S, S, 1) float32 in [0, 1], inside of a mouth that the photo shows: it stays the photo's
        """
        change = self._textures.at_rest() - neutral.rgb
        atlas = build_atlas(model, len(change))
        mouth = region_texture(model, "mouth_interior", atlas)
        teeth = mouth * np.clip(2 * neutral.validity, 0, 1)
        bias = change * (1 - mouth + teeth)[..., None]
        if eyes:
            bias *= 1 - region_texture(model, "eyes", atlas)[..., None]
        return bias if bias.any() else None, teeth[..., None] if teeth.max() > 0.05 else None


@threadpool_limits.wrap(limits=1, user_api="blas")        # see fitting.track.track_clip
def animate_photo(source, target, out, *, model, detector, texture="gan", face="largest", target_face="largest",
                  track_path=None, pose=False, height=HEIGHT, crf=None, progress=True, timer=None, engine=NUMBA,
                  weights=None, device="cpu"):
    """Animates a photo by a video; writes `out` and `out`.report.json.

    Parameters
    ----------
    source : path of a video
    target : path of a photo
    out : path of the result (.mp4, .mov, .mkv)
    pose : bool, the head follows the source's turns, by less than MAX_TURN
    height : int, pixels to which a higher photo is reduced
    others : as of compositing.replace.replace_face

    Returns
    -------
    dict, the report

    Raises
    ------
    InputError : unusable input; nothing is written then
    """
    timer, remarks, out = timer or StageTimer(), [], Path(out)
    info = probe(source)                          # says what is wrong with the video before any work is done
    method = transfer_method(texture, model, weights, device)
    known = None
    if track_path is not None and Path(track_path).is_file():
        known = load_track(track_path, model)
        check_track(known, track_path, source, face, info)
    with timer("target"):
        photo = even_photo(read_image(target), height)
        fit, count = fit_image(model, photo, detector, target_face, target, option="--target-face", engine=engine)
        if count > 1:
            remarks.append(f"{target}: {count} faces, took {taken(target_face)}; choose with --target-face N, "
                           "counted from the left")
        person = reduced(target_from_photo(model, photo, fit, open_mouth=True), texture_size_for(model, fit))
        person = without_lips_inside(model, person, fit)
    with timer("track"):
        track = known
        if track is None:
            tracking = track_clip(model, source, detector, face, progress=progress, engine=engine)
            track, more = tracking.track, tracking.remarks
            remarks += more
            if track_path is not None:
                save_track(track, track_path)
    if not (track.status == "ok").any():
        raise InputError(f"{source}: in none of {len(track)} frames could a face be followed well enough; nothing "
                         "written")
    neutral = looks = None
    if method is not static:
        with timer("neutral texture"):
            size, resting = min(SOURCE_TEXTURE_SIZE, len(person.texture.rgb)), resting_frames(model, track)
            pictures = pictures_of(source, track, np.union1d(resting, spread_frames(track)))
            neutral = neutral_source_texture(model, track, [(t, pictures[t]) for t in resting], size)
            looks = pictures if isinstance(method, GanTransfer) else None
    animator = Animator(model, track, photo, fit, person, method, neutral, pose, timer, looks)
    inputs = {"source": str(source), "source_sha256": str(track.source_sha256),
              "target": str(target), "target_sha256": file_hash(target)}
    settings = {"texture": texture, "weights": None if weights is None else str(weights), "face": face,
                "target_face": target_face, "pose": pose, "height": height,
                "texture_size": len(person.texture.rgb), "crf": crf}
    held = _write(source, out, photo, animator, inputs, crf, timer, progress, remarks)
    report = _report(inputs, settings, track, held, timer, remarks)
    write_report(report, report_path(out))
    return report


def _write(source, out, photo, animator, inputs, crf, timer, progress, remarks):
    """Writes the video; returns (n,) bool, which frames were held. Adds what the reader and writer say to remarks."""
    planes, held = photo_planes(photo), []
    marks = synthetic_marks(inputs["source_sha256"], inputs["target_sha256"], "animated photo")
    options = {} if crf is None else {"crf": crf}
    with VideoReader(source) as reader:
        info = replace(reader.info, width=photo.shape[1], height=photo.shape[0], colour=PHOTO_COLOUR, subsampled=True,
                       sample_aspect_ratio=None, rotation_deg=0)
        with VideoWriter(out, info, metadata=marks, **options) as writer:
            with progress_bar(info.frame_count_estimate, "animate", show=progress) as bar:
                for frame, rgb, changed, was_held in animator(timer.each("decode", reader)):
                    with timer("encode"):
                        writer.write(PhotoFrame.at(frame, planes), rgb, changed)
                    held.append(was_held)
                    bar.update()
        remarks += [x for x in (reader.damage, writer.audio_damage) if x and x not in remarks]
    return np.array(held)


def _report(inputs, settings, track, held, timer, remarks):
    """build_report's in this command's words: `animated`, `held` for replaced, passed through."""
    shown = np.zeros(len(track), bool)
    shown[:len(held)] = ~held[:len(track)]
    report = build_report(inputs, settings, track, shown, timer, len(held), remarks)
    words = {"replaced": "animated", "passed_through": "held"}
    rename = lambda d: {words.get(k, k): v for k, v in d.items()}
    return {**rename(report), "per_frame": [rename(x) for x in report["per_frame"]]}


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m compositing.animate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE.mp4", help="the video whose expressions are taken")
    parser.add_argument("target", type=Path, metavar="TARGET.jpg", help="the photo that comes alive")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT.mp4",
                        help="result (.mp4, .mov or .mkv); default TARGET_SOURCE.mp4 in the present folder")
    parser.add_argument("--pose", action="store_true",
                        help="the head also turns as the source's does from its calmest frame, by less than "
                             f"{MAX_TURN:g} degrees; the surroundings follow, less towards the photo's border")
    parser.add_argument("--texture", choices=METHODS, default="gan",
                        help="what wrinkles and teeth come from: the trained generator ('gan', default; irises are the "
                             "photo's then), the source's own change ('delta'), or none but the photo's ('static')")
    parser.add_argument("--face", default="largest", metavar="N",
                        help="face of the video: 'largest' or a number, from the left in its first frame with one")
    parser.add_argument("--target-face", default="largest", metavar="N", help="face of the photo, likewise")
    parser.add_argument("--track", type=Path, metavar="TRACK.npz",
                        help="track of the video (fitting.track): read if the file exists, else written there")
    parser.add_argument("--height", type=int, default=HEIGHT, metavar="PIXELS",
                        help="higher photos are reduced to this (default: %(default)s)")
    add_shared(parser)
    commands.add_common(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_intermixed_args(argv)         # SOURCE -o OUT TARGET is understood, too
    backend = backend_for(args.device)
    out = args.out or Path(f"{args.target.stem}_{args.source.stem}.mp4")
    if args.height < 64:
        raise InputError(f"--height {args.height}: give 64 pixels or more")
    check_shared(args, out)
    model = load_model(args.model)
    report = animate_photo(args.source, args.target, out, model=model, detector=FaceDetector(),
                           engine=engine_for(model, backend), texture=args.texture, face=args.face,
                           target_face=args.target_face, track_path=args.track, pose=args.pose, height=args.height,
                           crf=args.crf, weights=args.weights, device=backend.torch_device or "cpu")
    for remark in report["remarks"]:
        print(remark)
    stages = ", ".join(f"{k} {v:.0f}" for k, v in report["milliseconds_per_frame"].items())
    held = report["frames"] - report["animated"]
    where = f" ({', '.join(f'{a}-{b}' for a, b in report['held'][:8])})" if held else ""
    print(f"wrote {out}: {report['frames']} frames, {report['animated']} animated, {held} held{where}; "
          f"ms per frame: {stages}; details in {report_path(out)}")


if __name__ == "__main__":
    commands.run(main)
