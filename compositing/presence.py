"""How much of the target is shown: fading where the face is lost and found, and the user's own mask.

A frame without a usable face stays the original. The frames beside it fade, FADE of them, so that the target neither
pops in nor out; all that is in the track, so they depend on nothing but it. Where the track begins or ends with the
clip or the span there is nothing to fade to.
"""
from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from facemodel.errors import InputError
from fitting.video_reader import WHOLE, Span, VideoReader, probe, stored_frames

FADE = 4                     # frames
BLACK, WHITE = 0.1, 0.9      # luma up to which a mask is black, from which on white: compression leaves neither whole


def presence(status, fade=FADE):
    """Weight of the target in each frame.

    Parameters
    ----------
    status : (F,) str, of a Track
    fade : int, frames

    Returns
    -------
    (F,) float32 in [0, 1]: 0 unless 'ok'; k frames from the nearest such frame smoothstep(k / (fade + 1)), 1 from
    fade + 1 frames on
    """
    usable = np.asarray(status) == "ok"
    if usable.all():
        return np.ones(len(usable), np.float32)
    distance = distance_transform_edt(usable)
    x = np.clip(distance / (fade + 1), 0, 1)
    return (x * x * (3 - 2 * x)).astype(np.float32)


class Mask:
    """A video of what is never painted: white, frame by frame beside the source's.

    Parameters
    ----------
    path : of the mask video
    source : path of the source
    span : Span, the part of it that the mask is for

    Raises
    ------
    InputError : no video, not of the source's size, or with fewer frames; in `keep`, when its last ones can't
        be read
    """

    def __init__(self, path, source, span=WHOLE):
        self._path, self._reader, self._frames, self._last = path, None, None, (None, None)
        mine, its = probe(path), probe(source)
        if (mine.height, mine.width) != (its.height, its.width):
            raise InputError(f"--mask {path}: is {mine.width} x {mine.height}, but {source} is {its.width} x "
                             f"{its.height}; export the mask at the source's size")
        needed, there = span.count(stored_frames(source)) + span.first, stored_frames(path)
        if there < needed:
            raise InputError(f"--mask {path}: has {there} frames, {source} {needed} up to where its face is replaced; "
                             "export the mask for all of them, or end earlier with --end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._reader is not None:
            self._reader.close()

    def keep(self, index):
        """How much may be painted in a frame: (H, W) float32 in [0, 1], 0 where the mask is white.

        index : int, the frame's number, not below that of the call before: several faces may ask for the same
        """
        if self._last[0] == index:
            return self._last[1]
        if self._reader is None:
            self._reader = VideoReader(self._path, Span(index))
            self._frames = iter(self._reader)
        for frame in self._frames:
            if frame.index == index:
                white = (frame.rgb.astype(np.float32).mean(axis=2) / 255 - BLACK) / (WHITE - BLACK)
                self._last = index, 1 - np.clip(white, 0, 1)
                return self._last[1]
        raise InputError(f"--mask {self._path}: can't be read up to frame {index} of the source; export it again, or "
                         "end earlier with --end")
