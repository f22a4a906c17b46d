"""Composites a clip in pieces of PIECE frames that a later process can go on from; see compositing.workdir."""
from __future__ import annotations

from dataclasses import asdict

import numpy as np

from compositing.video_writer import Piece

PIECE = 250          # frames; x264 sets a key frame this often anyway


def composite_pieces(frames, compositor, writer, shown, replaced, journal=None, *, first=0, timer, bar, piece=None,
                     label=None):
    """Writes all frames of a clip.

    Parameters
    ----------
    frames : iterable of VideoFrame, without those of the pieces in the journal
    compositor : compositing.replace.Compositor
    writer : VideoWriter
    shown : list of compositing.views.ViewWriter
    replaced : (F,) bool, set to True for the frames first, first + 1, ... that show the target; only these go to the
        compositor
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
            replaced[kept["replaced"]] = True
            done = kept["end"]
        compositor.restore(journal.state["compositor"])
        bar.update(done, frame=done - 1)
    rows = set()

    def write(finished):
        for frame, picture, alpha in finished:
            if label is not None:
                picture, alpha = label(picture, alpha, frame.index)
            with timer("encode"):
                writer.write(frame, picture, alpha)
            for view in shown:
                with timer("views"):
                    view.write(frame, picture, alpha, None if picture is None else compositor.inspection)
            if picture is not None:
                rows.add(frame.index - first)

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
            replaced[sorted(rows)] = True
            if journal is not None:
                with timer("keep"):
                    journal.append({"videos": [asdict(p) for p in packets], "replaced": np.array(sorted(rows), int),
                                    "end": frame.index + 1},
                                   {"end": frame.index + 1, "compositor": compositor.state()})
            rows.clear()
        bar.update(frame=frame.index)
    write(compositor.flush())
    replaced[sorted(rows)] = True
