"""Landmarks that were moved away come back to where pictures show them."""
from dataclasses import replace

import numpy as np
import pytest

from facemodel.camera import project, rotation_matrix, to_camera
from facemodel.errors import InputError
from facemodel.morphable import FLIP
from facemodel.symmetry import MIRROR
from fitting.place_landmarks import Render, offset, place_jaw, read_ply, read_renders, settle, usual_offset
from fitting.solver import outline_vertices

CENTRE = np.array([256.0, 256.0])


def seen(model, angles, focal=900.0):
    """The model's mean head in a pose (degrees about x and y) and its own landmarks there: Render."""
    surface = to_camera(model.mean.astype(float), rotation_matrix(np.radians([*angles, 0])), np.array([3.0, -5, 560]))
    marks = model.landmarks.copy()
    marks[:17] = outline_vertices(model, surface, np.eye(3), np.zeros(3), focal, CENTRE)
    return Render(surface, project(surface[marks], focal, CENTRE), focal, CENTRE)


@pytest.fixture(scope="module")
def renders(model):
    return [seen(model, a) for a in ((0, 0), (8, -20), (-8, 20), (5, 12), (-5, -12))]


def test_where_the_markup_agrees_nothing_is_off(model, renders):
    assert np.abs([offset(model, r) for r in renders]).max() < 1e-9


def test_offsets_are_millimetres_in_the_frame_of_the_eyes(model, renders):
    """Detected points moved by 3 mm to the subject's left and 2 mm down, in pictures that are rolled."""
    for roll in (0.0, 0.3):
        r = renders[0]
        turn = rotation_matrix(np.array([0, 0, roll]))
        surface = r.surface @ turn.T
        scale = r.focal / surface[model.landmarks[17:], 2].mean()
        detected = project(r.surface @ turn.T, r.focal, CENTRE)[model.landmarks] + turn[:2, :2] @ [3 * scale, 2 * scale]
        found = offset(model, replace(r, surface=surface, detected=detected))
        np.testing.assert_allclose(found[17:].mean(axis=0), [3, 2], atol=0.05)


def test_usual_offset_is_symmetric_and_leaves_out_the_odd_ones():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(68, 2))
    true = (true + true[MIRROR] * [-1, 1]) / 2
    offsets = true + rng.normal(0, 1e-3, (40, 68, 2))
    offsets[7] += 500
    usual = usual_offset(offsets)
    np.testing.assert_allclose(usual, true, atol=5e-3)
    np.testing.assert_allclose(usual[MIRROR] * [-1, 1], usual, atol=1e-12)


def test_displaced_landmarks_and_jaw_come_back(model, renders):
    surface = (model.mean * FLIP).astype(float)
    lower = np.zeros((68, 2))
    lower[:17, 1] = -8
    jaw = place_jaw(surface, np.column_stack([model.landmarks[:17], model.contour_paths]), lower)
    marks = model.landmarks.copy()
    marks[:17] = jaw[:, 0]
    for k in (30, 33, 51):
        marks[k] = np.linalg.norm(surface - surface[marks[k]] - [0, 3, 0], axis=1).argmin()
    displaced = replace(model, landmarks=marks, contour_paths=jaw[:, 1:])
    settled = settle(displaced, renders)
    size = lambda m: np.linalg.norm(usual_offset(np.array([offset(m, r) for r in renders])), axis=1)
    before, after = size(displaced), size(settled)
    assert before[[30, 33, 51]].min() > 1.5 and after[[30, 33, 51]].max() < 0.8
    assert after[:17].mean() < 0.4 * before[:17].mean()
    lids = np.r_[36:48, 60:68]
    np.testing.assert_array_equal(settled.landmarks[lids], model.landmarks[lids])


def test_ply_and_missing_folders(tmp_path):
    points = np.float32([[0, 0, 0], [1, 0, 0], [0, 2, 0]])
    head = (b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
            b"property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n")
    file = tmp_path / "a.ply"
    file.write_bytes(head + points.tobytes() + b"\x03" + np.int32([2, 0, 1]).tobytes())
    vertices, triangles = read_ply(file)
    np.testing.assert_array_equal(vertices, points)
    np.testing.assert_array_equal(triangles, [[2, 0, 1]])
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a binary .ply"):
        read_ply(file)
    with pytest.raises(InputError, match="no ground_truth.json"):
        read_renders(None, None, tmp_path)
