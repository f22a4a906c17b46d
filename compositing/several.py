"""Several faces of one video: their compositors side by side, and their pictures laid over each other."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from compositing.labelling import face_outline
from fitting.video_reader import VideoFrame

SOFT = 0.04          # of a face's width: blur of the outline behind which a face that is farther away is hidden


@dataclass(frozen=True)
class _Finished:
    """What one compositor made of a frame; box, rgb (h, w, 3) and alpha (h, w) float32 are None where it passed."""

    frame: VideoFrame
    box: tuple | None
    rgb: np.ndarray | None
    alpha: np.ndarray | None
    inspection: object
    covered: float = 0.0


class Faces:
    """Compositors of one clip, one per face, that together look like one compositor.

    Where faces overlap the one that is nearer lies on top, and its whole outline hides the other's; what is nearer is
    told by depth over focal length, since each track has its own camera. With one face all of it is that compositor's.

    Parameters
    ----------
    compositors : list of compositing.compositor.Compositor, one per face
    tracks : list of Track, theirs; of the same frames

    inspection : list of compositing.views.Inspection of the frame yielded last, of the faces shown in it
    shown : (K,) bool, which of the faces show their target in the frame yielded last
    covered : (K,) float, share of each that something lies before in it
    """

    def __init__(self, compositors, tracks):
        self._compositors, self._tracks = compositors, tracks
        self._first = int(tracks[0].frame_index[0])
        self._queues = [deque() for _ in compositors]
        self.inspection, self.shown = [], np.zeros(len(compositors), bool)
        self.covered = np.zeros(len(compositors))

    def push(self, frame):
        """Takes the next VideoFrame; yields (frame, rgb, alpha) as compositing.compositor.Compositor does."""
        yield from self._together([c.push(frame) for c in self._compositors])

    def flush(self):
        """Yields the frames that still wait."""
        yield from self._together([c.flush() for c in self._compositors])

    def settle(self):
        """Yields the frames that still wait; the next frame continues them. Then `state` can be taken."""
        yield from self._together([c.settle() for c in self._compositors])

    def close(self):
        """Gives up the frames that still wait."""
        for compositor in self._compositors:
            compositor.close()

    def state(self):
        """All that is remembered from frame to frame, as plain data (see fitting.checkpoint); after `settle`."""
        return [c.state() for c in self._compositors]

    def restore(self, state):
        """Goes on from a state."""
        for compositor, its in zip(self._compositors, state, strict=True):
            compositor.restore(its)

    def _together(self, finished):
        if len(self._compositors) == 1:              # one picture at a time, nothing is copied
            for frame, rgb, alpha in finished[0]:
                inspection = self._compositors[0].inspection
                self.inspection = [] if rgb is None or inspection is None else [inspection]
                self.shown, self.covered = np.array([rgb is not None]), np.array([self._compositors[0].covered])
                yield frame, rgb, alpha
            return
        for queue, compositor, items in zip(self._queues, self._compositors, finished):
            for frame, rgb, alpha in items:
                queue.append(_cut_out(frame, rgb, alpha, compositor))
        while all(self._queues):
            yield self._merged([queue.popleft() for queue in self._queues])

    def _merged(self, parts):
        frame = parts[0].frame
        self.shown = np.array([part.rgb is not None for part in parts])
        self.covered = np.array([part.covered for part in parts])
        self.inspection = [part.inspection for part in parts if part.rgb is not None and part.inspection is not None]
        if not self.shown.any():
            return frame, None, None
        t = frame.index - self._first
        order = sorted(np.flatnonzero(self.shown), key=lambda k: -self._distance(k, t))
        source = frame.rgb.astype(np.float32) / 255
        out, whole = source.copy(), np.zeros(source.shape[:2], np.float32)
        for place, k in enumerate(order):
            part = parts[k]
            nearer = [self._tracks[i].landmarks[t] for i in order[place + 1:]]
            composite_over(out, whole, source, part.box, part.rgb, part.alpha, nearer)
        return frame, out, whole

    def _distance(self, k, t):
        track = self._tracks[k]
        return float(track.translation[t, 2] / track.focal)


def _cut_out(frame, rgb, alpha, compositor):
    """The part of a picture that was changed, so that frames that wait for another face hold no more than that."""
    if rgb is None:
        return _Finished(frame, None, None, None, None)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    box = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] if len(rows) else np.s_[:0, :0]
    return _Finished(frame, box, rgb[box].copy(), alpha[box].copy(), compositor.inspection, compositor.covered)


def composite_over(out, whole, source, box, rgb, alpha, nearer=()):
    """Lays a finished face over a picture, in place.

    Parameters
    ----------
    out : (H, W, 3) float32 in [0, 1], the picture so far
    whole : (H, W) float32 in [0, 1], where it differs from the source
    source : (H, W, 3) float32, the frame
    box : two slices, rows and columns, where the face is
    rgb : (h, w, 3) float32, there: the source with the face blended into it by alpha (h, w) in [0, 1]
    nearer : landmarks (68, 2) in pixels of faces that hide this one
    """
    if not alpha.size:
        return
    free = 1 - hidden_by(nearer, box, alpha.shape)
    covered = 1 - (alpha * free)[..., None]
    out[box] = source[box] + (rgb - source[box]) * free[..., None] + (out[box] - source[box]) * covered
    whole[box] = 1 - (1 - whole[box]) * covered[..., 0]


def hidden_by(faces, box, shape):
    """How far faces with landmarks (68, 2) hide what lies in a box: (h, w) float32 in [0, 1], 0 where not at all."""
    out = np.zeros(shape, np.float32)
    for landmarks in faces:
        outline = face_outline(landmarks)
        if outline is None:
            continue
        mask = np.zeros(shape, np.float32)
        cv2.fillConvexPoly(mask, np.round(outline - [box[1].start, box[0].start]).astype(np.int32), 1)
        sigma = max(0.5, SOFT * np.ptp(outline[:, 0]))
        np.maximum(out, cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), out=out)
    return out
