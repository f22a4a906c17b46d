"""Puts the face of a photo into a video.

    python -m compositing.replace source.mp4 target.jpg -o out.mp4
    python -m compositing.replace --demo

The face in source.mp4 is tracked, the photo's face is given its expression, pose and light, and a graph cut decides
where one picture ends and the other begins. Frames without a usable face are passed through and listed in
OUT.report.json. The output says in its metadata that it is synthetic. Ask the people you show: see README.md, Consent.

With several people in the video --face chooses one, who is followed when they cross or turn away; --pair, once for each
of them, gives each a face of his own.

A run that was stopped, killed or ran out of disk goes on when the same command is given again; see --work.

Exit status: 0 when the output is whole, 3 when it is finished, but more than 10 % of its frames had to be passed
through, 1 on errors (one line on stderr, nothing half-written), 2 when the command line can't be understood, 130 when
interrupted.
"""
from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from compositing import arguments, credentials, labelling, seam, views
from compositing.graph_cut import SeamLabeller
from compositing.occlusion import Occlusion, OcclusionDetector, wears_glasses
from compositing.pairs import Pair, check_faces, report_of_faces
from compositing.performer import TexturePerformer
from compositing.pieces import composite_pieces
from compositing.presence import Mask, presence
from compositing.report import (
    StageTimer,
    build_report,
    exit_status,
    report_path,
    summary,
    synthetic_marks,
    write_report,
)
from compositing.retarget import (
    Rendering,
    reduced,
    render,
    retarget_expression,
    target_from_photo,
    texture_size_for,
)
from compositing.seat import fitted_seat, seat_on, spread_frames
from compositing.several import Faces
from compositing.sharpness import SharpnessMatch
from compositing.steady import Steadier
from compositing.tone import ToneMatch
from compositing.video_writer import VideoWriter
from compositing.virtual import virtual_face
from compositing.workdir import kept_fit, kept_track, remove_leftovers, result_journal, told_where
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
from fitting.span import cut_track, resolve_span
from fitting.texture import bare_skin
from fitting.track import read_pictures, track_clip
from fitting.trackfile import file_hash, load_track, save_track
from fitting.video_reader import WHOLE, Span, VideoFrame, VideoReader, probe
from texgan.transfer import static, transfer_method

SOURCE_TEXTURE_SIZE = 512
NEUTRAL_FRAMES = 5            # that the source's neutral texture is the median of


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits for its labels, with its rendering, its texture if it will be shown, and what limits both.

    presence : float, weight of the target; keep : (h, w) float32, weight of painting in the rendering's window, or
    None for 1
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
    occlusion : optional compositing.occlusion.Occlusion, which finds such things by itself
    seat : compositing.seat.Seat of the target's face on the source's head; default seat_on
    inspect : keep for every frame what it was made from, in `inspection`
    """

    def __init__(self, model, track, target, method=static, source_neutral=None, cost="between", smoothness=1e-3,
                 timer=None, skin="auto", mask=None, occlusion=None, seat=None, inspect=False):
        self._model, self._track, self._target = model, track, target
        self._labeller = SeamLabeller(model.coarse_edges, cost=cost, smoothness=smoothness)
        self._inner, self._outer = seam.seam_regions(model)
        nodes = model.coarse_index
        region = lambda name: model.regions[name][nodes]
        self._tone = ToneMatch(model.uv[nodes], bare_skin(model)[nodes] > 0.7, self._outer, skin, region("eyes"),
                               region("mouth_interior"), region("lips"))
        self._expression = retarget_expression(model, track, target)
        self._seat = seat or seat_on(model, target.identity, track.identity)
        self._sharpness, self._presence = SharpnessMatch(), presence(track.status)
        self._mask, self._occlusion = mask, occlusion
        self._waiting, self._broken, self._steadier = deque(), True, Steadier()
        self._timer = timer or StageTimer()
        self._textures = TexturePerformer(model, track, target.texture, method, source_neutral, self._timer)
        self._inspect, self._shown = inspect, None
        self.inspection = None      # compositing.views.Inspection of the frame yielded last
        self.covered = 0.0          # share of the face in the frame yielded last that something lies before

    def push(self, frame):
        """Takes the next VideoFrame; yields (frame, rgb, alpha) for frames that are finished.

        rgb : (H, W, 3) float32 in [0, 1], alpha : (H, W) float32, 0 where the source is untouched; both None for a
        frame that is passed through
        """
        t = frame.index - int(self._track.frame_index[0])
        usable = 0 <= t < len(self._track) and self._track.status[t] == "ok"
        free, keep = self._free(frame, t) if usable else (None, None)
        rendering = self._render(frame, t, free) if usable else None
        if rendering is None:
            yield from self._finish(self._labeller.flush())
            self.inspection, self.covered = None, 0.0
            yield frame, None, None
            self._broken = True
            self._textures.reset()
            if self._occlusion:
                self._occlusion.reset()
            return
        with self._timer("seam"):
            labels = self._label(frame, rendering, keep)
        left, top, right, bottom = rendering.window
        keep = keep if keep is None else keep[top:bottom, left:right].copy()
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
        return {"tone": self._tone.state(), "sharpness": self._sharpness.state(),
                "steadier": self._steadier.state(), "broken": self._broken,
                "labeller": self._labeller.state(), "textures": self._textures.state(),
                "occlusion": self._occlusion and self._occlusion.state()}

    def restore(self, state):
        """Goes on from a state of a compositor of the same settings."""
        self._broken = state["broken"]
        self._tone.restore(state["tone"])
        self._sharpness.restore(state["sharpness"])
        self._steadier.restore(state["steadier"])
        self._labeller.restore(state["labeller"])
        self._textures.restore(state["textures"])
        if self._occlusion:
            self._occlusion.restore(state["occlusion"])

    def _free(self, frame, t):
        """Where no thing lies before the face, and where besides no rim of glasses does: (H, W) float32, or None."""
        with self._timer("decode"):
            rgb = frame.rgb                       # computed on first use
        with self._timer("occlusion"):
            own = self._mask and self._mask.keep(frame.index)
            thing, rim = self._occlusion.keep(rgb, t) if self._occlusion else (None, None)
            free = _least(own, thing)
            return free, _least(free, rim)

    def _render(self, frame, t, free):
        model, track = self._model, self._track
        rgb = frame.rgb
        texture = self._textures(rgb, t, free)
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
            self._steadier.reset()
        free = visible if keep is None else visible & (seam.sample(keep[top:bottom, left:right], xy) > 0.5)
        gain = self._tone.gain(source, target, free)
        seam.tint(self._model, rendering, gain)
        inside = seam.label_mask(self._inner & free, self._model, rendering) > 0.5
        rendering.rgb[:] = self._steadier(frame.rgb, rendering.window, rendering.rgb, rendering.mask)
        rendering.rgb[:] = self._sharpness(crop, rendering.rgb, inside)
        target = np.clip(target * gain, 0, 1)
        hard_source = self._outer | ~visible
        source = np.where((visible & ~free)[:, None], target, source)       # a hand says nothing about the seam
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
                self.covered = 0.0
                if waiting.keep is not None:
                    painted = float(alpha.sum())
                    alpha *= waiting.keep
                    self.covered = 1 - float(alpha.sum()) / painted if painted else 0.0
                picture = waiting.frame.rgb.astype(np.float32) / 255
                window = picture[top:bottom, left:right]
                picture[top:bottom, left:right] = seam.composite(window, waiting.rendering, alpha)
                whole = np.zeros(picture.shape[:2], np.float32)
                whole[top:bottom, left:right] = alpha
            if self._inspect:
                self.inspection = views.inspection_of(self._model, waiting.rendering, label, waiting.texture)
            yield waiting.frame, picture, whole


def _least(a, b):
    """The smaller of two (H, W) masks in each pixel, where None is 1 everywhere."""
    return b if a is None else a if b is None else np.minimum(a, b)


def calm_frames(track, usual=0.0, count=NEUTRAL_FRAMES):
    """Trusted frames with little expression and a face to the camera: (n,) int, n <= count, in order of time.

    usual : (n_exp,) float, what expression is measured from; default the model's neutral face
    """
    usable = np.flatnonzero(track.status == "ok")
    effort = ((track.expression[usable] - usual) ** 2).sum(axis=1) + 2 * (track.rotation[usable] ** 2).sum(axis=1)
    calm = usable[np.argsort(effort, kind="stable")[:max(count, len(usable) // 20)]]
    return np.sort(calm)[np.linspace(0, len(calm) - 1, min(count, len(calm))).astype(int)]


def pictures_of(path, track, frames):
    """Pictures (H, W, 3) uint8 of some frames of a track, by frame."""
    return dict(zip(map(int, frames), read_pictures(path, track.frame_index[frames])))


def neutral_source_texture(model, track, pictures, size=SOURCE_TEXTURE_SIZE, occlusion=None):
    """The source's neutral texture: per texel the median over frames with little expression, such as calm_frames.

    One frame alone would stamp its own shading and its slight expression, negated, on every other frame. What a
    compositing.occlusion.Occlusion finds before the face is left out of each.

    Parameters
    ----------
    pictures : list of (frame of the track, picture (H, W, 3) uint8)

    Returns
    -------
    fitting.lift.Texture, (size, size, 3), seen in at least half of the frames where its validity is not 0
    """
    lifter = Lifter(model, size)
    lifted = []
    for t, image in pictures:
        free = None
        if occlusion:
            occlusion.reset()
            free, _ = occlusion.keep(image, t)
        lifted.append(lifter.neutral(image, track, t, free))
    if occlusion:
        occlusion.reset()
    return Texture(np.median([x.rgb for x in lifted], axis=0), np.median([x.validity for x in lifted], axis=0))


@threadpool_limits.wrap(limits=1, user_api="blas")        # see fitting.track.track_clip
def replace_face(source, target, out, *, model, detector, texture="gan", face="largest", target_face="largest",
                 virtual=None, pairs=None, track_path=None, cost="between", smoothness=1e-3, crf=None, progress=True,
                 timer=None, engine=NUMBA, weights=None, device="cpu", label_text=None, signing=None, start=None,
                 end=None, compare=None, debug=None, work=None, skin="auto", mask=None, occlusion="auto"):
    """Replaces a face in a video, or several; writes `out` and `out`.report.json.

    Parameters
    ----------
    source : path of a video
    target : path of a photo, or None with `virtual` or `pairs`
    out : path of the result (.mp4, .mov, .mkv)
    model : MorphableModel
    detector : FaceDetector
    texture : name of a method in texgan.transfer.METHODS
    face, target_face : which face of the video, of the photo: 'largest', 'leftmost', 'rightmost' or a number counted
        from the left
    virtual : int seed for a face of nobody in place of a photo
    pairs : list of compositing.pairs.Pair in place of target, face and virtual
    track_path : optional TRACK.npz of the source: read if it exists, otherwise written; with one face only
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
    occlusion : one of compositing.occlusion.MODES, whether what lies before the face is looked for

    Returns
    -------
    dict, the report

    Raises
    ------
    InputError : unusable input, or not one frame could be replaced; nothing is written then
    """
    timer, remarks, known = timer or StageTimer(), [], None
    out = Path(out)
    info = probe(source)                          # says what is wrong with the video before any work is done
    labelling.check_label(label_text, info.height, info.width)
    span = resolve_span(source, start, end)
    method = transfer_method(texture, model, weights, device)
    pairs, several = pairs or [Pair(face, target, virtual)], len(pairs or ()) > 1
    masks = [mask and Mask(mask, source) for _ in pairs]
    if track_path is not None and Path(track_path).is_file():
        known = load_track(track_path, model)
        known = check_track(known, track_path, source, pairs[0].face, info, span)
    if several:
        check_faces(source, detector, pairs, span)
    with timer("target"):
        people = [_person(model, detector, pair, target_face, work, engine, remarks) for pair in pairs]
    tracks, hashes = [], [digest for _, digest in people]
    for pair in pairs:
        with timer("track"):
            track = known
            if track is None:
                track, more = kept_track(work, model, source, pair.face, span, engine, lambda folder, pair=pair: (
                    track_clip(model, source, detector, pair.face, progress=progress, engine=engine, span=span,
                               folder=folder)))
                remarks += [x for x in more if x not in remarks and not (several and "--face" in x)]
                if track_path is not None:
                    save_track(track, track_path)
        if not (track.status == "ok").any():
            which = f" number {pair.face}" if several else ""
            raise InputError(f"{source}: in none of {len(track)} frames could a face{which} be followed well enough; "
                             "nothing written")
        tracks.append(track)
    source_hash = str(tracks[0].source_sha256)
    compositors, sizes, detector_of_things = [], [], OcclusionDetector() if occlusion == "auto" else None
    for track, held, (person, _) in zip(tracks, masks, people):
        person = reduced(person, texture_size_for(model, track))
        sizes.append(person.texture.rgb.shape[0])
        calm = calm_frames(track)
        with timer("key frames"):
            pictures = pictures_of(source, track, np.union1d(calm, spread_frames(track)))
        with timer("seat"):
            seat = fitted_seat(model, person, track, pictures, calm, detector)
        neutral = finder = None
        if detector_of_things:
            with timer("glasses"):
                finder = Occlusion(model, track, detector_of_things,
                                   wears_glasses(model, track, pictures, detector_of_things))
        if method is not static:
            with timer("neutral texture"):
                neutral = neutral_source_texture(model, track, [(t, pictures[t]) for t in calm],
                                                 min(SOURCE_TEXTURE_SIZE, sizes[-1]), finder)
        compositors.append(Compositor(model, track, person, method, neutral, cost, smoothness, timer, skin, held,
                                      finder, seat, inspect=debug is not None))
    labeller = labelling.Labeller(label_text, info.height, info.width, [t.landmarks for t in tracks],
                                  tracks[0].frame_index[0])
    replaced = np.zeros((len(tracks[0]), len(tracks)), bool)
    covered = np.zeros(replaced.shape, np.float32)
    settings = {"texture": texture, "weights": None if weights is None else str(weights), "face": pairs[0].face,
                "target_face": target_face, "virtual": pairs[0].virtual, "seam_cost": cost,
                "seam_smoothness": smoothness, "skin": skin, "mask": mask and file_hash(mask), "occlusion": occlusion,
                "texture_size": sizes[0], "crf": crf,
                "label": label_text, "start": start and start.text, "end": end and end.text}
    if several:
        settings |= {"face": [pair.face for pair in pairs], "virtual": [pair.virtual for pair in pairs],
                     "texture_size": sizes}
    journal = result_journal(work, model, tracks, hashes, settings, weights, engine, device,
                             [compare is not None, debug is not None])
    options = {"keep_pieces": journal is not None}
    if work is not None:
        for path in filter(None, (out, compare, debug)):
            remove_leftovers(Path(path))
    marks = synthetic_marks(source_hash, " ".join(hashes))
    quality = {} if crf is None else {"crf": crf}
    done = 0 if journal is None or not journal.count else journal.state["end"]
    with VideoReader(source, Span(done)) as reader:
        with ExitStack() as stack:
            for held in filter(None, masks):
                stack.enter_context(held)
            writer = stack.enter_context(VideoWriter(out, reader, metadata=marks, **quality, **options))
            shown = [stack.enter_context(views.ViewWriter(path, kind, reader, model.coarse_edges, metadata=marks,
                                                           **options))
                     for kind, path in (("compare", compare), ("debug", debug)) if path is not None]

            total = len(replaced) if span == WHOLE else reader.info.frame_count_estimate
            with progress_bar(total, "composite", show=progress) as bar:
                composite_pieces(timer.each("decode", reader), Faces(compositors, tracks), writer, shown, replaced,
                                 covered, journal, first=span.first, timer=timer, bar=bar, label=labeller.draw)
            if not replaced.any():
                raise InputError(f"{source}: no frame could be replaced; nothing written")
            frames = writer.frames_written
        if reader.damage and reader.damage not in remarks:
            remarks.append(reader.damage)
        if writer.audio_damage:
            remarks.append(writer.audio_damage)
    inputs = {"source": str(source), "source_sha256": source_hash}
    for k, (pair, digest) in enumerate(zip(pairs, hashes)):
        key = f"target_{k + 1}" if k else "target"
        inputs |= {key: str(pair.target) if pair.virtual is None else digest, f"{key}_sha256": digest}
    if signing:
        with timer("sign"):
            credentials.sign(out, *signing, inputs, settings)
    reports = [build_report(inputs, settings, track, shows, timer, frames, remarks, share)
               for track, shows, share in zip(tracks, replaced.T, covered.T)]
    report = report_of_faces(reports[0], list(zip(pairs, hashes, reports)), replaced) if several else reports[0]
    write_report(report, report_path(out))
    if work is not None:
        work.finish()
    return report


def _person(model, detector, pair, target_face, work, engine, remarks):
    """The TargetFace of a Pair, and its photo's SHA-256 or what it is; adds to `remarks`."""
    if pair.virtual is not None:
        return virtual_face(model, pair.virtual), f"virtual face, seed {pair.virtual}"
    image, digest = read_image(pair.target), file_hash(pair.target)
    fit, count = kept_fit(work, model, digest, target_face, engine, lambda: fit_image(
        model, image, detector, target_face, pair.target, option="--target-face", engine=engine))
    if count > 1:
        remarks.append(f"{pair.target}: {count} faces, took {taken(target_face)}; choose with --target-face N, "
                       "counted from the left")
    return target_from_photo(model, image, fit), digest


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


def main(argv=None):
    args = arguments.parse(argv, __doc__)
    backend = backend_for(args.device)
    model = load_model(args.model)
    with args.work, told_where(args.work):
        report = replace_face(args.source, args.target, args.out, model=model, detector=FaceDetector(),
                              engine=engine_for(model, backend), texture=args.texture, face=args.face,
                              target_face=args.target_face, virtual=args.virtual, pairs=args.pair,
                              track_path=args.track, cost=args.seam, crf=args.crf, weights=args.weights,
                              device=backend.torch_device or "cpu", label_text=args.label, signing=args.sign,
                              start=args.start, end=args.end, compare=args.compare, debug=args.debug, work=args.work,
                              skin=args.skin, mask=args.mask, occlusion=args.occlusion)
    print("\n".join(summary(report, args.out, [path for path in (args.compare, args.debug) if path])))
    return exit_status(report)


if __name__ == "__main__":
    commands.run(main)
