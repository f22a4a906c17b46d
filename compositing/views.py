"""Videos to judge a result by: source beside result, or every step of the way side by side, with the source's times.

`compare` shows source | result. `debug` shows source | mesh | texture | seam | result:

- mesh: the target's face as it was posed, its coarse mesh where the camera sees it
- texture: the target's texture in this frame, as it was rendered from
- seam: the frame in grey, what is taken from the target in green by its weight, the labels' outline in red
- result: before it was encoded

With several faces the textures stand side by side. A frame that was passed through says so in its last panel. One frame
at a time is held, besides the encoder's own few; the file appears under its name when it is whole, see
compositing.video_writer.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np

from compositing import seam
from compositing.video_writer import VideoWriter
from fitting.images import to_uint8
from fitting.video_reader import VideoFrame
from fitting.yuv import Colour

KINDS = {"compare": ("source", "result"), "debug": ("source", "mesh", "texture", "seam", "result")}
HEIGHT = {"compare": 1080, "debug": 400}          # of a panel, at most
TEXTURE = 512                                     # texels per side that are kept of a texture until it is shown
BT709 = Colour(1, 1, 1, 1)
GREEN, RED, WHITE = (60, 220, 90), (255, 40, 40), (255, 255, 255)


@dataclass(frozen=True)
class Inspection:
    """What a finished frame was made from.

    window : (4,) int, left, top, right, bottom of the rendering in the frame
    points : (V1, 2) float32, the coarse mesh in the frame's pixels
    visible : (V1,) bool, which of them the camera sees
    mask : (h, w) float32, the window's labels, 1 where all around is target
    texture : (s, s, 3) uint8
    """

    window: tuple
    points: np.ndarray
    visible: np.ndarray
    mask: np.ndarray
    texture: np.ndarray


def thumbnail(texture):
    """A texture (S, S, 3) float32 as uint8 of at most TEXTURE texels per side."""
    if texture.shape[0] > TEXTURE:
        texture = cv2.resize(texture, (TEXTURE, TEXTURE), interpolation=cv2.INTER_AREA)
    return to_uint8(texture)


def inspection_of(model, rendering, labels, texture):
    """The Inspection of a frame.

    rendering : compositing.retarget.Rendering; labels : (V1,) bool; texture : what `thumbnail` gave
    """
    nodes = model.coarse_index
    return Inspection(rendering.window, rendering.posed.xy[nodes], seam.visible_vertices(rendering, nodes),
                      seam.label_mask(labels, model, rendering), texture)


class ViewWriter:
    """Writes one of KINDS as a video beside a result.

    Parameters
    ----------
    path : of the video
    kind : a name in KINDS
    reader : VideoReader or VideoInfo of the source; its sound is copied
    edges : (E, 2) int, the model's coarse mesh
    options : of compositing.video_writer.VideoWriter
    """

    def __init__(self, path, kind, reader, edges, **options):
        info = getattr(reader, "info", reader)
        self._names, self._edges = KINDS[kind], edges
        height = min(HEIGHT[kind], info.height) // 2 * 2
        self._size = (max(2, round(info.width * height / info.height / 2) * 2), height)     # width, height
        width = sum(self._panel_width(name) for name in self._names)
        shape = replace(info, width=width, height=height, subsampled=True, colour=BT709, sample_aspect_ratio=None)
        self.writer = VideoWriter(path, shape, **options)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.writer.__exit__(*error)

    def write(self, frame, picture=None, alpha=None, inspection=()):
        """Appends a frame: what the result's writer gets, and a list of Inspection, one per face that is shown."""
        panels = {"source": frame.rgb, "result": frame.rgb if picture is None else to_uint8(picture)}
        if "mesh" in self._names:
            grey = cv2.cvtColor(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            panels |= {"mesh": frame.rgb, "texture": np.zeros((2, 2, 3), np.uint8), "seam": grey}
            if inspection:
                panels["texture"] = np.concatenate([one.texture for one in inspection], axis=1)
                grey = tinted(grey, alpha)
            for one in inspection:
                grey = draw_outline(grey, one)
                panels |= {"mesh": draw_mesh(panels["mesh"], one, self._edges), "seam": grey}
        row = np.concatenate([self._panel(name, panels[name], frame, picture is None) for name in self._names], axis=1)
        yuv = av.VideoFrame.from_ndarray(np.ascontiguousarray(row), "rgb24")
        self.writer.write(VideoFrame(frame.index, frame.pts, frame.time_base, frame.duration, yuv))

    def _panel_width(self, name):
        return self._size[1] if name == "texture" else self._size[0]

    def _panel(self, name, picture, frame, passed):
        size = (self._panel_width(name), self._size[1])
        shrinks = picture.shape[1] > size[0]
        panel = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        words = name
        if name == "source":
            seconds = float(frame.pts * Fraction(frame.time_base))
            words = f"source  frame {frame.index}  {seconds:.3f} s"
        elif name == "result" and passed:
            words = "result: passed through"
        return labelled(panel, words)


def labelled(picture, words):
    """A picture (H, W, 3) uint8 with words in its upper left corner."""
    out = np.ascontiguousarray(picture).copy()
    scale = max(0.4, picture.shape[0] / 900)
    (width, height), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(out, (0, 0), (width + 8, height + base + 6), (0, 0, 0), -1)
    cv2.putText(out, words, (4, height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, 1, cv2.LINE_AA)
    return out


def draw_mesh(picture, inspection, edges):
    """The edges (E, 2) whose two ends are seen, over a picture (H, W, 3) uint8."""
    out = picture.copy()
    seen = edges[inspection.visible[edges].all(axis=1)]
    lines = np.rint(inspection.points[seen] * 16).astype(np.int32)
    cv2.polylines(out, list(lines), False, GREEN, 1, cv2.LINE_AA, shift=4)
    return cv2.addWeighted(picture, 0.5, out, 0.5, 0)        # the face stays to be seen below a dense mesh


def tinted(grey, alpha):
    """Weights alpha (H, W) in green over a grey picture (H, W, 3) uint8."""
    tint = 0.6 * alpha[..., None].astype(np.float32)
    return (grey * (1 - tint) + np.float32(GREEN) * tint).astype(np.uint8)


def draw_outline(picture, inspection):
    """The outline of the labels in red, over a picture (H, W, 3) uint8, which is kept as it is."""
    out, (left, top) = picture.copy(), inspection.window[:2]
    inside = (inspection.mask > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(out, outlines, -1, RED, max(1, out.shape[0] // 360))
    return out
