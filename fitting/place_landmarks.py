"""Moves the embedded model's landmarks to where the detector sees them, on rendered heads of known shape and pose.

    python -m fitting.place_landmarks RENDERS

RENDERS is a folder with ground_truth.json: pictures, their cameras and poses, and the neutral head of each person
(.ply, millimetres, x to the subject's left, y up, z out of the face). The embedded model is laid over every head by its
surface and by what it has of its own accord, eye corners and the inner lips. What is left between its projected
landmarks and dlib's, averaged over heads and sides, is a difference of markup: it turns the head in a fit by
some degrees. Brows, nose and outer lips move as in facemodel.build.population; the
jaw line moves with the paths that it slides on, lids and inner lips stay where the surface parts. The vertices for
dense landmarks are spread anew between them.

Run it between facemodel.build.population and fitting.learn_albedo, since the photos are fitted by the landmarks. Take
other heads than those that a fit is measured on.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import assets
from facemodel import commands
from facemodel.build.landmarks import spread_vertices
from facemodel.build.population import place_landmarks
from facemodel.camera import project, to_camera
from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole
from facemodel.morphable import DAMAGED, FLIP, load_model
from facemodel.registration import LOOSE, register
from facemodel.symmetry import MIRROR
from fitting.detection import FaceDetector
from fitting.images import read_image
from fitting.progress import progress_bar
from fitting.solver import outline_vertices

OWN = (36, 39, 42, 45, 60, 62, 64, 66)     # landmarks that both models place by their topology
ROUNDS = 2                                 # the outline that a jaw point slides to changes with its path
CUT = 0.1                                  # of the sorted offsets left out on each side
ALONG = np.array([1, 2.5, 1])              # how much a jaw path's distances count in x, y, z when it is moved


@dataclass(frozen=True)
class Render:
    """A picture of a head without expression, and what it shows.

    surface : (V, 3) float64, the embedded model's surface laid over the head, in camera space, millimetres
    detected : (68, 2) pixels
    focal, principal_point : float, (2,), pixels
    """

    surface: np.ndarray
    detected: np.ndarray
    focal: float
    principal_point: np.ndarray


def read_ply(path):
    """Vertices (V, 3) float64 and triangles (T, 3) int64 of a binary .ply of float positions and triangles."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    count = {words[1]: int(words[2]) for words in map(str.split, head.decode("ascii", "replace").splitlines())
             if words[:1] == ["element"]}
    corner = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    if not head.startswith(b"ply\nformat binary_little_endian") \
            or len(body) != 12 * count.get("vertex", 0) + corner.itemsize * count.get("face", 0):
        raise InputError(f"{path}: not a binary .ply that holds positions and triangles only")
    vertices = np.frombuffer(body, "<f4", 3 * count["vertex"]).reshape(-1, 3)
    faces = np.frombuffer(body, corner, offset=vertices.nbytes)
    return vertices.astype(np.float64), faces["corners"].astype(np.int64)


def lay_over(model, folder, person):
    """The model's surface (V, 3) on a person's head, in the head's space."""
    vertices, triangles = read_ply(folder / person["neutral"])
    goals = np.array(person["landmarks_neutral"])
    nearest = {k: int(np.linalg.norm(vertices - goals[k], axis=1).argmin()) for k in OWN}
    return register(model, vertices, triangles, nearest, iterations=14, stiffness=LOOSE).vertices


def read_renders(model, detector, folder):
    """The Renders of a folder in which the detector finds a face."""
    truth_file = folder / "ground_truth.json"
    if not truth_file.is_file():
        raise InputError(f"{folder}: no ground_truth.json there; give a folder of rendered heads")
    truth = json.loads(truth_file.read_text())
    neutral = [e for e in truth["images"] if e["expression"] == "neutral"]
    surfaces, renders = {}, []
    with progress_bar(len(neutral), "heads", "picture") as bar:
        for entry in neutral:
            person, image = entry["identity"], read_image(folder / entry["image"])
            if person not in surfaces:
                surfaces[person] = lay_over(model, folder, truth["identities"][person])
            faces = detector.detect(image)
            if faces:
                placed = to_camera(surfaces[person], np.array(entry["rotation_matrix"]), entry["translation"])
                renders.append(Render(placed, detector.landmarks(image, faces[0].box), entry["focal"],
                                      np.array(entry["principal_point"])))
            bar.update()
    if not renders:
        raise InputError(f"{folder}: the detector finds a face in none of the pictures")
    return renders


def offset(model, render):
    """(68, 2) millimetres in the face's depth: detected landmarks less the model's, x along the line of the eyes."""
    marks = model.landmarks.copy()
    marks[:17] = outline_vertices(model, render.surface, np.eye(3), np.zeros(3), render.focal, render.principal_point)
    away = render.detected - project(render.surface[marks], render.focal, render.principal_point)
    along = render.detected[42:48].mean(axis=0) - render.detected[36:42].mean(axis=0)
    x, y = along / np.linalg.norm(along)
    depth = render.surface[model.landmarks[17:], 2].mean()
    return away @ np.array([[x, -y], [y, x]]) * depth / render.focal


def usual_offset(offsets):
    """Trimmed mean of offsets (N, 68, 2) and their mirror images, per landmark and axis: (68, 2)."""
    both = np.sort(np.concatenate([offsets, offsets[:, MIRROR] * [-1, 1]]), axis=0)
    cut = int(CUT * len(both))
    return both[cut:len(both) - cut].mean(axis=0)


def place_jaw(surface, lines, shift):
    """Vertices of the jaw line moved up or down: lines (17, K) int, shift (68, 2) mm, y down -> (17, K) int32.

    surface : (V, 3), file orientation, symmetric in x
    """
    placed = lines.copy()
    for k in range(9):
        for n, vertex in enumerate(lines[k]):
            goal = surface[vertex] - [0, shift[k, 1], 0]
            placed[k, n] = np.linalg.norm((surface - goal) * ALONG, axis=1).argmin()
            placed[16 - k, n] = np.linalg.norm(surface - surface[placed[k, n]] * [-1, 1, 1], axis=1).argmin()
    return placed.astype(np.int32)


def settle(model, renders):
    """The model with its landmarks and contour paths where the detector sees them on the renders."""
    surface = (model.mean * FLIP).astype(np.float64)
    for _ in range(ROUNDS):
        shift = usual_offset(np.array([offset(model, r) for r in renders]))
        upwards = np.column_stack([shift * [1, -1], np.zeros(68)])
        landmarks = place_landmarks(model, surface, surface[model.landmarks] + upwards)
        jaw = place_jaw(surface, np.column_stack([model.landmarks[:17], model.contour_paths]), shift)
        landmarks[:17] = jaw[:, 0]
        model = replace(model, landmarks=landmarks, contour_paths=jaw[:, 1:])
    return model


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fitting.place_landmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, metavar="RENDERS", help="folder with ground_truth.json")
    parser.add_argument("-o", "--out", type=Path, metavar="MODEL.npz", help="default: the embedded model's own place")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    geometry = assets.path("commons_face") / "commons_face.npz"
    out = args.out or geometry
    commands.check_writable(out)
    model = load_model()
    renders = read_renders(model, FaceDetector(), args.renders)
    mean = lambda m: np.linalg.norm(usual_offset(np.array([offset(m, r) for r in renders])), axis=1)
    settled = settle(model, renders)
    with stored_arrays(geometry, DAMAGED) as d:
        arrays = {**d, "landmarks": settled.landmarks, "contour_paths": settled.contour_paths,
                  "spread": spread_vertices(settled.mean, settled.landmarks, settled.regions)}
    with whole(out) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    before, after = mean(model), mean(settled)
    print(f"wrote {out}: {len(renders)} pictures; usual offset, jaw {before[:17].mean():.1f} -> "
          f"{after[:17].mean():.1f} mm, other points {before[17:].mean():.1f} -> {after[17:].mean():.1f} mm")


if __name__ == "__main__":
    commands.run(main)
