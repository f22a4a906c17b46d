"""Points that were placed by hand, as landmarks."""
from __future__ import annotations

import numpy as np
import pytest

from facemodel.errors import InputError
from facemodel.symmetry import MIRROR
from texgan.webmorph import COUNT, LINES, POINTS, SHIFT, landmarks_by_hand


def write(path, points):
    path.write_text("\n".join([str(len(points)), *(f"{x}\t{y}" for x, y in points), "0"]))
    return path


@pytest.fixture(scope="module")
def usual(model):
    """Landmarks of the mean face, 100 units from outer eye corner to outer eye corner."""
    places = model.mean[model.landmarks][:, :2].astype(float)
    return places * 100 / np.linalg.norm(places[45] - places[36])


def placed(usual):
    """A template of the usual face: corners and lines go through its landmarks, all else lies far off."""
    out = np.full((COUNT, 2), 1e4)
    for marks, points in LINES.items():
        share = np.linspace(0, 1, len(points))
        own = np.linspace(0, 1, len(marks))
        out[points] = np.stack([np.interp(share, own, usual[list(marks)][:, c]) for c in (0, 1)], axis=1)
    for k, points in POINTS.items():
        out[points] = usual[k]
    across = (usual[45] - usual[36]) / 100
    down = np.array([-across[1], across[0]])
    for k, (x, y) in SHIFT.items():
        for mark, sign in ((k, 1), (MIRROR[k], -1)):
            out[POINTS[mark]] -= sign * x * across + y * down
    return out


def test_a_usual_face_s_points_are_its_landmarks(usual, tmp_path):
    seen = landmarks_by_hand(write(tmp_path / "a.tem", placed(usual)), usual)
    known = np.isfinite(seen).all(axis=1)
    assert set(np.flatnonzero(~known)) == {*range(8), *range(9, 17), 27, 28, 29, 30, 32, 34}
    corners = [k for k in np.flatnonzero(known) if k in POINTS]
    np.testing.assert_allclose(seen[corners], usual[corners], atol=1e-3)
    np.testing.assert_allclose(seen[known], usual[known], atol=1.5)       # lines are coarser than landmarks


def test_points_follow_a_face_that_is_turned_and_scaled(usual, tmp_path):
    turn = 3 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    carry = lambda points: points @ turn.T + [500, 400]
    here = landmarks_by_hand(write(tmp_path / "a.tem", placed(usual)), usual)
    there = landmarks_by_hand(write(tmp_path / "b.tem", carry(placed(usual))), usual)
    np.testing.assert_allclose(there, carry(here), atol=1e-6)


@pytest.mark.parametrize("text", ["", "3\n1 2\n3 4\n5 6\n", "189\n1 2\nnothing\n", "\x00"])
def test_another_file_is_refused_by_name(text, usual, tmp_path):
    (tmp_path / "a.tem").write_text(text)
    with pytest.raises(InputError, match=r"a\.tem: no points .* delete the file"):
        landmarks_by_hand(tmp_path / "a.tem", usual)
