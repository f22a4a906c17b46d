"""The examples that fitting.dense_landmarks learns from: drawn by worker processes, kept in a file."""
from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch

from facemodel.atlas import build_atlas
from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole
from facemodel.morphable import FLIP, load_model
from facemodel.workers import worker_pool
from fitting.detection import FaceDetector
from fitting.fit import PHOTO, fit_frames
from fitting.images import SUFFIXES, read_image
from fitting.progress import progress_bar
from fitting.trackfile import file_hash
from texgan.actors import draw_actor
from texgan.dataset import decode, read_clip
from texgan.headshots import bind, identity_of, relief, rendered, turned
from texgan.perform import skins_of
from texgan.rendered import FACE_CENTRE
from texgan.skins import lifted, varied, with_brows_placed
from texgan.split import TEST, VALIDATION
from texgan.stage import load_stage
from texgan.webmorph import landmarks_by_hand

IDENTITY_SIGMA, LARGEST_GAP = 1.0, 0.6          # for texgan.actors.draw_actor: heads may differ more than actors
VARIED = 0.85                                    # share of the people with a skin that nobody has
LIFTED = 0.65                                    # and of those with skins lifted from photos anew, where there are any
SKIN = 512                                       # pixels per side of the skins that people are drawn with


@dataclass(frozen=True)
class Examples:
    """Pictures and what they show, as torch tensors.

    pictures : (N, STORED, STORED, 3) uint8; points : (N, K, 2) float32, pixels
    identity : (N, n_id) float32 and turn : (N, 3, 3) float32 (see texgan.headshots.rendered), nan where not known
    person : (N,) int64, whom they show, or from which photo they are
    """

    pictures: torch.Tensor
    points: torch.Tensor
    identity: torch.Tensor
    turn: torch.Tensor
    person: torch.Tensor

    @classmethod
    def of(cls, drawn, identity_count):
        """Examples from lists, one a person, of (picture, points, identity, turn), the last two None where not known.
        """
        known = lambda value, shape: np.full(shape, np.nan, np.float32) if value is None else np.float32(value)
        person = np.repeat(np.arange(len(drawn)), [len(shown) for shown in drawn])
        pictures, points, identity, turn = zip(*(shot for shown in drawn for shot in shown))
        return cls(*(torch.from_numpy(np.stack(values)) for values in (
            pictures, points, [known(v, identity_count) for v in identity], [known(v, (3, 3)) for v in turn], person)))

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, part):
        return Examples(*(getattr(self, f.name)[part] for f in fields(self)))


@dataclass(frozen=True)
class Skin:
    """A person's skin: path of the texture in a data set, and of the photo that it is from, None where not at hand."""

    texture: Path
    photo: Path | None


def skins_and_photos(dataset, photos):
    """Skins of a data set's training people; their photos are known by their bytes.

    Raises
    ------
    InputError : when there are none
    """
    known, out = {file_hash(path): path for path in photos}, []
    for _, texture, _ in skins_of(dataset):
        info = read_clip(texture.parents[1]).info
        sources = [sha for name, sha in zip(info.source, info.sha256) if name not in info.left_out]
        out.append(Skin(texture, known.get(sources[info.neutral])))
    return out


def pictures_in(folder):
    """Pictures (paths) of a folder, but for those of people who are tested or validated on.

    Raises
    ------
    InputError : when there are none
    """
    out = [p for p in sorted(Path(folder).iterdir()) if p.suffix.lower() in SUFFIXES
           and not p.name.startswith((*TEST, *VALIDATION))] if Path(folder).is_dir() else []
    if not out:
        raise InputError(f"{folder}: no folder with pictures (.jpg, .png, .webp)")
    return out


_worker = {}


def _prepare(ict_path, skins, scenes):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = load_model()
    stage = load_stage(ict_path, model)
    _worker.update(model=model, stage=stage, binding=bind(stage, model), detector=FaceDetector(), skins=skins,
                   worn={}, scenes=[read_image(path) for path in scenes], atlas=build_atlas(model, SKIN))


def _skin(skin, anew):
    """A Skin's texture (SKIN, SKIN, 3) float32, its brows in their place, or lifted from its photo anew."""
    worn, key, stage = _worker["worn"], (skin.texture, anew), _worker["stage"]
    if key not in worn:
        known = cv2.resize(decode(cv2.imread(str(skin.texture))[..., ::-1]), (SKIN, SKIN), interpolation=cv2.INTER_AREA)
        photo, fitted, landmarks = _fitted(skin.photo) if anew else (None, None, None)
        worn[key] = (with_brows_placed(stage, _worker["binding"], known, _worker["detector"]) if fitted is None else
                     lifted(stage, _worker["model"], _worker["atlas"], photo, fitted,
                            _features(skin.photo, landmarks, stage), known))
    return worn[key]


def _features(path, landmarks, stage):
    """Landmarks for texgan.skins.lifted: those placed by hand in a .tem beside the photo, or the detector's inner ones.
    """
    by_hand = path.with_suffix(".tem")
    if by_hand.is_file():
        return landmarks_by_hand(by_hand, stage.mean[stage.landmarks][:, :2])
    return np.concatenate([np.full((17, 2), np.nan), landmarks[17:]])


def _fitted(path):
    """A photo (H, W, 3) uint8, its fit (Shared, Frame) and landmarks (68, 2); both None when it shows no face."""
    image, detector = read_image(path), _worker["detector"]
    faces = detector.find(image)
    if not faces:
        return image, None, None
    landmarks = detector.landmarks_of(image, faces[0])
    shared, (frame,) = fit_frames(_worker["model"], [image], [landmarks], settings=PHOTO)
    return image, (shared, frame), landmarks


def _draw_person(number, seed, poses):
    """Pictures of one rendered person."""
    rng = np.random.default_rng([seed, number])
    chosen = [_worker["skins"][k] for k in rng.integers(len(_worker["skins"]), size=2)]
    anew = rng.random() < LIFTED and all(skin.photo for skin in chosen)
    skin, other = (_skin(skin, anew) for skin in chosen)
    if rng.random() < VARIED:
        skin = varied(_worker["stage"], _worker["binding"], skin, other, rng)
    if rng.random() < 0.5:
        skin = skin * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
    actor = draw_actor(_worker["stage"], rng, np.clip(skin, 0, 1), sigma=IDENTITY_SIGMA, largest_gap=LARGEST_GAP)
    head = (actor.neutral - np.float32(FACE_CENTRE)) * FLIP
    identity = identity_of(_worker["model"], _worker["binding"](head.astype(np.float64)))
    shots = [rendered(_worker["stage"], _worker["binding"], actor, rng, _worker["scenes"]) for _ in range(poses)]
    return [(picture, points, identity, turn) for picture, points, turn in shots]


def _turn_photo(number, path, seed, views):
    """Views of one photo; none when no face is found in it."""
    image, fitted, _ = _fitted(path)
    if fitted is None:
        return []
    laid, rng = relief(_worker["model"], image, *fitted), np.random.default_rng([seed, number, 1])
    return [(*turned(laid, rng, still=k == 0), None, None) for k in range(views)]


def draw(photos, skins, ict_path, scenes, people, poses, views, seed, workers=None):
    """Draws all examples: (rendered, turned), lists as Examples.of takes them, one a person, and one a photo.

    Raises
    ------
    InputError : when no photo shows a face
    """
    with worker_pool(workers, _prepare, (ict_path, skins, scenes)) as pool:
        jobs = [pool.submit(_draw_person, k, seed, poses) for k in range(people)]
        jobs += [pool.submit(_turn_photo, k, path, seed, views) for k, path in enumerate(photos)]
        out = []
        with progress_bar(len(jobs), "draw", "person") as bar:
            for job in jobs:
                out.append(job.result())
                bar.update()
    shots, seen = out[:people], out[people:]
    if not any(seen):
        raise InputError(f"{photos[0].parent}: no face found in any of {len(photos)} photos; give photos of faces")
    return shots, seen


def keep(path, shots, views):
    """Writes Examples, rendered and turned, as an .npz that `kept` reads."""
    with whole(path, "choose another place with --examples") as beside, beside.open("wb") as file:
        np.savez(file, **{f"{kind}_{f.name}": getattr(examples, f.name).numpy()
                          for kind, examples in (("rendered", shots), ("turned", views)) for f in fields(Examples)})


def kept(path):
    """Examples, rendered and turned, from a file of `keep`.

    Raises
    ------
    InputError : when it is none
    """
    with stored_arrays(path, "no examples of texgan.train_landmarks, or damaged; delete it to have some drawn") as file:
        return tuple(Examples(*(torch.from_numpy(file[f"{kind}_{f.name}"]) for f in fields(Examples)))
                     for kind in ("rendered", "turned"))
