"""Named regions of the embedded model, as weights in [0, 1] per control vertex."""
from __future__ import annotations

import numpy as np

NAMES = ("face", "mouth_interior", "lips", "eyes", "eyelids", "eyebrows", "nose", "forehead", "ears", "boundary")


def _near(points, curve, inner, outer):
    """1 within `inner` mm of a set of points, falling to 0 at `outer`."""
    distance = np.linalg.norm(points[:, None] - curve[None], axis=2).min(axis=1)
    return np.clip((outer - distance) / (outer - inner), 0, 1)


def build_regions(base, mesh, positions):
    """Region weights by name, symmetric.

    Parameters
    ----------
    base : BaseMesh
    mesh : ControlMesh
    positions : (V, 3) float, the base shape on the control mesh (millimetres, y up)

    Returns
    -------
    dict name -> (V,) float64; `face` is what the photometric fit looks at (skin, eyes and mouth, no ears, scalp, neck),
    `boundary` is what is never replaced in a video (ears, scalp, neck)
    """
    x, y, z = positions.T
    out = {}
    inside = np.zeros(len(positions))
    inside[mesh.mouth[1:-1, 1:-1]] = 1
    out["mouth_interior"] = inside
    rim = np.concatenate([mesh.mouth[0], mesh.mouth[-1], mesh.mouth[:, 0], mesh.mouth[:, -1]])
    lips = _near(positions, positions[rim], 6.5, 9.5)
    lips[inside > 0] = 0
    out["lips"] = lips
    eyes, lids = np.zeros(len(positions)), np.zeros(len(positions))
    for grid in (mesh.left_eye, mesh.right_eye):
        eyes[grid[1:-1, 1:-1]] = 1
        ring = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
        lids = np.maximum(lids, _near(positions, positions[ring], 6, 10))
    lids[eyes > 0] = 0
    out["eyes"], out["eyelids"] = eyes, lids
    t = np.linspace(0, 1, 20)[:, None]
    side = np.stack([np.abs(x), y, z], axis=1)
    brow = np.concatenate([(1 - t) * [11, 746, 151] + t * [34, 750, 142],
                           (1 - t) * [34, 750, 142] + t * [54, 742, 126]])
    out["eyebrows"] = _near(side, brow, 4, 8)
    ridge = (1 - t) * [0, 728, 150] + t * [0, 690, 166]
    out["nose"] = np.maximum(_near(side, ridge, 12, 17), _near(side, np.array([[12, 688, 150.0]]), 9, 13))
    out["forehead"] = np.clip((y - 752) / 6, 0, 1) * np.clip((800 - y) / 8, 0, 1) * np.clip((z - 75) / 20, 0, 1)
    ears = np.zeros(len(positions))
    for name, path in base.target_files("ears").items():
        if "ear-scale" in name or "ear-wing" in name:
            d = base.target(path)
            moved = np.linalg.norm(np.where(mesh.source[:, None] >= 0, d[mesh.source], 0), axis=1)
            ears = np.maximum(ears, moved > 0.8)
    ears[z > 85] = 0
    out["ears"] = ears
    # the face ends at the hairline, in front of the ears and under the jaw
    jaw_line = 618 + 0.010 * x ** 2                              # height of the jaw's lower edge over x
    face = np.clip((792 - y - 0.006 * x ** 2) / 10, 0, 1) * np.clip((z - 58) / 14, 0, 1)
    face *= np.clip((y - jaw_line + 6) / 6, 0, 1) * np.clip((z - (62 + 0.9 * np.maximum(655 - y, 0))) / 10, 0, 1)
    face *= 1 - ears
    face[(inside > 0) | (eyes > 0)] = 1
    out["face"] = face
    out["boundary"] = (face <= 0).astype(float)
    return {n: (out[n] + out[n][mesh.mirror]) / 2 for n in NAMES}
