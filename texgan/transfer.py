"""From the source's texture in a frame and the target's neutral texture to the target's texture in that expression.

One signature for every method, method(target, source) -> texture: `static` and `delta` are the baselines of the paper's
Table 1, `GanTransfer` is the trained generator of section 5.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fitting.lift import BRIGHTEST

DETAIL = 0.04       # standard deviation, as a share of the chart, of the blur that tells light from folds
EYE_MOVED = 0.06    # mean change of albedo in an eye from which on its fine structure is another one
SHIPPED = "texgan/generator.safetensors"        # the generator's weights; named here, for texgan.generator brings torch


@dataclass(frozen=True)
class SourceTexture:
    """The source's albedo texture in one frame, with its neutral one under the same light.

    texture, neutral : (s, s, 3) float32
    validity, neutral_validity : (s, s) float32 in [0, 1], where they were seen
    mouth, eyes, brows : (s, s) float32 in [0, 1], the inside of the mouth, the eyes and the eyebrows on the chart
    """

    texture: np.ndarray
    validity: np.ndarray
    neutral: np.ndarray
    neutral_validity: np.ndarray
    mouth: np.ndarray
    eyes: np.ndarray
    brows: np.ndarray


def static(target, source=None):
    """The target's neutral texture as it is (the left pairs of the paper's figure 6)."""
    return target.rgb


def delta(target, source):
    """Direct delta transfer, the baseline of the paper's Table 1: the source's change is added to the target.

    Of the skin's change only what is finer than folds are wide is taken (DETAIL): broad changes of brightness between
    two frames come from light that the fit did not explain. Three regions can't take a sum. Brows have hard edges:
    where they are off by little on the chart, the change is a second pair, so they stay as they are. The mouth's
    inside is hidden in the neutral frame, so there is nothing to subtract from: the source's own mouth is taken, as
    far as it is seen. In the eyes, where a moved iris would add light to light, the result stays between the two
    people's values.

    Parameters
    ----------
    target : fitting.lift.Texture, the target's neutral one, (S, S, 3)
    source : SourceTexture; its size s may be smaller than S

    Returns
    -------
    (S, S, 3) float32
    """
    target_neutral = target.rgb
    size = target_neutral.shape[0]
    enlarge = lambda a: a if a.shape[0] == size else cv2.resize(a, (size, size), interpolation=cv2.INTER_LINEAR)
    seen = np.minimum(source.validity, source.neutral_validity) * (1 - source.mouth) * (1 - source.brows)
    features = np.maximum(source.mouth, source.eyes)
    out = target_neutral + enlarge(_detail(source.texture - source.neutral, seen, features))
    # eyes and mouth are small: only their windows are worked on
    for mask, blend in ((source.eyes, _between), (source.mouth * np.minimum(2 * source.validity, 1), _instead)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        scale = size // mask.shape[0]
        small = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        large = np.s_[rows[0] * scale:(rows[-1] + 1) * scale, columns[0] * scale:(columns[-1] + 1) * scale]
        shape = (large[1].stop - large[1].start, large[0].stop - large[0].start)
        weight = cv2.resize(np.ascontiguousarray(mask[small]), shape, interpolation=cv2.INTER_LINEAR)[..., None]
        texture = cv2.resize(np.ascontiguousarray(source.texture[small]), shape, interpolation=cv2.INTER_CUBIC)
        out[large] += weight * (blend(out[large], target_neutral[large], texture) - out[large])
    return np.clip(out, 0, BRIGHTEST)


def _detail(change, seen, whole):
    """A change (s, s, 3) where it was seen (s, s), without its part that is broader than DETAIL of the chart.

    Around the regions in `whole` (s, s), on lips and lids, broad changes are part of the expression and stay.
    """
    size = change.shape[0]
    small = max(8, round(2.5 / DETAIL))
    shrink = lambda a: cv2.GaussianBlur(cv2.resize(a, (small, small), interpolation=cv2.INTER_AREA), (0, 0), 2.5)
    weighted = change * seen[..., None]
    broad = shrink(weighted) / np.maximum(shrink(seen), 0.02)[..., None]
    broad *= 1 - np.minimum(8 * shrink(whole), 1)[..., None]
    return weighted - cv2.resize(broad, (size, size), interpolation=cv2.INTER_LINEAR) * seen[..., None]


def _between(changed, target, source):
    return np.clip(changed, np.minimum(target, source), np.maximum(target, source))


def _instead(changed, target, source):
    return source


class GanTransfer:
    """The change that the generator infers at 256 x 256, applied to the target's whole neutral texture.

    The photo's pores and hairs stay, since only the change is enlarged. Two places are not like that. Where the photo
    did not show the inside of the mouth there is nothing to change, and the generator's own values are taken. In the
    eyes what is fine belongs to an iris and a glint that move away: there it goes as far as the eye has changed.

    Parameters
    ----------
    generator : texgan.generator.TextureGenerator
    """

    def __init__(self, generator):
        self._generator, self._target = generator, None

    def __call__(self, target, source):
        """The target's texture: fitting.lift.Texture (S, S, 3) and SourceTexture -> (S, S, 3) float32."""
        size, ready = self._generator.size, self._target
        if ready is None or ready.texture is not target:
            ready = self._target = _Prepared.of(target, self._generator)
        change = self._generator.change(shrunk(source.texture, size), shrunk(source.validity, size), ready.small,
                                        ready.seen)
        out = ready.base + _enlarged(change, target.rgb.shape[0])
        moved = cv2.GaussianBlur(np.abs(change).mean(axis=2), (0, 0), 1.0)
        scale = target.rgb.shape[0] // size
        for window, detail in ready.eyes:
            gone = 1 - np.exp(-(moved[window] / EYE_MOVED) ** 2)
            out[window_at(window, scale)] -= cv2.resize(gone, detail.shape[1::-1])[..., None] * detail
        return np.clip(out, 0, BRIGHTEST, out=out)


@dataclass(frozen=True)
class _Prepared:
    """What a neutral texture gives once for all frames.

    small, seen : (s, s, 3), (s, s), the texture at the generator's size
    base : (S, S, 3), what changes are added to
    eyes : list of (window at the generator's size, (h, w, 3) fine structure of the eye there at full size)
    """

    texture: object
    small: np.ndarray
    seen: np.ndarray
    base: np.ndarray
    eyes: list

    @classmethod
    def of(cls, texture, generator):
        size, whole, masks = generator.size, texture.rgb.shape[0], generator.masks
        mouth = np.clip(_enlarged(masks.mouth, whole), 0, 1)
        base = texture.rgb * (1 - mouth * (1 - np.clip(2 * texture.validity, 0, 1)))[..., None]
        small, eyes = shrunk(texture.rgb, size), []
        detail = texture.rgb - _enlarged(small, whole)
        count, labels = cv2.connectedComponents((masks.eyes > 0).astype(np.uint8))
        for k in range(1, count):
            rows, columns = (np.flatnonzero((labels == k).any(axis=axis)) for axis in (1, 0))
            window = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
            weight = _enlarged(np.ascontiguousarray(masks.eyes * (labels == k)), whole)
            large = window_at(window, whole // size)
            eyes.append((window, weight[large][..., None] * detail[large]))
        return cls(texture, small, shrunk(texture.validity, size), base, eyes)


def window_at(window, scale):
    """A window (two slices) of a texture in one that is `scale` times as large."""
    return tuple(slice(s.start * scale, s.stop * scale) for s in window)


def _enlarged(array, size):
    return array if array.shape[0] == size else cv2.resize(array, (size, size), interpolation=cv2.INTER_CUBIC)


def shrunk(array, size):
    """A texture or map at `size` texels per side, averaged by areas."""
    return array if array.shape[0] == size else cv2.resize(array, (size, size), interpolation=cv2.INTER_AREA)


METHODS = ("gan", "delta", "static")


def transfer_method(name, model, weights=None, device="cpu"):
    """A method by its name.

    Parameters
    ----------
    name : one of METHODS
    model : MorphableModel whose chart the textures are on
    weights : path of the generator's weights; default the shipped ones
    device : 'cpu' or 'cuda', for the generator

    Raises
    ------
    InputError : for 'gan', when its weights can't be used with this model
    """
    if name != "gan":
        return {"static": static, "delta": delta}[name]
    from texgan.generator import TextureGenerator  # brings torch, which takes a second
    return GanTransfer(TextureGenerator(model, weights, device))
