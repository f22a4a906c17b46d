"""Where the 68 iBUG landmarks lie, and the paths along which the jaw line slides as the head turns."""
from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from facemodel.symmetry import MIRROR

# Points on the base mesh (millimetres, the subject's right half) with the jaw half open, placed by eye on renders.
# Index: iBUG, C. Sagonas et al., "300 Faces in-the-Wild Challenge", 2016, doi:10.1016/j.imavis.2016.01.002.
POINTS = {
    0: (-67.1, 740.1, 92.6), 1: (-68.1, 719.8, 92.8), 2: (-65.9, 700.7, 96.8), 3: (-61.3, 681.0, 99.3),
    4: (-53.3, 661.6, 104.9), 5: (-40.8, 638.9, 111.2), 6: (-29.3, 625.4, 118.7), 7: (-15.1, 615.5, 128.7),
    8: (0.0, 611.2, 130.7),
    17: (-53.7, 741.5, 126.4), 18: (-47.2, 746.5, 133.2), 19: (-35.8, 749.5, 141.1), 20: (-22.5, 749.1, 147.3),
    21: (-11.2, 746.8, 150.7),
    27: (0.0, 730.6, 150.6), 28: (0.0, 717.9, 154.0), 29: (0.0, 705.5, 160.8), 30: (0.0, 692.7, 167.8),
    31: (-11.2, 681.0, 151.5), 32: (-5.7, 679.9, 155.0), 33: (0.0, 678.7, 156.4),
    36: (-44.0, 728.7, 135.7), 37: (-38.2, 732.6, 140.0), 38: (-27.1, 732.3, 140.5), 39: (-17.6, 727.3, 138.2),
    40: (-26.2, 724.8, 139.5), 41: (-37.8, 724.5, 139.0),
    48: (-23.8, 654.8, 136.9), 49: (-16.2, 664.6, 151.2), 50: (-7.1, 667.4, 157.9), 51: (0.0, 666.3, 159.7),
    57: (0.0, 634.0, 144.3), 58: (-10.0, 637.5, 142.8), 59: (-17.6, 643.0, 140.0),
    60: (-21.5, 655.8, 137.4), 61: (-8.4, 660.5, 152.1), 62: (0.0, 660.0, 153.0), 66: (0.0, 645.2, 146.5),
    67: (-8.9, 647.6, 145.0),
}
JAW = np.arange(17)


def landmark_vertices(surface):
    """Nearest vertices to the landmarks: surface (V, 3) in mm, base space, jaw half open -> (68,) int."""
    tree, out = cKDTree(surface), np.zeros(68, np.int32)
    for k, point in POINTS.items():
        out[k] = tree.query(point)[1]
        if MIRROR[k] != k:
            out[MIRROR[k]] = tree.query(surface[out[k]] * [-1, 1, 1])[1]
    return out


def contour_paths(surface, landmarks, allowed, count=13, sweep_deg=36.0, beyond=4.0, behind=20.0):
    """Vertices over which each jaw landmark may slide.

    For every jaw landmark the outline is followed while the head turns about the axis that moves the surface under
    it: in a thin band through the landmark, the vertex that reaches furthest outwards at each angle.

    Parameters
    ----------
    surface : (V, 3) float, neutral mean, x to the subject's left, y up, z forward
    landmarks : (68,) int
    allowed : (V,) bool, skin of the head, without ears
    beyond, behind : float, mm outwards of the landmark and behind it where the neck begins, which is left out

    Returns
    -------
    (17, count) int32, from the side turned to the camera to the side turned away
    """
    jaw = surface[landmarks[JAW]]
    tangent = np.gradient(jaw[:, :2], axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    centre = surface[landmarks[27:]].mean(axis=0)[:2]
    outward *= np.sign(((jaw[:, :2] - centre) * outward).sum(axis=1, keepdims=True))
    angles = np.radians(np.linspace(-sweep_deg, sweep_deg, count))
    paths = np.zeros((17, count), np.int32)
    for k in range(17):
        offset = surface[:, :2] - jaw[k, :2]
        reach = offset @ outward[k]
        band = allowed & (np.abs(offset @ tangent[k]) < 1.6) & (reach > -45) & (reach < beyond)
        band &= surface[:, 2] > jaw[k, 2] - behind
        candidates = np.flatnonzero(band)
        reach = surface[candidates, :2] @ outward[k]
        for n, a in enumerate(angles):
            paths[k, n] = candidates[np.argmax(reach * np.cos(a) - surface[candidates, 2] * np.sin(a))]
    return paths


def spread_vertices(surface, landmarks, regions, count=150):
    """Vertices spread evenly over the face and away from its inner landmarks, by farthest-point sampling.

    Parameters
    ----------
    surface : (V, 3) float, mm
    landmarks : (68,) int
    regions : dict name -> (V,) float in [0, 1]

    Returns
    -------
    (count,) int32
    """
    other = np.maximum.reduce([regions[name] for name in ("mouth_interior", "eyes", "ears")])
    index = np.flatnonzero((regions["face"] > 0.9) & (other < 0.1))
    away = lambda vertex: np.linalg.norm(surface[index] - surface[vertex], axis=1)
    distance = np.min([away(vertex) for vertex in landmarks[17:]], axis=0)
    chosen = []
    for _ in range(count):
        chosen.append(index[distance.argmax()])
        distance = np.minimum(distance, away(chosen[-1]))
    return np.array(chosen, np.int32)
