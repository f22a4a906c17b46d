"""The z-buffer against a brute force in float64, and the rules that its docstring states."""
import numpy as np
import pytest
from scipy.spatial import Delaunay

from facemodel.rasterizer import interpolate, rasterize

HEIGHT, WIDTH, FOCAL = 24, 31, 40.0
CENTRE = np.array([WIDTH / 2, HEIGHT / 2])


def brute_force(xy, z, triangles, cull):
    """Every pixel against every triangle in float64.

    Returns triangle (H, W), barycentric (H, W, 3), depth (H, W), and (H, W) bool: True where rounding to float32 can't
    change the answer.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    pixels = np.stack([x, y], -1)
    index = np.full((HEIGHT, WIDTH), -1)
    bary = np.zeros((HEIGHT, WIDTH, 3))
    depth = np.full((HEIGHT, WIDTH), np.inf)
    sure = np.ones((HEIGHT, WIDTH), bool)
    for t, corners in enumerate(triangles):
        if z[corners].min() <= 0:
            continue
        a, b, c = xy[corners]
        matrix = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
        area = np.linalg.det(matrix)
        if cull and area > 0:
            continue
        screen = np.concatenate([pixels, np.ones((HEIGHT, WIDTH, 1))], -1) @ np.linalg.inv(matrix).T
        weight = screen / z[corners]
        d = 1 / weight.sum(-1)
        inside = screen.min(-1) >= 0
        sure &= np.abs(screen.min(-1)) > 1e-5
        sure &= ~(inside & (np.abs(d - depth) < 1e-3))
        nearer = inside & (d < depth)
        index[nearer], depth[nearer] = t, d[nearer]
        bary[nearer] = (weight * d[..., None])[nearer]
    return index, bary, depth, sure


def soup(seed, count=25):
    """Random triangles before the camera: camera space (3 count, 3), pixels, triangles (count, 3)."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(20, 60, 3 * count)
    xy = (rng.uniform(-4, [WIDTH + 4, HEIGHT + 4], (count, 1, 2)) + rng.normal(0, 7, (count, 3, 2))).reshape(-1, 2)
    xy, z = xy.astype(np.float32).astype(float), z.astype(np.float32).astype(float)
    camera = np.column_stack([(xy - CENTRE) * z[:, None] / FOCAL, z])
    return camera, xy, rng.permutation(3 * count).reshape(-1, 3).astype(np.int32)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_brute_force(seed, cull):
    camera, xy, triangles = soup(seed)
    raster = rasterize(xy, camera[:, 2], triangles, HEIGHT, WIDTH, cull)
    index, bary, depth, sure = brute_force(xy, camera[:, 2], triangles, cull)
    assert sure.mean() > 0.97
    np.testing.assert_array_equal(raster.triangle[sure], index[sure])
    seen = sure & (index >= 0)
    assert seen.any()
    np.testing.assert_allclose(raster.barycentric[seen], bary[seen], atol=2e-5)
    np.testing.assert_allclose(raster.depth[seen], depth[seen], rtol=1e-5)
    assert np.isinf(raster.depth[~raster.mask]).all()


def test_interpolated_position_lies_on_the_ray_of_its_pixel():
    camera, xy, triangles = soup(3)
    raster = rasterize(xy, camera[:, 2], triangles, HEIGHT, WIDTH, False)
    at = interpolate(camera, triangles, raster)
    rows, columns = np.nonzero(raster.mask)
    ray = np.column_stack([(np.column_stack([columns, rows]) + 0.5 - CENTRE) / FOCAL, np.ones(len(rows))])
    a, b, c = (camera[triangles[raster.triangle[rows, columns], k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    hit = ray * ((normal * a).sum(1) / (normal * ray).sum(1))[:, None]       # ray against the triangle's plane
    np.testing.assert_allclose(at[rows, columns], hit, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(at[rows, columns, 2], raster.depth[rows, columns], rtol=1e-5)
    assert not at[~raster.mask].any()


def test_a_pixel_is_covered_by_its_centre():
    def covered(corners):
        return rasterize(np.array(corners), np.ones(3), np.array([[0, 1, 2]]), 4, 6, False).mask

    just_in = covered([[1.5, 1.5], [1.5, 2.4], [2.4, 1.5]])          # a corner on the centre of pixel (1, 1)
    assert np.argwhere(just_in).tolist() == [[1, 1]]
    assert not covered([[1.51, 1.51], [1.51, 2.4], [2.4, 1.51]]).any()
    edge = covered([[0.5, 2.5], [4.5, 2.5], [2.5, 0.9]])             # an edge through the centres of row 2
    assert edge[2].tolist() == [True, True, True, True, True, False]
    assert covered([[-50, -50], [-50, 100], [100, -50]]).all()       # corners far outside the picture


def test_culling_keeps_counter_clockwise_as_seen():
    xy = np.array([[1.0, 1], [1, 9], [9, 1]])        # y points down: counter-clockwise to the eye
    for triangle, seen in (([0, 1, 2], True), ([0, 2, 1], False)):
        assert rasterize(xy, np.ones(3), np.array([triangle]), 10, 10, True).mask.any() == seen
        assert rasterize(xy, np.ones(3), np.array([triangle]), 10, 10, False).mask.any()


def test_nearest_wins_in_any_order_and_the_first_at_equal_depth():
    corners = np.array([[-5.0, -5], [-5, 30], [30, -5]])
    xy, z = np.tile(corners, (3, 1)), np.repeat([7.0, 5.0, 5.0], 3)
    triangles = np.arange(9).reshape(3, 3)
    for order, nearest in (([0, 1], 1), ([1, 0], 0), ([1, 2], 0)):
        raster = rasterize(xy, z, triangles[order], 8, 8, False)
        assert (raster.triangle == nearest).all()
        np.testing.assert_allclose(raster.depth, 5, rtol=1e-6)


@pytest.mark.parametrize("z", [0.0, -3.0])
def test_triangles_that_reach_behind_the_camera_are_left_out(z):
    xy = np.array([[-5.0, -5], [-5, 30], [30, -5]])
    assert not rasterize(xy, np.array([5.0, 5.0, z]), np.array([[0, 1, 2]]), 8, 8, False).mask.any()


def test_triangles_without_area_are_left_out():
    assert not rasterize(np.array([[0.5, 0.5], [4.5, 4.5], [7.5, 7.5]]), np.ones(3), np.array([[0, 1, 2]]), 8, 8,
                         False).mask.any()


@pytest.mark.parametrize("grid", [None, 0.5, 0.25, 1 / 3])
def test_no_holes_between_triangles_that_share_an_edge(grid):
    size = 120
    for seed in range(6):
        rng = np.random.default_rng(seed)
        points = rng.uniform(-15, size + 15, (40 + 60 * seed, 2))
        points = np.concatenate([points, [[-30.5, -30.5], [size + 30.5, -30.5], [-30.5, size + 30.5],
                                          [size + 30.5, size + 30.5]]])
        if grid:                                     # edges that run exactly through pixel centres
            points = np.unique(np.round(points / grid) * grid + (0.5 if grid == 1 / 3 else 0), axis=0)
        triangles = Delaunay(points).simplices.astype(np.int32)
        raster = rasterize(points, rng.uniform(300, 400, len(points)), triangles, size, size, False)
        assert raster.mask.all(), f"{(~raster.mask).sum()} holes"


def test_interpolate_returns_zero_where_nothing_is_seen_and_any_number_of_columns():
    camera, xy, triangles = soup(1, count=3)
    raster = rasterize(xy, camera[:, 2], triangles, HEIGHT, WIDTH, False)
    out = interpolate(np.ones((len(xy), 5)), triangles, raster)
    assert out.shape == (HEIGHT, WIDTH, 5) and out.dtype == np.float32
    np.testing.assert_allclose(out, np.repeat(raster.mask[..., None], 5, axis=2), atol=1e-6)
