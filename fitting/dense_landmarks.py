"""Some two hundred landmarks all over the face, each with how far it can be believed, and a guess at shape and pose.

Sparse landmarks leave the turn of a head and the shape of its cheeks to guessing. E. Wood et al., "3D face
reconstruction with dense landmarks", 2022, doi:10.1007/978-3-031-19778-9_10, showed that a network that only ever saw
rendered faces can place hundreds of points, hidden ones too, and say how sure of each it is; a fit then weighs them
by that. W. Zielonka et al., "Towards metrical reconstruction of human faces", 2022,
doi:10.1007/978-3-031-19778-9_15, showed that a network can tell a head's coefficients from a picture; a fit then holds
to them rather than to the mean head. The head's turn is told likewise, since which way is straight ahead depends on its
shape, and points tell that badly. The points are MorphableModel.dense_landmarks; texgan.train_landmarks makes the
weights.
"""
from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

import assets
from facemodel.camera import rotation_matrix
from facemodel.device import inference
from facemodel.files import weights
from facemodel.symmetry import INNER
from fitting.energy import Pose

SHIPPED = "landmarks/dense.safetensors"
SIDE = 2.35             # of the eye distance: what the network sees of a picture, each way
SIZE = 128              # pixels that it sees it in
EYES, MOUTH, CORNERS = slice(19, 31), slice(31, 51), (19, 28)        # of the inner 51 landmarks, iBUG 17 to 67
# more looks are averaged: turned by radians, seen by factors, about where the first one found the face
LOOKS = ((0.0, 1.0), (0.1, 1.0), (-0.1, 1.0), (0.0, 0.93), (0.0, 1.07))


@dataclass(frozen=True)
class Guess:
    """A guess at a head of a model.

    mean : (n_id,) float64, identity coefficients; sigma : (n_id,) float64 in (0, 1], how far they are usually off
    identity_hash : str, MorphableModel.identity_hash: to other models coefficients and straight ahead mean other things
    pose : fitting.energy.Pose
    """

    mean: np.ndarray
    sigma: np.ndarray
    identity_hash: str
    pose: Pose


@dataclass(frozen=True)
class DenseLandmarks:
    """What the network saw.

    points : (K, 2) float64 pixels, pixel centres at +0.5; the first 51 are iBUG 17 to 67
    sigma : (K,) float64 pixels, the standard deviation that it expects of itself, each way
    guess : Guess at the head, or None
    """

    points: np.ndarray
    sigma: np.ndarray
    guess: Guess | None = None

    def guess_for(self, model):
        """The guess, or None where there is none or it is meant for another MorphableModel."""
        return self.guess if self.guess and self.guess.identity_hash == model.identity_hash else None


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (K. He et al., 2016, doi:10.1109/CVPR.2016.90)."""

    def __init__(self, a, b, stride):
        super().__init__()
        conv = lambda i, o, k, s: nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o))
        self.first, self.second = conv(a, b, 3, stride), conv(b, b, 3, 1)
        self.shortcut = conv(a, b, 1, stride) if a != b or stride > 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class DenseLandmarkNetwork(nn.Module):
    """A small residual network that regresses points, their logarithmic standard deviations, and the head.

    Parameters
    ----------
    points, identity : int, number of points and of identity coefficients
    channels : (4,) ints, at a quarter, an eighth ... of the picture's size
    hidden : int, width of the layers before the last
    """

    def __init__(self, points, identity, channels=(24, 48, 96, 192), hidden=512):
        super().__init__()
        self.settings = {"points": points, "identity": identity, "channels": list(channels), "hidden": hidden}
        a, b, c, d = channels
        self.stem = nn.Sequential(nn.Conv2d(3, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        stages = ((a, b, 2), (b, c, 3), (c, d, 3), (d, d, 2))                 # channels before and after, blocks
        self.body = nn.Sequential(*(_Block(*((i, o, 2) if k == 0 else (o, o, 1)))
                                    for i, o, count in stages for k in range(count)))
        head = lambda out: nn.Sequential(nn.Flatten(), nn.Linear(d * (SIZE // 32) ** 2, hidden), nn.ReLU(),
                                         nn.Linear(hidden, out))
        self.place, self.shape, self.turn = head(3 * points), head(identity), head(3)

    def forward(self, picture):
        """What pictures show.

        Parameters
        ----------
        picture : (N, 3, SIZE, SIZE) float32 in [0, 1], see `placement`

        Returns
        -------
        points (N, K, 2) in [-1, 1] over the picture, their log deviations (N, K), identity (N, n_id), and the head's
        rotation (N, 3) to a camera that aims at the face and stands upright as the picture does, axis times angle
        """
        mean, deviation = picture.mean((1, 2, 3), keepdim=True), picture.std((1, 2, 3), keepdim=True)
        seen = self.body(self.stem((picture - mean) / (deviation + 0.05)))
        out = self.place(seen).float().reshape(len(picture), -1, 3)
        return out[..., :2], out[..., 2], self.shape(seen).float(), self.turn(seen).float()


def placement(landmarks, size=SIZE, side=SIDE):
    """The way from a picture into a square around its face that stands upright: (2, 3) float64.

    Parameters
    ----------
    landmarks : (68, 2), (51, 2) or (K, 2) pixels whose last 51, or first for K, are iBUG 17 to 67
    size : pixels per side of the square
    side : of the eye distance, the square's side
    """
    inner = _inner(landmarks)
    eyes, mouth = inner[EYES].mean(axis=0), inner[MOUTH].mean(axis=0)
    across, down = inner[CORNERS[1]] - inner[CORNERS[0]], mouth - eyes
    distance = max(np.linalg.norm(across), 1.2 * np.linalg.norm(down))
    x = across / np.linalg.norm(across) + [down[1], -down[0]] / np.linalg.norm(down)
    x *= size / (np.linalg.norm(x) * side * distance)
    turn = np.array([x, [-x[1], x[0]]])
    return np.column_stack([turn, size / 2 - turn @ middle(inner)])


def middle(landmarks):
    """The pixel (2,) between eyes and mouth; landmarks as in `placement`."""
    inner = _inner(landmarks)
    return (inner[EYES].mean(axis=0) + inner[MOUTH].mean(axis=0)) / 2


def _inner(landmarks):
    """The inner 51 of 68 landmarks, or the first 51 of others."""
    landmarks = np.asarray(landmarks, float)
    return landmarks[17:] if len(landmarks) == 68 else landmarks[:51]


def uprighting(way):
    """The rotation (3, 3) about the optical axis by which a way into the square turns a picture."""
    out = np.eye(3)
    out[:2, :2] = way[:, :2] / np.sqrt(np.linalg.det(way[:, :2]))
    return out


def cut(image, way, size=SIZE):
    """The square (size, size, 3) that `placement` leads to; pixel centres at +0.5 on both sides."""
    way = way.copy()
    way[:, 2] += way[:, :2] @ [0.5, 0.5] - 0.5
    scale = np.sqrt(np.linalg.det(way[:, :2]))
    if scale < 0.75:
        reach = int(np.ceil(1.5 / scale)) + 1        # only what is cut out is blurred
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - way[:, 2]
        corners = corners @ np.linalg.inv(way[:, :2]).T
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - reach, 0, np.array(image.shape[1::-1]) - 1)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + reach, low + 1, image.shape[1::-1])
        image = cv2.GaussianBlur(image[low[1]:high[1], low[0]:high[0]], (0, 0), 0.45 / scale)
        way[:, 2] += way[:, :2] @ low
    return cv2.warpAffine(image, way, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


class DensePredictor:
    """Holds the network; loads its weights on construction.

    Parameters
    ----------
    path : file that texgan.train_landmarks wrote; default the one that ships

    Raises
    ------
    InputError : when there are no such weights
    """

    def __init__(self, path=None):
        path = assets.path(SHIPPED) if path is None else path
        with weights(path, "the dense landmarks", "texgan.train_landmarks") as (tensors, metadata):
            self._identity_hash = metadata["identity_hash"]
            self._identity_sigma = tensors.pop("identity_sigma").double().numpy()
            self._turn_sigma = float(tensors.pop("turn_sigma"))
            self._identity_mirror = tensors.pop("identity_mirror").double().numpy()
            self._network = DenseLandmarkNetwork(**json.loads(metadata["settings"])).eval()
            self._network.load_state_dict(tensors)

    def __call__(self, image, landmarks, looks=1):
        """Dense landmarks of a face whose 68 landmarks are known.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        landmarks : (68, 2) pixels
        looks : int, 1 to len(LOOKS): that many slightly different views are averaged after a first one that places
            them, all with their mirror images: with 3 or all a mirrored picture shows a mirrored head, but for the
            points of MorphableModel.spread, which lie on no others' images. A single one takes a fraction of the time

        Returns
        -------
        DenseLandmarks
        """
        out = self._look(image, [placement(landmarks)], both_sides=looks > 1)
        if looks > 1:
            way = placement(out.points)
            out = self._look(image, [_moved(way, *move) for move in LOOKS[:looks]], both_sides=True)
        return out

    def _look(self, image, ways, both_sides=False):
        """DenseLandmarks, averaged over some ways to look, if wanted also at their mirror images."""
        pictures = torch.from_numpy(np.stack([cut(image, way) for way in ways])).permute(0, 3, 1, 2).float() / 255
        with inference():
            seen = self._network(torch.cat([pictures, pictures.flip(3)]) if both_sides else pictures)
        seen = [x.double().numpy() for x in seen]
        if both_sides:
            self._mirror_back(*seen, len(ways))
        points, sigma, turns = [], [], []
        for way, at, log, vector in zip(ways * (1 + both_sides), *seen[:2], seen[3]):
            back = np.linalg.inv(way[:, :2])
            points.append(((at + 1) * (SIZE / 2) - way[:, 2]) @ back.T)
            sigma.append(np.exp(log) * np.sqrt(np.linalg.det(back)) * SIZE / 2)
            turns.append(uprighting(way).T @ rotation_matrix(vector))
        points = np.mean(points, axis=0)
        u, _, v = np.linalg.svd(np.mean(turns, axis=0))              # the nearest rotation; they are much alike
        guess = Guess(seen[2].mean(axis=0), self._identity_sigma, self._identity_hash,
                      Pose(u @ v, middle(points), self._turn_sigma))
        return DenseLandmarks(points, np.mean(sigma, axis=0), guess)

    def _mirror_back(self, points, deviation, identity, turn, count):
        """Makes what was seen in mirror images, all but the first `count`, that of the pictures; in place."""
        inner = len(INNER)
        for seen in (points, deviation):
            seen[count:, :inner] = seen[count:, INNER]
            seen[count:, inner:] = seen[:count, inner:]      # none of these is another one's image
        points[count:, :inner, 0] *= -1
        identity[count:] = identity[count:] @ self._identity_mirror.T
        turn[count:, 1:] *= -1


def _moved(way, turn, zoom):
    """A way into the square, turned about its middle by radians and seen by a factor."""
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    out = matrix @ way
    out[:, 2] += SIZE / 2 - matrix @ np.full(2, SIZE / 2)
    return out
