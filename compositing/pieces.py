"""Composites a clip in pieces of PIECE frames that a later process can go on from; see compositing.workdir."""
from __future__ import annotations

from dataclasses import asdict

import numpy as np

from compositing.video_writer import Piece

PIECE = 250          # frames; x264 sets a key frame this often anyway


def composite_pieces(frames, compositor, writer, shown, replaced, covered, journal=None, *, first=0, timer, bar,
                     piece=None, label=None):
    """Writes all frames of a clip.

    Parameters
    ----------
    frames : iterable of VideoFrame, without those of the pieces in the journal
    compositor : compositing.several.Faces, of K faces
    writer : VideoWriter
    shown : list of compositing.views.ViewWriter
    replaced : (F, K) bool, set to True where frame first, first + 1, ... shows the target in a face's place; only
        these frames go to the compositor
    covered : (F, K) float32, filled with the share of each face that something lies before
    journal : fitting.checkpoint.Journal or None
    timer : StageTimer. bar : fitting.progress's
    piece : int, frames; default PIECE
    label : optional callable (picture, alpha, frame's number) -> (picture, alpha), see compositing.labelling
    """
    piece, videos, done = piece or PIECE, [writer, *(view.writer for view in shown)], 0
    if journal is not None and journal.count:
        for kept in journal.pieces():
            for video, packets in zip(videos, kept["videos"], strict=True):
                video.add_piece(Piece(**packets))
            replaced[kept["replaced"]] = kept["faces"]
            covered[kept["replaced"]] = kept["covered"]
            done = kept["end"]
        compositor.restore(journal.state["compositor"])
        bar.update(done, frame=done - 1)
    rows = {}

    def note():
        size = len(rows), replaced.shape[1]
        faces = np.array([shows for shows, _ in rows.values()], bool).reshape(size)
        shares = np.array([share for _, share in rows.values()], np.float32).reshape(size)
        replaced[list(rows)], covered[list(rows)] = faces, shares
        return {"replaced": np.array(list(rows), int), "faces": faces, "covered": shares}

    def write(finished):
        for frame, picture, alpha in finished:
            if label is not None:
                picture, alpha = label(picture, alpha, frame.index)
            with timer("encode"):
                writer.write(frame, picture, alpha)
            for view in shown:
                with timer("views"):
                    view.write(frame, picture, alpha, [] if picture is None else compositor.inspection)
            if picture is not None:
                rows[frame.index - first] = compositor.shown, compositor.covered

    for frame in frames:
        if first <= frame.index < first + len(replaced):
            write(compositor.push(frame))
        else:
            write(compositor.flush())
            write([(frame, None, None)])
        if (frame.index + 1) % piece == 0:
            write(compositor.settle())
            with timer("encode"):
                packets = [video.end_piece() for video in videos]
            shows = note()
            if journal is not None:
                with timer("keep"):
                    journal.append({"videos": [asdict(p) for p in packets], "end": frame.index + 1, **shows},
                                   {"end": frame.index + 1, "compositor": compositor.state()})
            rows.clear()
        bar.update(frame=frame.index)
    write(compositor.flush())
    note()
