"""What lies before the face, found by itself: hands, microphones and other things, and the frame of glasses.

Two small networks (compositing.occlusion_network, trained by compositing.train_occlusion on drawn things) look at the
face where the track says it is, so that a covered face is looked at in the right place. What they see is believed
when it can be true: a thing before the face comes in from outside it or is large, and is there in two frames on end; a
pair of glasses is worn through the clip or not at all. What was seen of a thing is carried along its motion
(T. Kroeger et al. 2016, arXiv:1603.03590), since fingertips are not seen in every frame. In the frame the edge of a
thing is moved to the picture's own edge by a guided filter (K. He et al. 2013, doi:10.1109/TPAMI.2012.213). A hole in
the face is worse than a thing painted over, so doubt is decided for the face.
"""
from __future__ import annotations

import json

import cv2
import numpy as np

import assets
from compositing.occlusion_crops import OBJECT, STRIP, cut, layout, placement
from facemodel.camera import project, to_camera
from facemodel.device import inference
from facemodel.files import weights

MODES = ("auto", "off")
SHIPPED = "occlusion/occlusion.safetensors"
SURE, MAYBE = 0.8, 0.25      # probability that a thing has somewhere, and as far as which it reaches
AGAIN = 7                    # pixels of half the view around what was sure in the frame before
LEAST, LARGE = 0.012, 0.06   # share of the face that a thing from outside covers at least, and one that lies inside
HOLE = 0.02                  # share of the face that a hole in a thing has at most, if it is not seen rather than there
MEMORY, SAME = 0.95, 0.08    # what is kept of a probability from frame to frame where the picture, moved, is the same
WORN = 0.5                   # share of the frames looked at in which glasses are seen
RIM_LEAST = 0.010            # share of the strip that a frame of glasses covers
RIM_AFTERGLOW = 0.5
RIM_SOFT = 0.05, 0.25         # probability from which on a rim begins to be kept, is kept wholly
EDGE_REACH, EDGE_NOISE = 3.0, 0.02     # mm and grey: how far an edge is sought, and what is none


class OcclusionDetector:
    """The trained networks.

    networks : dict, OcclusionNetwork of each name that __call__ knows

    Parameters
    ----------
    path : of the weights; default the shipped ones

    Raises
    ------
    InputError : when there are no such weights
    """

    def __init__(self, path=None):
        import torch

        from compositing.occlusion_network import OcclusionNetwork
        self._torch, self.networks = torch, {}
        path = assets.path(SHIPPED) if path is None else path
        with weights(path, "what lies before faces", "compositing.train_occlusion") as (tensors, metadata):
            for name, its in json.loads(metadata["settings"]).items():
                network = OcclusionNetwork(**its)
                network.load_state_dict({k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(name + ".")})
                self.networks[name] = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def __call__(self, name, picture):
        """Probability that something lies before the face: (h, w) float32, by the network `name`.

        picture : (h, w, 3) uint8, the view of the face
        """
        torch = self._torch
        x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with inference():
            logits = self.networks[name](x.contiguous(memory_format=torch.channels_last))
        return logits.sigmoid()[0, 0].numpy().copy()


class Placer:
    """Where a track's face lies in the two views, frame by frame."""

    def __init__(self, model, track):
        self._track, marks = track, model.landmarks
        self._points = model.shape(track.identity, rows=marks)[marks]
        self._layouts = {view: layout(model, view) for view in (OBJECT, STRIP)}
        face = model.regions["face"] > 0.25
        triangles = model.triangles[face[model.triangles].all(axis=1)]
        eyes = model.mean[marks[36:48]].mean(axis=0)
        flat = (model.mean[:, :2] - eyes[:2]) * OBJECT.scale + [OBJECT.size[0] / 2, OBJECT.above]
        self.face = np.zeros(OBJECT.size[::-1], np.uint8)
        cv2.fillPoly(self.face, list(np.round(flat[triangles]).astype(np.int32)), 1)

    def __call__(self, t, view):
        """(2, 3) float64, pixels of frame t of the track -> pixels of OBJECT or STRIP."""
        track = self._track
        camera = to_camera(self._points, track.rotation[t], track.translation[t])
        return placement(project(camera, track.focal, track.principal_point), self._layouts[view])


def wears_glasses(model, track, pictures, detector):
    """Whether the person in a clip wears glasses, as some of its frames tell.

    Parameters
    ----------
    track : Track of the clip
    pictures : dict, of some frames of the track (int) their pictures, (H, W, 3) uint8
    detector : OcclusionDetector
    """
    place = Placer(model, track)
    rims = (detector("glasses", cut(image, place(t, STRIP), STRIP)) for t, image in pictures.items())
    seen = [(rim > 0.5).mean() > RIM_LEAST for rim in rims]
    return bool(np.mean(seen) >= WORN) if seen else False


class Occlusion:
    """Finds what lies before one face of a clip, frame by frame, in order; it remembers the frame before.

    Parameters
    ----------
    model : MorphableModel
    track : Track of the source
    detector : OcclusionDetector
    glasses : bool, whether that person wears glasses
    """

    def __init__(self, model, track, detector, glasses=False):
        self._detector, self._glasses, self._place = detector, glasses, Placer(model, track)
        size = (OBJECT.size[0] // 2, OBJECT.size[1] // 2)
        self._face = cv2.resize(self._place.face, size, interpolation=cv2.INTER_AREA).astype(bool)
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._inner = cv2.erode(self._face.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
        self.reset()

    def reset(self):
        """Forgets the frame before."""
        self._seen = self._object = self._rim = self._last = None

    def state(self):
        """What it remembers, as plain data (see fitting.checkpoint)."""
        return {"seen": self._seen, "object": self._object, "rim": self._rim, "last": self._last}

    def restore(self, state):
        """Goes on from a state."""
        self._seen, self._object, self._rim, self._last = (state[k] for k in ("seen", "object", "rim", "last"))

    def keep(self, image, t):
        """What lies before the face in frame t of the track.

        Parameters
        ----------
        image : (H, W, 3) uint8, the frame

        Returns
        -------
        thing, rim : (H, W) float32 in [0, 1], how far the face may be painted: 0 where a thing, or the frame of
            glasses, lies before it; None where nothing does
        """
        way = self._place(t, OBJECT)
        seen = cut(image, way, OBJECT)
        now = self._detector("object", seen)
        self._object = now if self._object is None else np.maximum(now, self._carried(seen))
        twice = now if self._last is None else np.minimum(now, cv2.dilate(self._last, np.ones((AGAIN, AGAIN))))
        self._seen, self._last = seen, now
        found = believed(twice, self._object, self._face, self._inner)
        thing = None
        if found.any():
            thing = 1 - _snapped(_filled(self._object * found, HOLE * self._face.sum()), image, way)
        return thing, self._rims(image, t) if self._glasses else None

    def _carried(self, seen):
        """The last frame's probability where its things have moved to; less where the picture has become another."""
        flow = self._flow.calc(*(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (seen, self._seen)), None)
        height, width = flow.shape[:2]
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        before = cv2.remap(self._seen, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gap = cv2.blur(cv2.absdiff(before, seen).max(axis=2).astype(np.float32), (5, 5)) / np.float32(255 * SAME)
        half = lambda a: cv2.resize(a, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        carried = cv2.remap(self._object, half(x) / 2 - 0.25, half(y) / 2 - 0.25, cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_REPLICATE)
        return np.float32(MEMORY) * half(np.exp(-gap * gap)) * carried

    def _rims(self, image, t):
        way = self._place(t, STRIP)
        now = self._detector("glasses", cut(image, way, STRIP))
        self._rim = now if self._rim is None else now + np.float32(RIM_AFTERGLOW) * (self._rim - now)
        low, high = RIM_SOFT
        soft = np.clip((self._rim - low) / (high - low), 0, 1)
        soft[[0, -1]] = 0
        soft[:, [0, -1]] = 0
        return 1 - _laid_back(soft, way, image.shape[:2])


def believed(now, probability, face, inner):
    """Where something lies before the face for sure.

    Parameters
    ----------
    now, probability : (h, w) float32, of this frame and the one before, and with all that is remembered
    face, inner : (h, w) bool, the face, and it without a margin

    Returns
    -------
    (h, w) float32, 1 in things that are sure somewhere now and come in from outside or are large, and a pixel around
    """
    count, label = cv2.connectedComponents((probability > MAYBE).astype(np.uint8), connectivity=8)
    out = np.zeros(probability.shape, np.uint8)
    for k in range(1, count):
        part = label == k
        covered = (part & face).sum() / face.sum()
        outside = (part & ~face).any()
        if (now[part & face] > SURE).sum() >= 0.3 * LEAST * face.sum() and \
                covered >= (LEAST if outside else LARGE) and (part & inner).any():
            out[part] = 1
    return cv2.dilate(out, np.ones((3, 3), np.uint8)).astype(np.float32)


def _filled(mask, largest):
    """A mask (h, w) float32 whose holes of up to so many pixels are covered: a bright knuckle amid a hand."""
    _, label, stats, _ = cv2.connectedComponentsWithStats((mask <= 0.5).astype(np.uint8), connectivity=4)
    left, top, width, height, area = stats.T
    inside = (left > 0) & (top > 0) & (left + width < mask.shape[1]) & (top + height < mask.shape[0])
    return np.where((inside & (area <= largest))[label] & (mask <= 0.5), np.float32(1), mask)


def least(a, b):
    """The smaller of two (H, W) masks in each pixel, where None is 1 everywhere."""
    return b if a is None else a if b is None else np.minimum(a, b)


def _laid_back(mask, way, size, factor=1):
    """A mask in a view's pixels (each `factor` of them wide), in the picture's: (H, W) float32, 0 outside the view."""
    inverse = cv2.invertAffineTransform(way)
    scaled = inverse * [[factor, factor, 1]]
    moved = scaled + np.column_stack([np.zeros((2, 2)), scaled[:, :2] @ [0.5, 0.5] - 0.5])
    return cv2.warpAffine(np.ascontiguousarray(mask, np.float32), moved, (size[1], size[0]), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_CONSTANT)


def _snapped(probability, image, way):
    """A thing's mask in the frame, its edge on the picture's: (H, W) float32 in [0, 1]."""
    height, width = image.shape[:2]
    mask = _laid_back(probability, way, (height, width), 2)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask
    reach = max(2, round(EDGE_REACH * OBJECT.scale / np.sqrt(abs(np.linalg.det(way[:, :2])))))
    box = np.s_[max(rows[0] - 2 * reach, 0):rows[-1] + 2 * reach + 1,
                max(columns[0] - 2 * reach, 0):columns[-1] + 2 * reach + 1]
    guide = image[box].astype(np.float32) / 255
    out = np.zeros_like(mask)
    out[box] = np.clip((guided(guide, mask[box], reach, EDGE_NOISE) - 0.35) / 0.3, 0, 1)
    return out


def guided(guide, mask, reach, noise):
    """The guided filter: `mask` as a linear function of the guide's colours in every window.

    Parameters
    ----------
    guide : (h, w, 3) float32
    mask : (h, w) float32
    reach : int, half a window's side
    noise : float, deviation of the guide that is taken for none

    Returns
    -------
    (h, w) float32
    """
    blur = lambda a: cv2.blur(a, (2 * reach + 1, 2 * reach + 1))
    mean, mask_mean = blur(guide), blur(mask)
    across = blur(guide * mask[..., None]) - mean * mask_mean[..., None]
    r, g, b = cv2.split(guide)
    rr, rg, rb, gg, gb, bb = (blur(x * y) for x, y in ((r, r), (r, g), (r, b), (g, g), (g, b), (b, b)))
    m = cv2.split(mean)
    n = np.float32(noise * noise)
    rr, gg, bb = rr - m[0] * m[0] + n, gg - m[1] * m[1] + n, bb - m[2] * m[2] + n
    rg, rb, gb = rg - m[0] * m[1], rb - m[0] * m[2], gb - m[1] * m[2]
    c0, c1, c2 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c3, c4, c5 = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    x, y, z = cv2.split(across)
    scale = 1 / np.maximum(rr * c0 + rg * c1 + rb * c2, 1e-12)
    slope = np.stack([c0 * x + c1 * y + c2 * z, c1 * x + c3 * y + c4 * z, c2 * x + c4 * y + c5 * z], axis=2)
    slope *= scale[..., None]
    offset = mask_mean - (slope * mean).sum(axis=2)
    return (blur(slope) * guide).sum(axis=2) + blur(offset)
