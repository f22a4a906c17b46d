"""The frames of a clip that are looked at before the first is composited; the source's neutral texture from them."""
from __future__ import annotations

import numpy as np

from fitting.lift import Lifter, Texture
from fitting.track import read_pictures

SOURCE_TEXTURE_SIZE = 512
NEUTRAL_FRAMES = 5            # that the source's neutral texture is the median of
ROW_FRAMES = 6                # that are compared with the frame before, for the grain
SPREAD_FRAMES, MAX_TURN = 10, 0.5    # frames over the whole clip, and how far their heads may be turned (radians)


def calm_frames(track, usual=0.0, count=NEUTRAL_FRAMES):
    """Trusted frames with little expression and a face to the camera: (n,) int, n <= count, in order of time.

    usual : (n_exp,) float, what expression is measured from; default the model's neutral face
    """
    usable = np.flatnonzero(track.status == "ok")
    effort = ((track.expression[usable] - usual) ** 2).sum(axis=1) + 2 * (track.rotation[usable] ** 2).sum(axis=1)
    calm = usable[np.argsort(effort, kind="stable")[:max(count, len(usable) // 20)]]
    return np.sort(calm)[np.linspace(0, len(calm) - 1, min(count, len(calm))).astype(int)]


def spread_frames(track, count=SPREAD_FRAMES):
    """Trusted frames over the whole clip whose faces are not turned far away: (n,) int, n <= count, in order."""
    near = np.flatnonzero((track.status == "ok") & (np.linalg.norm(track.rotation, axis=1) < MAX_TURN))
    return near[np.unique(np.linspace(0, len(near) - 1, count + 2)[1:-1].round().astype(int))] if len(near) else near


def frames_in_a_row(track, count=ROW_FRAMES):
    """Trusted frames behind a trusted one that shows another picture, spread over the clip: (n,) int, n <= count."""
    after = np.zeros(len(track), bool)
    after[1:] = (track.status[1:] == "ok") & (track.status[:-1] == "ok") & ~track.repeated()[1:]
    able = np.flatnonzero(after)
    near = np.searchsorted(able, spread_frames(track, count))
    return np.unique(able[near[near < len(able)]])


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
