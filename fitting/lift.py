"""One person's albedo textures, lifted from photos or frames so that they can be compared texel by texel.

The fit shares brightness out between light and skin only by its priors, so that two textures of one face differ by what
still looks like light. The neutral texture is therefore brought under the mean face's light, and every other one under
the neutral texture's.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facemodel.atlas import build_atlas
from facemodel.sampling import samples
from fitting.texture import (
    ResidualLight,
    albedo_texture,
    extract,
    fill,
    pose,
    region_texture,
    skin_weight,
    weight_texture,
)

BRIGHTEST = 1.3              # largest albedo that is kept: the fit may underestimate a light
KNOWN = 0.15                 # validity from which a texel's own colour is looked at
ASLANT, BETTER = 0.5, 0.3    # validity that is believed beside a better half, and by how much a half is better


@dataclass(frozen=True)
class Texture:
    """An albedo texture.

    rgb : (S, S, 3) float32 in [0, BRIGHTEST], complete
    validity : (S, S) float32 in [0, 1], 0 where it was not seen and rgb is filled in
    """

    rgb: np.ndarray
    validity: np.ndarray


class Lifter:
    """Lifts textures of a model's chart, `size` texels per side."""

    def __init__(self, model, size):
        self._model = model
        self.atlas = build_atlas(model, size)
        self._face = np.clip((region_texture(model, "face", self.atlas) - 0.3) * 2, 0, 1)
        self._skin = skin_weight(model, self.atlas)
        self._light = ResidualLight(model, self.atlas)
        self._mean = albedo_texture(model, None, self.atlas)

    def seen(self, image, track, t=0, free=None, apart=None):
        """What a picture shows of a person under the mean face's light: texture (S, S, 3) and validity (S, S) float32.

        Where the other half of the face is seen much better, what is seen aslant is not believed: the outline is near,
        and behind it hair and background. Parameters as of `neutral`
        """
        texture, validity = self._raw(image, track, t, free)
        better = np.clip((self.atlas.mirrored(validity) - validity) / BETTER, 0, 1)
        validity = validity * (1 - better * (1 - np.clip((validity - ASLANT) / BETTER, 0, 1)))
        skin = validity * self._skin * (1 if apart is None else 1 - apart)
        return texture * self._light.gain(texture, skin, self._mean), validity

    def neutral(self, image, track, t=0, free=None, albedo=None, apart=None):
        """A person's neutral texture, under the mean face's light.

        Parameters
        ----------
        image : (H, W, 3) uint8
        track : fitting.trackfile.Track that holds the picture's fit
        t : int, which of its frames
        free : optional (H, W) float32 in [0, 1], 0 where something lies before the face: not seen there
        albedo : (n_alb,) coefficients of what is filled in where nothing is seen; default the track's
        apart : optional (S, S) float32 in [0, 1], 1 where the skin is not the mean face's, a beard: it says nothing
            about the light

        Returns
        -------
        Texture
        """
        texture, validity = self.seen(image, track, t, free, apart)
        fallback = albedo_texture(self._model, track.albedo if albedo is None else albedo, self.atlas)
        complete = fill(texture, validity, self._model, self.atlas, fallback)
        return Texture(complete.clip(0, BRIGHTEST), validity)

    def frame(self, image, track, t, neutral, free=None):
        """The texture of the same person in another picture, under the light of its neutral Texture.

        What the picture does not show is as in the neutral texture. free : as in `neutral`
        """
        texture, validity = self._raw(image, track, t, free)
        seen = np.minimum(validity, neutral.validity) * self._skin
        texture = texture * self._light.gain(texture, seen, neutral.rgb, brightness=True)
        known = np.clip((validity - KNOWN) / 0.35, 0, 1)[..., None]
        return Texture((neutral.rgb + known * (texture - neutral.rgb)).clip(0, BRIGHTEST), validity)

    def _raw(self, image, track, t, free=None):
        model = self._model
        posed = pose(model, model.shape(track.identity, track.expression[t]), track.rotation[t], track.translation[t],
                     track.focal, track.principal_point)
        texture, validity = extract(image, posed, track.light[t], model, self.atlas)
        validity = validity * self._face
        if free is not None:
            validity = validity * weight_texture(model, samples(free, posed.xy), self.atlas)
        return texture, validity
