"""The target's texture in every frame: the source's is lifted, the method infers, mouth and eyes are redrawn."""
from __future__ import annotations

from compositing.mouth import MouthRedrawer, opening
from compositing.report import StageTimer
from compositing.wrinkles import WrinkleTransfer
from fitting.lift import Lifter
from fitting.texture import region_texture
from texgan.transfer import GanTransfer, SourceTexture, static

REGIONS = ("mouth_interior", "eyes", "eyebrows")


class TexturePerformer:
    """The target's texture as a clip's frames ask for it: `lift`, `infer` and `redraw`, one after the other.

    Each may run in a thread of its own, if it sees the frames in order.

    Parameters
    ----------
    model : MorphableModel
    track : Track of the source
    neutral : fitting.lift.Texture, the target's
    method : what infers the target's texture, see texgan.transfer; default static
    source_neutral : fitting.lift.Texture, the source's neutral one; None for `static`, which needs no source
    timer : StageTimer that the stages are added to
    eyes : compositing.eyes.EyeRedrawer, or None where eyes stay as the method infers them; needs source_neutral
    """

    def __init__(self, model, track, neutral, method=static, source_neutral=None, timer=None, eyes=None):
        self._model, self._track, self._neutral = model, track, neutral
        self._method, self._source_neutral = method, source_neutral
        self._lifter = self._masks = self._redrawer = self._wrinkles = None
        self._eyes = eyes
        self._timer = timer or StageTimer()
        if source_neutral:
            self._lifter = Lifter(model, source_neutral.rgb.shape[0])
            self._masks = [region_texture(model, name, self._lifter.atlas) for name in REGIONS]
        if isinstance(method, GanTransfer):       # the other methods have the source's own mouth, or none
            self._redrawer = MouthRedrawer(self._masks[0])
            self._wrinkles = WrinkleTransfer(model, source_neutral, neutral)

    def lift(self, rgb, t, free=None):
        """The source's fitting.lift.Texture in frame t of the track, or None where the method needs none.

        rgb : (H, W, 3) uint8, that frame
        free : optional (H, W) float32 in [0, 1], 0 where something lies before the face and nothing can be lifted
        """
        if not self._source_neutral:
            return None
        with self._timer("source texture"):
            return self._lifter.frame(rgb, self._track, t, self._source_neutral, free)

    def infer(self, lifted):
        """What the method makes of a source's texture: (S, S, 3) float32."""
        if lifted is None:
            return self._neutral.rgb
        with self._timer("target texture"):
            return self._method(self._neutral, self._source(lifted))

    def redraw(self, texture, lifted, t):
        """An inferred texture with folds, mouth and eyes of frame t: (S, S, 3) float32, maybe the same array."""
        if self._wrinkles:
            with self._timer("wrinkles"):
                self._wrinkles.draw(texture, lifted)
        if self._redrawer:
            with self._timer("mouth"):
                marks, track = self._model.landmarks, self._track
                opened = opening(self._model.shape(track.identity, track.expression[t], rows=marks), marks)
                texture = self._redrawer.redraw(texture, lifted.rgb, lifted.validity, opened)
        if self._eyes:
            with self._timer("eyes"):
                self._eyes.redraw(texture, lifted.rgb, lifted.validity, t)      # the method's own array, or the mouth's
        return texture

    def at_rest(self):
        """What the method makes of the source's neutral texture: (S, S, 3) float32, about the target's neutral one."""
        if not self._source_neutral:
            return self._neutral.rgb
        return self._method(self._neutral, self._source(self._source_neutral))

    def reset(self):
        """Forgets the frames before: a cut, or frames left out."""
        for part in (self._redrawer, self._eyes):
            if part:
                part.reset()

    def state(self):
        """All that is remembered from frame to frame, as plain data (see fitting.checkpoint)."""
        return {"mouth": self._redrawer and self._redrawer.state(), "eyes": self._eyes and self._eyes.state()}

    def restore(self, state):
        """Goes on from a state of a performer of the same settings."""
        for name, part in (("mouth", self._redrawer), ("eyes", self._eyes)):
            if part:
                part.restore(state[name])

    def _source(self, lifted):
        neutral = self._source_neutral
        return SourceTexture(lifted.rgb, lifted.validity, neutral.rgb, neutral.validity, *self._masks)
