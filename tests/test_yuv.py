"""YUV and RGB: the matrices agree with FFmpeg's, and a picture survives the way there and back."""

import av
import numpy as np
import pytest

from compositing.video_writer import compose_yuv
from fitting.yuv import Colour, Planes, planes_to_rgb
from tests.clips import pattern


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p"])
@pytest.mark.parametrize("matrix", [1, 2, 6, 9])
@pytest.mark.parametrize("range_", [0, 1, 2])
def test_rgb_agrees_with_swscale(pix_fmt, matrix, range_):
    """PyAV's own conversion rounds down, so that it lies up to 3 levels lower; a wrong matrix is off by tens."""
    frame = av.VideoFrame.from_ndarray(pattern(0, 96, 64), "rgb24").reformat(format=pix_fmt)
    frame.colorspace, frame.color_range = matrix, range_
    arrays = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes]
    colour = Colour(matrix, 2 if pix_fmt.startswith("yuvj") else range_)
    ours = planes_to_rgb(Planes(*arrays), colour)
    assert np.abs(ours.astype(int) - frame.to_ndarray(format="rgb24")).max() <= 4


@pytest.mark.parametrize("colour", [Colour(), Colour(1, 1), Colour(1, 2), Colour(9, 1)])
def test_rgb_and_back_is_lossless(colour):
    """Any smooth 4:2:0 picture comes back to the sample: the block's chroma mean undoes the repetition."""
    rgb = pattern(3, 96, 64).astype(np.float32) / 255
    empty = Planes(np.zeros((64, 96), np.uint8), *np.zeros((2, 32, 48), np.uint8))
    everywhere = np.ones((64, 96))
    planes = compose_yuv(empty, rgb, everywhere, colour)
    again = compose_yuv(empty, planes_to_rgb(planes, colour), everywhere, colour)
    for plane, other in zip(planes, again):
        assert np.abs(plane.astype(int) - other).max() <= 1
        assert (plane != other).mean() < 0.25
