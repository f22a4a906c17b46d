"""Rotations against SciPy, projection against OpenCV."""
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facemodel.camera import aimed, axis_angle, default_focal, project, rotation_matrix, skew, to_camera


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-7, 1e-4, 0.3, 2.0, 3.1, np.pi, 5.0])
def test_rotation_matrix_and_its_inverse(angle):
    rng = np.random.default_rng(0)
    for _ in range(5):
        axis = rng.normal(size=3)
        v = angle * axis / np.linalg.norm(axis)
        matrix = rotation_matrix(v)
        np.testing.assert_allclose(matrix, Rotation.from_rotvec(v).as_matrix(), atol=1e-14)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)
        back = axis_angle(matrix)
        np.testing.assert_allclose(rotation_matrix(back), matrix, atol=1e-12)
        if angle < 3.1:
            np.testing.assert_allclose(back, v, atol=1e-9)
        assert np.linalg.norm(back) <= np.pi + 1e-12


def test_skew_is_the_cross_product():
    a, b = np.random.default_rng(1).normal(size=(2, 6, 3))
    np.testing.assert_allclose(np.einsum("nij,nj->ni", skew(a), b), np.cross(a, b), atol=1e-14)


def test_projection_agrees_with_opencv():
    rng = np.random.default_rng(2)
    points, rotation, translation = rng.normal(0, 60, (50, 3)), rng.normal(0, 0.5, 3), np.array([12.0, -30, 700])
    focal, centre = 1234.5, np.array([320.3, 240.7])
    matrix = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    expected = cv2.projectPoints(points, rotation, translation, matrix, None)[0][:, 0]
    for r in (rotation, rotation_matrix(rotation)):
        np.testing.assert_allclose(project(to_camera(points, r, translation), focal, centre), expected, atol=1e-9)


def test_float32_stays_float32():
    points = np.random.default_rng(3).normal(0, 60, (5, 3)).astype(np.float32)
    camera = to_camera(points, np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 600.0]))
    assert camera.dtype == np.float32
    assert project(camera, 900.0, np.array([10.0, 20.0])).dtype == np.float32


def test_axes():
    """x right, y down, z forward: what is further to the right, lower or nearer lands where a photo shows it."""
    shown = project(np.array([[0.0, 0, 500], [10, 0, 500], [0, 10, 500], [10, 0, 250]]), 1000.0, np.array([50.0, 40.0]))
    np.testing.assert_allclose(shown, [[50, 40], [70, 40], [50, 60], [90, 40]])


def test_default_focal_depends_on_the_shorter_side():
    assert default_focal(480, 640) == default_focal(640, 480) == 960


def test_a_camera_is_aimed_by_the_shortest_way():
    centre = np.array([300.0, 200.0])
    for pixel in ([300, 200], [310, 180], [-500, 900]):
        turn = aimed(pixel, 700.0, centre)
        ray = np.append((np.array(pixel) - centre) / 700, 1)
        np.testing.assert_allclose(turn @ [0, 0, 1], ray / np.linalg.norm(ray), atol=1e-12)
        angle = np.arccos(1 / np.linalg.norm(ray))
        np.testing.assert_allclose(np.linalg.norm(axis_angle(turn)), angle, atol=1e-9)       # no shorter way there is
