"""Virtual people: a head of ICT-FaceKit with a skin, eyes, teeth and folds of its own, drawn at random."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from texgan.folds import Folds, draw_folds

IDENTITY_SIGMA = 0.75            # of the model's standard deviations
LARGEST_GAP = 0.3                # mm, of the lips, more than on the mean head
BRIGHTEST_SKIN = 0.86            # albedo of bare skin in its strongest channel; fits may confuse it with light
BARE = (28, 29, 31, 35, 39, 42)  # landmarks on skin without hair
LIDS = ((43, 47), (44, 46)), ((37, 41), (38, 40))      # landmarks of upper and lower lids, left and right
OVERLAP = 0.25                   # mm, of lids that are shut
BROWN = ((.38, .25, .16), (.32, .21, .14), (.26, .17, .12), (.21, .14, .11))
PALE = ((.36, .42, .47), (.34, .35, .26), (.38, .41, .42), (.30, .36, .42))
WHITE = np.array([0.96, 0.91, 0.85], np.float32)
LASHES = 0.03                    # of the chart's side, widest bundle of lashes that is taken away


@dataclass(frozen=True)
class Actor:
    """A virtual person.

    neutral : (V, 3) float32, file orientation, mm
    skin : (S, S, 3) float32, albedo in the embedded chart
    shades : (4, 3) float32, albedo of mucous membrane, gums, tongue, teeth
    iris : (4,) float32, albedo and a phase of its pattern
    folds : texgan.folds.Folds, where the skin creases and how readily
    resting : dict, weights that the face has at rest, added to every expression
    blink : (2,) float, by how much eyeBlink must be exaggerated, left and right, until the lids meet
    """

    neutral: np.ndarray
    skin: np.ndarray
    shades: np.ndarray
    iris: np.ndarray
    folds: Folds
    resting: dict
    blink: np.ndarray


def draw_actor(stage, rng, skin, age=None, sigma=IDENTITY_SIGMA, largest_gap=LARGEST_GAP):
    """A person with the given skin.

    Parameters
    ----------
    rng : numpy Generator
    skin : (S, S, 3) float32, complete albedo texture in the embedded chart
    age : float in [0, 1], how readily the skin folds; default drawn
    sigma : float, of the head's coefficients, in the model's standard deviations
    largest_gap : float, mm, by which lips at rest may part

    Returns
    -------
    Actor
    """
    coefficients = _draw_identity(stage, rng, sigma, largest_gap)
    neutral = stage.mean + np.tensordot(coefficients.astype(np.float32), stage.identity, 1)
    skin = plain_lids(stage, fill_outside(stage, np.asarray(skin, np.float32)))
    skin *= min(1, BRIGHTEST_SKIN / np.median(skin_at(stage, skin, stage.landmarks[list(BARE)]), axis=0).max())
    lips = np.median(skin_at(stage, skin, stage.landmarks[[49, 50, 51, 52, 53, 55, 56, 57, 58, 59]]), axis=0)
    red = np.float32([1.0, 0.62, 0.60]) * max(float(lips.mean()), 0.22) * 1.05
    shades = np.stack([0.5 * lips * [0.95, 0.75, 0.75] + 0.5 * red * [0.9, 0.72, 0.72],
                       0.45 * red + 0.55 * np.float32([0.76, 0.46, 0.45]),
                       0.25 * red + 0.75 * np.float32([0.84, 0.53, 0.52]),
                       WHITE * rng.uniform(0.9, 1.03) * [1, 1, rng.uniform(0.95, 1.04)]])
    shades *= rng.normal(1, 0.04, (4, 1))
    bare = np.median(skin_at(stage, skin, stage.landmarks[list(BARE)]), axis=0)
    irises = BROWN + PALE if bare.mean() > 0.55 and bare[0] < 1.6 * bare[2] else BROWN
    iris = np.append(np.array(irises[rng.integers(len(irises))]) * rng.uniform(0.85, 1.15), rng.uniform(0, 6))
    age = rng.uniform(0.15, 1.0) if age is None else age
    resting = {"eyeSquint": rng.uniform(0, 0.15), "eyeBlink": rng.uniform(0, 0.12)}
    return Actor(neutral.astype(np.float32), skin, shades.astype(np.float32), iris.astype(np.float32),
                 draw_folds(stage, neutral, rng, age), resting, _blink(stage, neutral))


def _draw_identity(stage, rng, sigma, largest_gap):
    """Coefficients (n,) of a head whose lips meet: some combinations of modes part them, over the teeth."""
    upper, lower = stage.landmarks[[61, 62, 63]], stage.landmarks[[67, 66, 65]]
    gap = stage.identity[:, upper, 1] - stage.identity[:, lower, 1]               # (n, 3) per standard deviation
    while True:
        drawn = np.clip(rng.normal(size=len(stage.identity)), -2, 2) * sigma
        if (drawn @ gap).max() < largest_gap:
            return drawn


def _blink(stage, neutral):
    """Weights (2,) of eyeBlink that shut the eyes: made for the mean head, it leaves others a slit."""
    out = np.ones(2)
    for k, side in enumerate(("Left", "Right")):
        moved = stage.expression[stage.expression_names.index(f"eyeBlink{side}")]
        upper, lower = (stage.landmarks[[pair[i] for pair in LIDS[k]]] for i in (0, 1))
        gap = neutral[upper, 1] - neutral[lower, 1]
        closing = moved[lower, 1] - moved[upper, 1]
        out[k] = np.clip((gap + OVERLAP) / closing, 1, 1.2).max()
    return out


def fill_outside(stage, skin):
    """A skin (S, S, 3) whose texels outside the chart are those of the chart's border."""
    size = len(skin)
    chart = cv2.resize(stage.chart, (size, size), interpolation=cv2.INTER_AREA) >= 1
    outside = (~chart).astype(np.uint8)
    _, label = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    source = np.zeros((label.max() + 1, 3), np.float32)
    source[label[chart]] = skin[chart]
    return source[label]


def plain_lids(stage, skin):
    """A skin (S, S, 3) without the lashes before the upper lids in its photo; a lid that closes would stretch them.

    Thin dark lines go by a grey-level closing (J. Serra, 1982).
    """
    size = len(skin)
    width = max(3, round(LASHES * size))
    closed = cv2.morphologyEx(skin, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    # on its own a closing would be the lid's brightest tone
    closed = (cv2.GaussianBlur(closed, (0, 0), width / 5) + cv2.GaussianBlur(skin, (0, 0), width / 2)) / 2
    share = cv2.resize(stage.lid_chart, (size, size))[..., None]
    return np.ascontiguousarray(skin + (closed - skin) * share)


def skin_at(stage, skin, vertices):
    """A skin's colours at vertices (N,): (N, 3)."""
    size = len(skin)
    at = np.clip((stage.uv[vertices] * [1, -1] + [0, 1]) * size, 0, size - 1).astype(int)
    return skin[at[:, 1], at[:, 0]]
