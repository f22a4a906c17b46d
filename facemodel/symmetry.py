"""Left and right exchanged: which landmark is which other's mirror image, and whose a mirrored head is."""
from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

# iBUG index of each of the 68 landmarks' partner on the other side
MIRROR = np.array([16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27,
                   28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50,
                   49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65])
INNER = MIRROR[17:] - 17     # likewise among the 51 without the jaw


def mirrored_identity(model):
    """The matrix that turns a head's identity coefficients into those of its mirror image.

    Least squares over the control mesh, whose mean is symmetric: (n_id, n_id) float64. The embedded model's components
    are symmetric or change sign, but for pairs of like variance that mix, so that nothing is lost.

    model : facemodel.morphable.MorphableModel
    """
    mean, basis = model.control_mean.astype(np.float64), model.control_identity.astype(np.float64)
    partner = cKDTree(mean).query(mean * [-1, 1, 1])[1]
    image = basis[partner] * np.array([-1, 1, 1])[:, None]
    count = basis.shape[2]
    return np.linalg.lstsq(basis.reshape(-1, count), image.reshape(-1, count), rcond=None)[0]
