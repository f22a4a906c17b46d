"""From a tracked frame of the source to the finished one: texture, rendering, seam, tone, blend."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np

from compositing import seam, views
from compositing.graph_cut import SeamLabeller
from compositing.occlusion import least
from compositing.performer import TexturePerformer
from compositing.pipeline import Pipeline
from compositing.presence import presence
from compositing.report import StageTimer
from compositing.retarget import Rendering, render, retarget_expression
from compositing.seat import seat_on
from compositing.sharpness import SharpnessMatch
from compositing.steady import Steadier
from compositing.tone import ToneMatch, least_eyes
from facemodel.atlas import build_atlas
from facemodel.sampling import samples
from fitting.detection import around
from fitting.follow import same_picture
from fitting.lift import Texture
from fitting.texture import bare_lips, bare_skin, region_texture
from fitting.video_reader import VideoFrame
from texgan.transfer import static

MOST_WAITING = 24            # frames that wait for labels: a still picture sends the labeller nothing new
AROUND = 0.6                 # of the landmarks' extent to each side: what is compared of two frames


@dataclass(frozen=True)
class _UnderWay:
    """A frame on its way through the compositor, and what has been made for it so far.

    t : int, its number in the track, or None where it shows no face that can be replaced
    keep : (H, W) float32, weight of painting, or None for 1; first what the user's mask leaves; once it waits for its
        labels, of the rendering's window
    lifted : fitting.lift.Texture, the source's. texture : (S, S, 3) float32, the target's
    rendering : Rendering, or None where the face is outside the frame
    thumbnail : the texture, small, if it will be shown. presence : float, weight of the target
    again : bool, it is the frame before once more and takes over what was made of that
    """

    frame: VideoFrame
    t: int | None
    keep: np.ndarray | None = None
    lifted: Texture | None = None
    texture: np.ndarray | None = None
    rendering: Rendering | None = None
    thumbnail: np.ndarray | None = None
    presence: float = 1.0
    again: bool = False


@dataclass(frozen=True)
class _Blended:
    """What a frame was finished with: Rendering, alpha (h, w) float32 in its window, share covered, Inspection."""

    rendering: Rendering
    alpha: np.ndarray
    covered: float
    inspection: views.Inspection | None


class Compositor:
    """Turns tracked frames of the source into finished ones, in order, with a latency of one seam window and a few.

    Frames go through on an assembly line: while one is blended, the next ones are rendered, inferred and lifted. What
    was made for a frame is laid over the next one, too, if that is the same once more (fitting.follow).

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
    shown : (F, n_exp), the expressions that the target is shown with; default compositing.retarget.retarget_expression
    eyes : optional compositing.eyes.EyeRedrawer
    toning : optional compositing.monochrome.Toning of a video without colours
    grain : optional compositing.grain.Grain of the video
    inspect : keep for every frame what it was made from, in `inspection`
    """

    def __init__(self, model, track, target, method=static, source_neutral=None, cost="between", smoothness=1e-3,
                 timer=None, skin="auto", mask=None, occlusion=None, seat=None, shown=None, eyes=None,
                 toning=None, grain=None, inspect=False):
        self._model, self._track, self._target = model, track, target
        self._labeller = SeamLabeller(model.coarse_edges, cost=cost, smoothness=smoothness)
        (self._inner, self._outer), self._beard = seam.seam_regions(model), seam.beard_region(model)
        nodes = model.coarse_index
        region = lambda name: model.regions[name][nodes]
        whites = region_texture(model, "eyes", build_atlas(model, len(target.texture.rgb)))
        self._bearded = np.zeros(len(nodes), bool) if target.beard is None else target.beard[nodes] > 0.5
        bare = (bare_skin(model)[nodes] > 0.7) & ~self._bearded
        self._tone = ToneMatch(model.uv[nodes], bare, self._outer, skin, region("eyes"),
                               region("mouth_interior"), bare_lips(model)[nodes], least_eyes(target.texture, whites),
                               seam.below_nose(model))
        self._shown_expression = retarget_expression(model, track, target) if shown is None else shown
        self._eyes, self._toning = eyes, toning
        self._seat = seat or seat_on(model, target.identity, track.identity)
        self._sharpness, self._grain, self._presence = SharpnessMatch(grain), grain, presence(track.status)
        self._mask, self._occlusion = mask, occlusion
        self._waiting, self._broken, self._steadier = deque(), True, Steadier()
        self._timer = timer or StageTimer()
        self._textures = TexturePerformer(model, track, target.texture, method, source_neutral, self._timer, eyes)
        self._inspect, self._line = inspect, Pipeline(self._lift, self._infer, self._render)
        self._alike = track.repeated() & (mask is None)      # frames to be shown as the one before, as far as is known
        self._alike[1:] &= np.diff(self._presence) == 0
        self._pushed = None         # number of the frame pushed last, and its picture, or the first like it
        self._blended = None        # what the frame yielded last was finished with
        self.inspection = None      # compositing.views.Inspection of the frame yielded last
        self.covered = 0.0          # share of the face in the frame yielded last that something lies before

    def push(self, frame):
        """Takes the next VideoFrame; yields (frame, rgb, alpha) for frames that are finished.

        rgb : (H, W, 3) float32 in [0, 1], alpha : (H, W) float32, 0 where the source is untouched; both None for a
        frame that is passed through
        """
        t = frame.index - int(self._track.frame_index[0])
        usable = 0 <= t < len(self._track) and self._track.status[t] == "ok"
        item = _UnderWay(frame, None)
        if usable:                                          # frames and mask are read here, for all faces' threads
            with self._timer("decode"):
                frame.rgb                                   # noqa: B018  computed on first use
            item = _UnderWay(frame, t, self._mask and self._mask.keep(frame.index), again=self._again(frame.rgb, t))
        else:
            self._pushed = None
        for done in self._line.push(item):
            yield from self._take(done)

    def _again(self, rgb, t):
        """Whether frame t of the track is the one before once more: its face has not moved, nor what is around it."""
        before, self._pushed = self._pushed, (t, rgb)
        if before is None or before[0] != t - 1 or not self._alike[t]:
            return False
        part = around(self._track.landmarks[t], AROUND)
        now, then = (picture[part] for picture in (rgb, before[1]))
        if not now.size or not same_picture(*(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (now, then))):
            return False
        self._pushed = t, before[1]                 # what changes slowly is seen at last
        return True

    def flush(self):
        """Yields the frames that still wait."""
        yield from self._emptied(self._labeller.flush)

    def settle(self):
        """Yields the frames that still wait; the next frame continues them. Then `state` can be taken."""
        yield from self._emptied(self._labeller.settle)

    def _emptied(self, end):
        """Yields the frames that still wait; `end` of the labeller gives the last of them."""
        self._pushed = None         # the next frame goes through all of it: another process may take it
        for item in self._line.drain():
            yield from self._take(item)
        yield from self._finish(end())

    def close(self):
        """Gives up the frames that still wait; afterwards nothing of them is looked at any more."""
        self._line.close()

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

    def _lift(self, item):
        """First on the line: what lies before the face, and the source's texture."""
        t = item.t
        if item.again:
            return item
        if t is None:
            if self._occlusion:
                self._occlusion.reset()
            return item
        rgb = item.frame.rgb
        with self._timer("occlusion"):
            thing, rim = self._occlusion.keep(rgb, t) if self._occlusion else (None, None)
            free = least(item.keep, thing)
        return replace(item, keep=least(free, rim), lifted=self._textures.lift(rgb, t, free))

    def _infer(self, item):
        """Second: the target's texture."""
        return item if item.t is None or item.again else replace(item, texture=self._textures.infer(item.lifted))

    def _render(self, item):
        """Third: what is redrawn in it, and the face in the frame."""
        model, track, t = self._model, self._track, item.t
        if item.again:
            return item
        if t is None:
            self._textures.reset()
            return item
        texture = self._textures.redraw(item.texture, item.lifted, t)
        expression = self._eyes.expression if self._eyes else self._shown_expression[t]
        with self._timer("render"):
            rendering = render(model, self._target.identity, texture, expression, track.rotation[t],
                               track.translation[t], track.light[t], track.focal, track.principal_point,
                               item.frame.rgb.shape[:2], self._seat)
            if self._toning and rendering:
                rendering.rgb[:] = self._toning(rendering.rgb)
        return replace(item, lifted=None, texture=None, rendering=rendering,
                       thumbnail=views.thumbnail(texture) if self._inspect else None)

    def _take(self, item):
        """What comes off the line: tone, seam and blend; yields as `push`."""
        if item.again and not self._broken:
            self._waiting.append(item)
            yield from self._finish(self._labeller.settle() if len(self._waiting) > MOST_WAITING else [])
            return
        if item.rendering is None:
            yield from self._finish(self._labeller.flush())
            self.inspection, self.covered = None, 0.0
            yield item.frame, None, None
            self._broken = True
            return
        with self._timer("seam"):
            labels = self._label(item.frame, item.rendering, item.keep)
        left, top, right, bottom = item.rendering.window
        keep = item.keep if item.keep is None else item.keep[top:bottom, left:right].copy()
        self._waiting.append(replace(item, keep=keep, presence=float(self._presence[item.t])))
        yield from self._finish(labels)

    def _label(self, frame, rendering, keep):
        left, top, right, bottom = rendering.window
        nodes = self._model.coarse_index
        crop = frame.rgb[top:bottom, left:right].astype(np.float32) / 255
        xy = rendering.posed.xy[nodes] - np.float32([left, top])
        source, target = samples(crop, xy), samples(rendering.rgb, xy)
        visible = seam.visible_vertices(rendering, nodes)
        if self._broken:
            self._tone.reset()
            self._sharpness.reset()
            self._steadier.reset()
        free = visible if keep is None else visible & (samples(keep[top:bottom, left:right], xy) > 0.5)
        gain = self._tone.gain(source, target, free)
        seam.tint(self._model, rendering, gain)
        inside = seam.label_mask(self._inner & free, self._model, rendering) > 0.5
        rendering.rgb[:] = self._steadier(frame.rgb, rendering.window, rendering.rgb, rendering.mask)
        rendering.rgb[:] = self._sharpness(crop, rendering.rgb, inside)
        if self._grain:
            rendering.rgb[:] = np.clip(rendering.rgb + self._grain.drawn(frame.index, *inside.shape), 0, 1)
        target = np.clip(target * gain, 0, 1)
        hard_source = self._outer | ~visible
        source = np.where((visible & ~free)[:, None], target, source)       # a hand says nothing about the seam
        reach = seam.reach(source, target, self._beard, self._bearded)
        labels = self._labeller.push(source, target, hard_source & ~(self._inner & visible), self._inner & visible,
                                     cost_source=reach, reset=self._broken)
        self._broken = False
        return labels

    def _finish(self, labels):
        """Blends the frames whose labels are there, and those that repeat them; yields as `push`."""
        yield from self._repeated()
        for label in labels:
            waiting = self._waiting.popleft()
            with self._timer("blend"):
                rendering, covered = waiting.rendering, 0.0
                alpha = seam.blend_alpha(label, self._model, rendering) * np.float32(waiting.presence)
                if waiting.keep is not None:
                    painted = float(alpha.sum())
                    alpha *= waiting.keep
                    covered = 1 - float(alpha.sum()) / painted if painted else 0.0
            inspection = None
            if self._inspect:
                inspection = views.inspection_of(self._model, rendering, label, waiting.thumbnail)
            self._blended = _Blended(rendering, alpha, covered, inspection)
            yield self._laid(waiting.frame)
            yield from self._repeated()

    def _repeated(self):
        """Yields the frames next in turn that repeat the one finished last."""
        while self._waiting and self._waiting[0].again:
            yield self._laid(self._waiting.popleft().frame)

    def _laid(self, frame):
        """A frame with the face that was finished last laid over it, as `push` yields it."""
        done = self._blended
        with self._timer("blend"):
            left, top, right, bottom = done.rendering.window
            picture = frame.rgb.astype(np.float32) / 255
            window = picture[top:bottom, left:right]
            picture[top:bottom, left:right] = seam.composite(window, done.rendering, done.alpha)
            whole = np.zeros(picture.shape[:2], np.float32)
            whole[top:bottom, left:right] = done.alpha
        self.covered, self.inspection = done.covered, done.inspection
        return frame, picture, whole
