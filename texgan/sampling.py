"""Training examples: which textures go together, and how they are varied (section 7.2).

An example is a source texture, a target's neutral texture and the target's texture with the source's expression. Where
clips share a script (photos of the same expression, rendered performances) source and target are two people, those who
show it most alike: from a faint smile for a broad one there would be nothing to learn but to ignore the source.
Everywhere a person can also be its own source, in another person's skin, so that copying the source does not pay.

Example number n of a seed is always the same, which is all that a training needs to be resumed exactly.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from facemodel.atlas import Atlas, build_atlas
from fitting.lift import BRIGHTEST
from fitting.texture import region_texture
from texgan.dataset import SIZE, decode

SKINS, SKIN_SIGMA = 15, 0.1          # of section 7.2: new skins per person, in units of the components
COMPONENTS = 40
OWN_SOURCE = 0.5                     # of the examples, where a script offers other people as well
STILL = 0.08                         # share of examples that show the neutral expression
ALIKE = 1 / 3                        # of the people who could be the source: those whose expression is most like it
WARP_CELLS = 10                      # per side of the grid on which the source's warp is drawn
FEATURE_WEIGHT = 10.0                # of section 5.3: mouth and eyes against the rest


@dataclass(frozen=True)
class Masks:
    """Regions of the chart at 256 x 256, (256, 256) float32 in [0, 1].

    mouth : the inside of the mouth
    eyes : the eyeballs' fronts
    features : what section 5.3 weighs ten times: mouth, lips, eyes, lids
    chart : texels that belong to the surface
    atlas : facemodel.atlas.Atlas of the chart
    """

    mouth: np.ndarray
    eyes: np.ndarray
    features: np.ndarray
    chart: np.ndarray
    atlas: Atlas

    @classmethod
    def of(cls, model, size=SIZE):
        atlas = build_atlas(model, size)
        region = lambda name: region_texture(model, name, atlas)
        features = np.max([region(n) for n in ("mouth_interior", "lips", "eyes", "eyelids")], axis=0)
        clip = lambda x: np.clip(x, 0, 1)
        return cls(clip(region("mouth_interior")), clip(region("eyes")), clip(features), atlas.mask.astype(np.float32),
                   atlas)


def network_input(rgb, validity, masks):
    """A texture as the networks see it: the inside of the mouth is black as far as it was not seen.

    Parameters
    ----------
    rgb : (256, 256, 3) float32 albedo
    validity : (256, 256) float32
    masks : Masks

    Returns
    -------
    (256, 256, 3) float32
    """
    return rgb * (1 - masks.mouth * (1 - np.clip(2 * validity, 0, 1)))[..., None]


@dataclass(frozen=True)
class Skins:
    """Principal components of people's neutral albedos.

    basis : (n, 256 * 256 * 3) float32, scaled to one standard deviation each
    """

    basis: np.ndarray

    @classmethod
    def learn(cls, albedos, atlas, components=COMPONENTS):
        """From neutral textures (P, 256, 256, 3) uint8 of an atlas, and their mirror images."""
        data = decode(np.stack([*albedos, *map(atlas.mirrored, albedos)])).reshape(2 * len(albedos), -1)
        data -= data.mean(axis=0)
        value, vector = np.linalg.eigh(data @ data.T)               # fewer people than texels
        kept = np.argsort(-value)[:min(components, len(albedos) - 1)]
        basis = (vector[:, kept].T @ data) / np.sqrt(len(data) - 1)
        return cls(basis.astype(np.float32))

    def offset(self, rng, sigma=SKIN_SIGMA):
        """(256, 256, 3) float32 to add to an albedo, drawn with `sigma` standard deviations."""
        weight = rng.standard_normal(len(self.basis)).astype(np.float32) * sigma
        return (weight @ self.basis).reshape(SIZE, SIZE, 3)


@dataclass(frozen=True)
class Variation:
    """How examples are varied; zeros leave them as they are.

    skins : bool, section 7.2's new skins
    lent : float, share of examples whose target wears, wholly or in part, another person's skin, neutral and changed;
        and share of the sources taken from others that do
    tone : float, standard deviation of the logarithm of the gain; a third of it for each channel by itself
    source_tone : float, the same for the source alone
    shift : float, texels by which the source is off as a whole, standard deviation, and as much again by a smooth warp
    blur : float, largest standard deviation of a blur of the source, texels
    mirror : bool
    """

    skins: bool = True
    lent: float = 0.75
    tone: float = 0.10
    source_tone: float = 0.15
    shift: float = 0.5
    blur: float = 0.8
    mirror: bool = True


NONE = Variation(False, 0, 0, 0, 0, 0, False)


@dataclass(frozen=True)
class Example:
    """source, neutral, truth : (256, 256, 3) float32; weight : (256, 256) float32, 0 where the truth is not known."""

    source: np.ndarray
    neutral: np.ndarray
    truth: np.ndarray
    weight: np.ndarray


class Examples:
    """Draws examples from clips.

    Parameters
    ----------
    clips : list of texgan.dataset.Clip
    masks : Masks
    mix : dict script -> share of the examples; clips without a script are under ""; default: by number of clips
    variation : Variation
    seed : int
    feature_weight : of mouth and eyes
    """

    def __init__(self, clips, masks, mix=None, variation=None, seed=0, feature_weight=FEATURE_WEIGHT):
        self._clips, self._masks, self._seed = clips, masks, seed
        self._variation = Variation() if variation is None else variation
        self._weight = 1 + (feature_weight - 1) * masks.features
        scripts = {}
        for i, clip in enumerate(clips):
            if len(clip) > 1:
                scripts.setdefault(clip.info.script, []).append(i)
        if missing := [s for s, share in (mix or {}).items() if share and s not in scripts]:
            raise ValueError(f"no clips of two frames or more for the script '{missing[0]}' of the mix")
        shares = {s: (len(c) if mix is None else mix.get(s, 0.0)) for s, c in scripts.items()}
        self._scripts = [scripts[s] for s in sorted(scripts)]
        total = sum(shares.values())
        if not total:
            raise ValueError("no clips of two frames or more")
        self._shares = np.array([shares[s] / total for s in sorted(scripts)])
        self._frames = [{n: t for t, n in enumerate(c.info.frames)} for c in clips]
        neutrals = np.stack([c.textures[c.info.neutral] for c in clips])
        self._skins = Skins.learn(neutrals, masks.atlas) if self._variation.skins and len(clips) > 2 else None

    def __call__(self, number):
        """Example `number` of this seed."""
        rng = np.random.default_rng([self._seed, number])
        group = self._scripts[rng.choice(len(self._scripts), p=self._shares)]
        target = group[rng.integers(len(group))]
        source, t_source, t_target, dress = self._pair(rng, group, target)
        return self._varied(rng, source, t_source, target, t_target, dress)

    def _pair(self, rng, group, target):
        """Source clip, its frame, the target's frame, and who lends the source its skin (or None)."""
        clip = self._clips[target]
        neutral = clip.info.neutral
        if rng.random() < STILL:
            t = neutral
        else:
            others = np.flatnonzero(np.arange(len(clip)) != neutral)
            t = int(others[rng.integers(len(others))])
        if clip.info.script and rng.random() > OWN_SOURCE:
            name = clip.info.frames[t]
            able = [i for i in group if self._clips[i].info.identity != clip.info.identity and name in self._frames[i]]
            if t != neutral:
                able = self._alike(target, t, able)
            if able:
                source = able[rng.integers(len(able))]
                return source, self._frames[source][name], t, None
        able = [i for i, c in enumerate(self._clips) if c.info.identity != clip.info.identity]
        return target, t, t, able[rng.integers(len(able))] if able else None

    def _alike(self, target, t, others):
        """Those of other clips who show the expression of frame t most as the target does: as broad a smile, say."""
        name = self._clips[target].info.frames[t]
        changes = lambda i, k: self._clips[i].expression[k] - self._clips[i].expression[self._clips[i].info.neutral]
        own = changes(target, t)
        gap = [float(((changes(i, self._frames[i][name]) - own) ** 2).sum()) for i in others]
        return [others[k] for k in np.argsort(gap, kind="stable")[:math.ceil(ALIKE * len(others))]]

    def _varied(self, rng, source, t_source, target, t_target, dress):
        v, masks, clip = self._variation, self._masks, self._clips[target]
        neutral, truth = decode(clip.textures[clip.info.neutral]), decode(clip.textures[t_target])
        seen, seen_truth = (clip.validity[t] / np.float32(255) for t in (clip.info.neutral, t_target))
        a = self._clips[source]
        texture, seen_source = decode(a.textures[t_source]), a.validity[t_source] / np.float32(255)
        if dress is not None:
            other = self._clips[dress]
            texture = texture + (1 - masks.mouth)[..., None] * (decode(other.textures[other.info.neutral]) - neutral)
        skin = (1 - masks.mouth)[..., None]
        if dress is None and rng.random() < v.lent:            # whose skin the source has is nothing to learn from
            lender = self._clips[rng.integers(len(self._clips))]
            own = decode(a.textures[a.info.neutral])
            texture = texture + skin * rng.uniform() * (decode(lender.textures[lender.info.neutral]) - own)
        if rng.random() < v.lent:
            lender = self._clips[rng.integers(len(self._clips))]
            offset = skin * rng.uniform() * (decode(lender.textures[lender.info.neutral]) - neutral)
            neutral, truth = neutral + offset, truth + offset
        if self._skins is not None:
            if number := int(rng.integers(SKINS + 1)):        # 0 is the person's own
                offset = skin * self._skins.offset(np.random.default_rng([self._seed, target, number]))
                neutral, truth = neutral + offset, truth + offset
            texture = texture + skin * self._skins.offset(rng)
        gain = _gain(rng, v.tone)
        neutral, truth, texture = neutral * gain, truth * gain, texture * _gain(rng, v.source_tone)
        texture, seen_source = _moved(rng, texture, seen_source, v.shift, v.blur)
        known = clip.confidence[t_target] / np.float32(255)
        weight = self._weight * known * np.maximum(seen, masks.features) * masks.chart
        inputs = [network_input(texture, seen_source, masks), network_input(neutral, seen, masks), truth]
        arrays = [x.clip(0, BRIGHTEST) for x in inputs] + [weight]
        if v.mirror and rng.random() < 0.5:
            arrays = [self._masks.atlas.mirrored(x) for x in arrays]
        return Example(*(np.ascontiguousarray(x, np.float32) for x in arrays))


def _gain(rng, spread):
    return np.exp(spread * (rng.standard_normal(3) / 3 + rng.standard_normal())).astype(np.float32)


def _moved(rng, texture, validity, shift, blur):
    """The source's texture slightly off and out of focus, as a clip's is."""
    h, w = validity.shape
    sigma = rng.random() * blur
    if shift:
        whole = shift * rng.standard_normal(2)
        coarse = (shift * rng.standard_normal((WARP_CELLS, WARP_CELLS, 2))).astype(np.float32)
        flow = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) + whole.astype(np.float32)
        x, y = flow[..., 0] + np.arange(w, dtype=np.float32), flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]
        move = lambda a: cv2.remap(a, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        texture, validity = move(texture), move(validity)
    if sigma > 0.3:
        texture = cv2.GaussianBlur(texture, (0, 0), sigma)
    return texture, validity
