"""Pictures looked up at points: against scipy's interpolation at pixel centres."""
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from facemodel.sampling import ROWS, sampled, samples


@pytest.mark.parametrize("channels", [(), (3,)])
def test_samples_are_scipys_and_more_than_a_picture_has_rows(channels):
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 1, (20, 30, *channels)).astype(np.float32)
    points = rng.uniform(-3, 33, (2 * ROWS + 5, 2)).astype(np.float32)
    planes = picture.reshape(20, 30, -1)
    known = np.stack([map_coordinates(planes[..., k], points.T[::-1] - 0.5, order=1, mode="nearest")
                      for k in range(planes.shape[2])], axis=-1)
    found = samples(picture, points)
    assert found.shape == (len(points), *channels) and found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(known.shape), known, atol=0.02)       # OpenCV counts in 1/32 of a pixel
    np.testing.assert_array_equal(sampled(picture, points[:12].reshape(3, 4, 2)).reshape(12, *channels), found[:12])


def test_a_pixels_centre_gives_the_pixel():
    picture = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert samples(picture, [[0.5, 0.5], [3.5, 2.5]]).tolist() == [0, 11]
