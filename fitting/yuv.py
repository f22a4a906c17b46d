"""8-bit planar YUV, its colour tags, and the way from and to RGB.

A frame is first brought to 8-bit planar YUV (`Planes`); samples of 8-bit 4:2:0 and 4:4:4 sources are taken as they are,
everything else goes through swscale. RGB is computed from the planes with the frame's own matrix and range. Where the
file does not say, BT.601 in limited range is taken, as swscale does. Each chroma sample is used for all the pixels of
its 2 x 2 block: then RGB → YUV with a 2 x 2 mean, as `compositing.video_writer` does it, gives the chroma back, which a
smoother interpolation would not.
"""

from dataclasses import dataclass
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

_FULL_RANGE = 2
_RGB_SPACE = 0
# AVColorSpace → (Kr, Kb); everything else, "unspecified" (2) included, is BT.601
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)
LUMINANCE = np.float32([_BT601[0], 1 - sum(_BT601), _BT601[1]])
"""Weights of R, G and B in BT.601's luma."""
_UNTOUCHED = {"yuv420p", "yuvj420p", "yuv444p", "yuvj444p"}


class Planes(NamedTuple):
    """8-bit YUV, upright: `y` (H, W); `u`, `v` both (H, W), or both (H/2, W/2) where H and W are even. uint8."""

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @property
    def subsampled(self) -> bool:
        """Whether the chroma planes have half the size (4:2:0)."""
        return self.u.shape != self.y.shape


@dataclass(frozen=True)
class Colour:
    """Colour tags as FFmpeg numbers them: ITU-T H.273, 2 is unspecified; `range` 0 unspecified, 1 limited, 2 full."""

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2

    @property
    def full_range(self) -> bool:
        """Whether black is 0 and white 255, not 16 and 235."""
        return self.range == _FULL_RANGE

    def rgb_to_yuv(self) -> np.ndarray:
        """Return (3, 4) float64: 8-bit (R, G, B, 1) → 8-bit (Y, U, V)."""
        kr, kb = _LUMA_WEIGHTS.get(self.matrix, _BT601)
        luma = np.array([kr, 1 - kr - kb, kb])
        red, _, blue = np.eye(3)
        yuv = np.stack([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
        if self.full_range:
            return np.column_stack([yuv, [0, 128, 128]])
        return np.column_stack([yuv * np.array([[219], [224], [224]]) / 255, [16, 128, 128]])

    def yuv_to_rgb(self) -> np.ndarray:
        """Return (3, 4) float64: 8-bit (Y, U, V, 1) → 8-bit (R, G, B)."""
        forward = self.rgb_to_yuv()
        inverse = np.linalg.inv(forward[:, :3])
        return np.column_stack([inverse, -inverse @ forward[:, 3]])


def frame_colour(frame: av.VideoFrame) -> Colour:
    """Return the tags for the 8-bit YUV that `frame_planes` makes of `frame`."""
    if _is_rgb(frame):
        return Colour(1, 1, frame.color_primaries, frame.color_trc)
    full = frame.format.name.startswith("yuvj")
    return Colour(frame.colorspace, _FULL_RANGE if full else frame.color_range, frame.color_primaries, frame.color_trc)


def planes_to_rgb(planes: Planes, colour: Colour) -> np.ndarray:
    """Convert `planes` to (H, W, 3) uint8 RGB, rounded to nearest; colours outside RGB are clipped."""
    size = planes.y.shape[::-1]
    chroma = [cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) if planes.subsampled else p for p in planes[1:]]
    return cv2.transform(cv2.merge([planes.y, *chroma]), colour.yuv_to_rgb())


def frame_planes(frame: av.VideoFrame, colour: Colour, orientation: tuple[bool, bool, bool]) -> Planes:
    """Return 8-bit YUV of a decoded frame: 4:2:0, or 4:4:4 where a side is odd or the file has it.

    `colour` is `frame_colour(frame)`; `orientation` says whether to transpose, flip rows, flip columns. The planes are
    read-only, views of the decoder's memory where the format allows it.
    """
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if frame.format.name not in _UNTOUCHED or frame.colorspace == _RGB_SPACE:
        range_ = ColorRange.JPEG if colour.full_range else ColorRange.MPEG
        options = {"dst_color_range": range_, "format": "yuv420p" if even else "yuv444p"}
        if _is_rgb(frame):
            options["dst_colorspace"] = Colorspace.ITU709
        else:
            options["src_color_range"] = range_
        frame = VideoReformatter().reformat(frame, **options)
    shape = (frame.height, frame.width)
    planes = []
    for plane in frame.planes:
        samples = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))[: plane.height, : plane.width]
        if not even and samples.shape != shape:
            samples = samples.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
        samples = _orient(samples, orientation)
        samples.flags.writeable = False  # the decoder may still predict later frames from this memory
        planes.append(samples)
    return Planes(*planes)


def _is_rgb(frame: av.VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.has_palette or frame.colorspace == _RGB_SPACE


def _orient(samples: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """Turn one plane upright. Chroma sited on the left of its block ends up half a luma pixel off after a turn."""
    transpose, flip_rows, flip_columns = orientation
    if not any(orientation):
        return samples
    samples = samples.T if transpose else samples
    return np.ascontiguousarray(samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
