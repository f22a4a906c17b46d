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

from contextlib import ExitStack, closing
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from compositing import arguments, credentials, labelling, views
from compositing.complexion import suited_to
from compositing.compositor import Compositor
from compositing.eyes import eye_redrawer
from compositing.grain import grain_of
from compositing.key_frames import (
    SOURCE_TEXTURE_SIZE,
    calm_frames,
    frames_in_a_row,
    neutral_source_texture,
    pictures_of,
    spread_frames,
)
from compositing.monochrome import toning_of
from compositing.occlusion import Occlusion, OcclusionDetector, wears_glasses
from compositing.pairs import Pair, check_faces, report_of_faces
from compositing.pieces import composite_pieces
from compositing.presence import Mask
from compositing.report import (
    StageTimer,
    build_report,
    exit_status,
    report_path,
    summary,
    synthetic_marks,
    write_report,
)
from compositing.retarget import retarget_expression
from compositing.seat import fitted_seat
from compositing.several import Faces
from compositing.target import reduced, target_from_photo, texture_size_for
from compositing.video_writer import VideoWriter
from compositing.virtual import virtual_face
from compositing.workdir import kept_fit, kept_track, remove_leftovers, result_journal, told_where
from facemodel import commands
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from fitting.detection import FaceDetector
from fitting.fit import fit_image, taken
from fitting.images import read_image
from fitting.progress import progress_bar
from fitting.solver import NUMBA, engine_for
from fitting.span import cut_track, resolve_span
from fitting.track import track_clip
from fitting.trackfile import file_hash, load_track, save_track
from fitting.video_reader import WHOLE, Span, VideoReader, probe
from texgan.transfer import GanTransfer, static, transfer_method


@threadpool_limits.wrap(limits=1, user_api="blas")        # see fitting.track.track_clip
def replace_face(source, target, out, *, model, detector, texture="gan", face="largest", target_face="largest",
                 virtual=None, pairs=None, track_path=None, cost="between", smoothness=1e-3, crf=None, progress=True,
                 timer=None, engine=NUMBA, weights=None, device="cpu", label_text=None, signing=None, start=None,
                 end=None, compare=None, debug=None, work=None, skin="auto", mask=None, occlusion="auto", beard="keep"):
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
    beard : one of compositing.beard.MODES, what becomes of a beard in the photo

    Returns
    -------
    dict, the report

    Raises
    ------
    InputError : unusable input, or not one frame could be replaced; nothing is written then
    """
    timer, remarks, out = timer or StageTimer(), [], Path(out)
    info = probe(source)                          # says what is wrong with the video before any work is done
    labelling.check_label(label_text, info.height, info.width)
    span = resolve_span(source, start, end)
    method = transfer_method(texture, model, weights, device)
    pairs, several = pairs or [Pair(face, target, virtual)], len(pairs or ()) > 1
    held, known = mask and Mask(mask, source, span), None
    if track_path is not None and Path(track_path).is_file():
        known = check_track(load_track(track_path, model), track_path, source, pairs[0].face, info, span)
    if several:
        check_faces(source, detector, pairs, span)
    things = OcclusionDetector() if occlusion == "auto" else None
    with timer("target"):
        people, hashes = zip(*(_person(model, detector, pair, target_face, things, work, engine, remarks, beard=beard,
                                       open_mouth=not isinstance(method, GanTransfer)) for pair in pairs))
    tracks = []
    for pair in pairs:
        track = known
        with timer("track"):
            if track is None:
                track = _track(model, detector, source, pair, several, span, work, engine, progress, remarks)
                if track_path is not None:
                    save_track(track, track_path)
        if not (track.status == "ok").any():
            which = f" number {pair.face}" if several else ""
            raise InputError(f"{source}: in none of {len(track)} frames could a face{which} be followed well enough; "
                             "nothing written")
        tracks.append(track)
    people = [reduced(person, texture_size_for(model, track)) for track, person in zip(tracks, people)]
    # a method keeps what it has prepared for its target, so each face has its own
    compositors = [_compositor(model, source, track, person, copy(method), detector, things, timer, cost=cost,
                               smoothness=smoothness, skin=skin, mask=held, inspect=debug is not None)
                   for track, person in zip(tracks, people)]
    each = lambda values: values if several else values[0]
    settings = {"texture": texture, "weights": None if weights is None else str(weights),
                "face": each([pair.face for pair in pairs]), "target_face": target_face,
                "virtual": each([pair.virtual for pair in pairs]), "seam_cost": cost, "seam_smoothness": smoothness,
                "skin": skin, "mask": mask and file_hash(mask), "occlusion": occlusion, "beard": beard,
                "texture_size": each([len(person.texture.rgb) for person in people]), "crf": crf, "label": label_text,
                "start": start and start.text, "end": end and end.text}
    journal = result_journal(work, model, tracks, hashes, settings, weights, engine, device,
                             [compare is not None, debug is not None])
    inputs = _inputs(source, str(tracks[0].source_sha256), pairs, hashes)
    labeller = labelling.Labeller(label_text, info.height, info.width, [t.landmarks for t in tracks],
                                  tracks[0].frame_index[0])
    shots = {kind: path for kind, path in (("compare", compare), ("debug", debug)) if path is not None}
    marks = synthetic_marks(inputs["source_sha256"], " ".join(hashes))
    shown, covered, frames = _film(source, out, shots, compositors, tracks, held, span, journal, marks, crf,
                                   labeller.draw, model.coarse_edges, progress, timer, remarks)
    if signing:
        with timer("sign"):
            credentials.sign(out, *signing, inputs, settings)
    reports = [build_report(inputs, settings, *face, timer, frames, remarks, share)
               for *face, share in zip(tracks, shown.T, covered.T)]
    report = report_of_faces(reports[0], list(zip(pairs, hashes, reports)), shown) if several else reports[0]
    write_report(report, report_path(out))
    if work is not None:
        work.finish()
    return report


def _film(source, out, shots, compositors, tracks, held, span, journal, marks, crf, label, edges, progress, timer,
          remarks):
    """Writes `out`, and further videos by their kind in `shots`; adds to `remarks`.

    Parameters
    ----------
    compositors, tracks : lists, one per face
    held : Mask or None. journal : Journal of the result or None. marks : dict, metadata
    label : function that draws a label into a frame. edges : of the mesh, for compositing.views

    Returns
    -------
    shown : (F, K) bool, frames of the span that show the target in face k's place
    covered : (F, K) float32, share of the face that something lies before
    frames : int, written
    """
    shown = np.zeros((len(tracks[0]), len(tracks)), bool)
    covered = np.zeros(shown.shape, np.float32)
    quality = {} if crf is None else {"crf": crf}
    options = {"metadata": marks, "keep_pieces": journal is not None}
    if journal is not None:
        for path in (out, *shots.values()):
            remove_leftovers(Path(path))
    done = 0 if journal is None or not journal.count else journal.state["end"]
    with VideoReader(source, Span(done)) as reader:
        with ExitStack() as stack:
            if held:
                stack.enter_context(held)
            writer = stack.enter_context(VideoWriter(out, reader, **quality, **options))
            beside = [stack.enter_context(views.ViewWriter(path, kind, reader, edges, **options))
                      for kind, path in shots.items()]
            faces = stack.enter_context(closing(Faces(compositors, tracks)))
            total = len(shown) if span == WHOLE else reader.info.frame_count_estimate
            with progress_bar(total, "composite", show=progress) as bar:
                composite_pieces(timer.each("decode", reader), faces, writer, beside, shown, covered, journal,
                                 first=span.first, timer=timer, bar=bar, label=label)
            if not shown.any():
                raise InputError(f"{source}: no frame could be replaced; nothing written")
            frames = writer.frames_written
        remarks += [x for x in (reader.damage, writer.audio_damage) if x and x not in remarks]
    return shown, covered, frames


def _inputs(source, source_hash, pairs, hashes):
    """What went into a result, as a report has it: source and targets, by name and by SHA-256."""
    inputs = {"source": str(source), "source_sha256": source_hash}
    for k, (pair, digest) in enumerate(zip(pairs, hashes)):
        key = f"target_{k + 1}" if k else "target"
        inputs |= {key: str(pair.target) if pair.virtual is None else digest, f"{key}_sha256": digest}
    return inputs


def _track(model, detector, source, pair, several, span, work, engine, progress, remarks):
    """The Track of a Pair's face, made now or by an earlier run; adds to `remarks`."""
    track, more = kept_track(work, model, source, pair.face, span, engine, lambda folder: (
        track_clip(model, source, detector, pair.face, progress=progress, engine=engine, span=span, folder=folder)))
    remarks += [x for x in more if x not in remarks and not (several and "--face" in x)]
    return track


def _person(model, detector, pair, target_face, things, work, engine, remarks, **options):
    """The TargetFace of a Pair, and its photo's SHA-256 or what it is; adds to `remarks`."""
    if pair.virtual is not None:
        return virtual_face(model, pair.virtual), f"virtual face, seed {pair.virtual}"
    image, digest = read_image(pair.target), file_hash(pair.target)
    fit, count = kept_fit(work, model, digest, target_face, engine, lambda: fit_image(
        model, image, detector, target_face, pair.target, option="--target-face", engine=engine))
    if count > 1:
        remarks.append(f"{pair.target}: {count} faces, took {taken(target_face)}; choose with --target-face N, "
                       "counted from the left")
    return target_from_photo(model, image, fit, things=things, **options), digest


def _compositor(model, source, track, person, method, detector, things, timer, **options):
    """The Compositor of one face, from a look at key frames. things : OcclusionDetector, or None."""
    calm, shown = calm_frames(track), retarget_expression(model, track, person)
    looked_at, rows = np.union1d(calm, spread_frames(track)), frames_in_a_row(track)
    with timer("first look"):
        every = pictures_of(source, track, np.unique([*looked_at, *rows, *(rows - 1)]))
        pictures = {int(t): every[t] for t in looked_at}
        grain = grain_of([(every[t], every[t - 1], track.landmarks[t]) for t in rows])
        del every
        seat = fitted_seat(model, person, shown, track, pictures, detector)
        occlusion = things and Occlusion(model, track, things, wears_glasses(model, track, pictures, things))
        toning = toning_of(pictures.values(), track.landmarks[list(pictures)])
    neutral = eyes = None
    if method is not static:
        with timer("neutral texture"):
            neutral = neutral_source_texture(model, track, [(t, pictures[t]) for t in calm],
                                             min(SOURCE_TEXTURE_SIZE, len(person.texture.rgb)), occlusion)
            if options["skin"] != "target":                # which keeps its own tone, and with it its own colours
                person = replace(person, texture=suited_to(model, person.texture, neutral))
    if isinstance(method, GanTransfer):               # the other methods are the paper's, eyes and all
        with timer("first look"):
            eyes = eye_redrawer(model, track, person, shown, pictures, neutral)
    return Compositor(model, track, person, method, neutral, seat=seat, occlusion=occlusion, shown=shown, eyes=eyes,
                      toning=toning, grain=grain, timer=timer, **options)


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
                              skin=args.skin, mask=args.mask, occlusion=args.occlusion, beard=args.beard)
    print("\n".join(summary(report, args.out, [path for path in (args.compare, args.debug) if path])))
    return exit_status(report)


if __name__ == "__main__":
    commands.run(main)
