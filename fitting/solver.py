"""Gauss-Newton on iteratively re-weighted least squares, over one frame or several that share a person and a camera.

Every frame contributes normal equations over [shared | its own] unknowns. The frames' own unknowns are eliminated by
their Schur complement, so cost grows linearly with the number of frames. Steps are damped (Levenberg-Marquardt) and
taken only when the true, robust energy falls. Expression coefficients keep their range by an active set.
"""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numba import get_num_threads, njit

from facemodel.camera import aimed, axis_angle, project, to_camera
from facemodel.rasterizer import rasterize
from fitting import energy
from fitting.energy import Landmarks, Pose, Samples
from fitting.parameters import Layout, advance_frame, advance_shared
from fitting.photometric import photometric


def light_prior_matrix(level=(1e-3, 2e-3, 1e-2), chroma=(5e-3, 0.5, 1.0)):
    """(27, 27) quadratic form that keeps light smooth and nearly colourless.

    One picture tells light from albedo only up to what both can explain. What second-order light would explain beyond
    a soft, grey illumination is left to the albedo.

    level : weights of the squared coefficients of order 0, 1, 2
    chroma : weights of their squared deviation from the mean of the three channels
    """
    order = np.repeat([0, 1, 2], [1, 3, 5])
    grey = np.eye(3) - 1 / 3
    return np.kron(np.diag(np.array(level)[order]), np.eye(3)) + np.kron(np.diag(np.array(chroma)[order]), grey)


LIGHT_PRIOR = light_prior_matrix()


@dataclass(frozen=True)
class View:
    """One picture to be explained, at one level of its pyramid.

    image : (H, W, 3) float32 in [0, 1], a crop around the face
    scale : float, pixels of `image` per pixel of the full frame
    offset : (2,) float, position of the crop's corner in the full frame, full-frame pixels
    principal_point : (2,) float, full-frame pixels
    landmarks : Landmarks, full-frame pixels; jaw points are moved along the outline while solving
    pose : Pose, what the head's rotation is held to, or None
    """

    image: np.ndarray
    scale: float
    offset: np.ndarray
    principal_point: np.ndarray
    landmarks: Landmarks
    pose: Pose | None = None

    def camera(self, focal):
        """Focal length and principal point in pixels of the crop."""
        return focal * self.scale, (self.principal_point - self.offset) * self.scale


@dataclass(frozen=True)
class Settings:
    """Weights and limits of a solve.

    w_colour, w_landmark, w_regulariser : equation 3; w_colour 0 leaves the images out
    samples : int, largest number of photometric samples per frame
    light_prior : float, scales the light's distance from `light_mean` (see light_prior_matrix)
    expression_spread : float, scales the standard deviation of an expression coefficient in equation 6, which is
        energy.BLENDSHAPE_SIGMA for coefficients in [0, 1], else 1
    identity_weight : float, scales the regulariser of identity. Colour misfits of neighbouring samples go together, so
        they tell less about the shape than their number says: on heads of known shape 16 gave the best faces
    focal_prior : float, weight of log(focal / focal_mean) squared; one picture hardly tells focal length from distance
    identity_mean, identity_sigma : (n_id,) float or one for all, what identity is held to, and how loosely
    w_pose : float, weight of the squared angles to the views' poses over the poses' squared sigmas
    """

    w_colour: float = energy.W_COLOUR
    w_landmark: float = energy.W_LANDMARK
    w_regulariser: float = energy.W_REGULARISER
    samples: int = 8000
    light_prior: float = 1.0
    expression_spread: float = 1.0
    identity_weight: float = 16.0
    focal_prior: float = 0.02
    identity_mean: np.ndarray | float = 0.0
    identity_sigma: np.ndarray | float = 1.0
    w_pose: float = 4e-4


DEFAULT = Settings()


@dataclass(frozen=True)
class Solution:
    """What a solve found.

    shared : Shared
    frames : list of Frame
    energy : float
    accepted : int, steps that lowered the energy
    samples : list of Samples or None, what the colour term last looked at in each view
    landmarks : list of Landmarks, with the jaw points where they slid to
    hessians : list of (n, n) float64, of the energy by [active shared | active own unknowns] at the last step
    """

    shared: object
    frames: list
    energy: float
    accepted: int
    samples: list
    landmarks: list
    hessians: list


@dataclass(frozen=True)
class Appearance:
    """What pictures are compared with, as far as the model and its coefficients do not say it.

    albedo : (V, 3) float32, where it is fixed and known; None: model.albedo(shared.albedo)
    weight : (V,) float32, importance of the vertices in the colour term; None: model.sampling_weight
    """

    albedo: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Engine:
    """What draws the surface and assembles the colour term (see engine_for).

    rasterize : callable like facemodel.rasterizer.rasterize
    term : fitting.photometric_torch.TorchPhotometric, or None: fitting.photometric, in numba
    """

    rasterize: object = rasterize
    term: object = None


MODEL_ONLY, NUMBA = Appearance(), Engine()


def engine_for(model, backend):
    """The Engine of a facemodel.device.Backend; made once per model, since the model's bases are sent to a GPU."""
    if backend.torch_device is None:
        return Engine(backend.rasterize)
    from fitting.photometric_torch import TorchPhotometric
    return Engine(backend.rasterize, TorchPhotometric(model, backend.torch_device))


@njit(cache=True, fastmath=True, nogil=True)
def _sample_weight(camera, triangles, vertex_weight, rows, columns, seen, barycentric, triangle, bary, weight):
    """Triangle, barycentric coordinates and weight (skin times view angle) of some pixels of a raster."""
    for n in range(len(rows)):
        t = seen[rows[n], columns[n]]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        triangle[n] = t
        w = np.float32(0)
        for k in range(3):
            bary[n, k] = barycentric[rows[n], columns[n], k]
            w += bary[n, k] * vertex_weight[triangles[t, k]]
        ux, uy, uz = camera[b, 0] - camera[a, 0], camera[b, 1] - camera[a, 1], camera[b, 2] - camera[a, 2]
        vx, vy, vz = camera[c, 0] - camera[a, 0], camera[c, 1] - camera[a, 1], camera[c, 2] - camera[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        x, y, z = camera[a, 0], camera[a, 1], camera[a, 2]
        length = np.sqrt((nx * nx + ny * ny + nz * nz) * (x * x + y * y + z * z)) + 1e-9
        cosine = -(nx * x + ny * y + nz * z) / length
        weight[n] = w * min(max((cosine - 0.15) / 0.35, 0.0), 1.0) if w > 0.05 else 0.0


def draw_samples(model, vertices, shared, frame, view, limit, vertex_weight=None, rasterizer=rasterize):
    """Photometric samples of what a view shows: evenly spread pixels of the visible face.

    Parameters
    ----------
    vertices : (V, 3) float32, model space
    limit : int, largest number of samples
    vertex_weight : (V,) float32, importance; default model.sampling_weight
    rasterizer : callable like facemodel.rasterizer.rasterize

    Returns
    -------
    Samples, or None when fewer than 50 pixels show the face
    """
    focal, centre = view.camera(shared.focal)
    camera = to_camera(vertices, frame.rotation, frame.translation)
    height, width = view.image.shape[:2]
    raster = rasterizer(project(camera, focal, centre), camera[:, 2], model.sampled_triangles, height, width)
    mask = raster.mask
    mask[[0, -1]] = mask[:, [0, -1]] = False
    pixels = np.flatnonzero(mask)
    if len(pixels) > limit:
        pixels = pixels[(np.arange(limit) * (len(pixels) / limit)).astype(int)]
    rows, columns = np.divmod(pixels, width)
    n = len(pixels)
    triangle, bary, weight = np.empty(n, np.int32), np.empty((n, 3), np.float32), np.empty(n, np.float32)
    weights = model.sampling_weight if vertex_weight is None else vertex_weight
    _sample_weight(camera, model.sampled_triangles, weights, rows, columns, raster.triangle,
                   raster.barycentric, triangle, bary, weight)
    shown = weight > 0
    if shown.sum() < 50:
        return None
    return Samples(model.sampled_index[triangle[shown]], bary[shown], weight[shown])


def in_crop(view, shared):
    """Shared with the focal length in pixels of a view's crop, and the principal point (2,) there."""
    focal, centre = view.camera(shared.focal)
    return replace(shared, focal=focal), centre


def view_residuals(model, vertices, albedo, view, samples, shared, frame, layout=None, parallel=True):
    """Colour residuals (N, 3) of a view's samples and, if asked for, their Jacobian (see fitting.photometric)."""
    shared, centre = in_crop(view, shared)
    return photometric(model, vertices, albedo, view.image, samples, shared, frame, centre, layout, parallel=parallel)


def outline_vertices(model, vertices, rotation, translation, focal, principal_point):
    """Vertices of the jaw landmarks: on each contour path, the one that reaches furthest outwards in the picture.

    Parameters
    ----------
    model : MorphableModel
    vertices : (V, 3) float, model space, millimetres
    rotation : (3,) axis-angle or (3, 3)
    translation : (3,) millimetres
    focal, principal_point : float, (2,), pixels

    Returns
    -------
    (17,) int32
    """
    paths = model.contour_paths
    camera = to_camera(vertices[paths.ravel()], rotation, translation)
    xy = project(camera, focal, principal_point).reshape(*paths.shape, 2)
    inner = to_camera(vertices[model.landmarks[27:]], rotation, translation)
    centre = project(inner, focal, principal_point).mean(axis=0)
    middle = xy.mean(axis=1)
    tangent = np.gradient(middle, axis=0)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    outward *= np.sign(((middle - centre) * outward).sum(axis=1, keepdims=True))
    furthest = np.argmax((xy * outward[:, None]).sum(axis=2), axis=1)
    return paths[np.arange(17), furthest]


def slide_jaw(model, vertices, shared, frame, view):
    """Landmarks with their jaw points on the outline (outline_vertices)."""
    chosen = view.landmarks.vertices.copy()
    chosen[:17] = outline_vertices(model, vertices, frame.rotation, frame.translation, shared.focal,
                                   view.principal_point)
    return replace(view.landmarks, vertices=chosen)


class _Problem:
    """The energy of a set of frames and its normal equations; frames are worked on at once on the threads of a pool."""

    def __init__(self, model, views, active, settings, light_mean, focal_mean, appearance, engine, pool=None):
        self._pool = pool
        self.model, self.views, self.settings = model, views, settings
        self.appearance, self.engine = appearance, engine
        self.expression_sigma = settings.expression_spread * energy.expression_sigma(model)
        self.layout = Layout.build(model, active)
        self.light_mean, self.focal_mean = light_mean, focal_mean
        self.samples = [None] * len(views)
        self._albedo = appearance.albedo
        self._prepared = [None] * len(views)
        self._rows = [None] * len(views)
        self._shapes = [(None, None, None)] * len(views)
        self._neutral = (None, None)
        self.landmarks = [v.landmarks for v in views]
        self.told = [v.pose and aimed(v.pose.centre, self.focal_mean, v.principal_point) @ v.pose.rotation
                     for v in views]

    def look(self, shared, frames):
        """Renews visibility and outlines."""
        neutral = self._neutral_of(shared)
        self._each(lambda i, frame: self._look_at(i, neutral, shared, frame), frames)

    def _each(self, work, frames):
        """work(i, frame) of all frames, in their order."""
        return list((self._pool.map if self._pool else map)(work, range(len(frames)), frames))

    def _look_at(self, i, neutral, shared, frame):
        view = self.views[i]
        vertices = self.model.express(neutral, frame.expression, self._rows_in_view(view))
        self._shapes[i] = (shared.identity, frame.expression, vertices)
        self.landmarks[i] = slide_jaw(self.model, vertices, shared, frame, view)
        needed = np.zeros(self.model.vertex_count, bool)
        needed[self.landmarks[i].vertices] = True
        if self.settings.w_colour:
            self.samples[i] = draw_samples(self.model, vertices, shared, frame, view, self.settings.samples,
                                           self.appearance.weight, self.engine.rasterize)
            if self.samples[i] is not None:
                if self.engine.term:
                    self._prepared[i] = self.engine.term.prepare(view.image, self.samples[i])
                needed[self.model.triangles[self.samples[i].triangle]] = True
        self._rows[i] = np.flatnonzero(needed)

    def _rows_in_view(self, view):
        """Vertices that may be looked at in a view."""
        model = self.model
        needed = model.sampled_vertices.copy() if self.settings.w_colour else np.zeros(model.vertex_count, bool)
        needed[view.landmarks.vertices] = needed[model.contour_paths] = needed[model.landmarks] = True
        return np.flatnonzero(needed)

    def energy(self, shared, frames):
        s = self.settings
        away = (shared.identity - s.identity_mean) / s.identity_sigma
        total = s.w_regulariser * (s.identity_weight * (away ** 2).sum() + (shared.albedo ** 2).sum())
        total += s.focal_prior * np.log(shared.focal / self.focal_mean) ** 2
        albedo, neutral = self._albedo_of(shared), self._neutral_of(shared)
        return float(total + sum(self._each(lambda i, frame: self._energy_of(i, albedo, neutral, shared, frame),
                                            frames)))

    def _energy_of(self, i, albedo, neutral, shared, frame):
        """What frame i adds to the energy."""
        s, marks = self.settings, self.landmarks[i]
        vertices = self._shape_of(i, neutral, shared, frame)
        r, _ = energy.landmark_term(self.model, vertices, marks, shared, frame, self.views[i].principal_point)
        total = s.w_landmark * energy.landmark_energy(r, marks.weight)
        total += s.w_regulariser * ((frame.expression / self.expression_sigma) ** 2).sum()
        if self.told[i] is not None:
            total += s.w_pose * ((self._turn(i, frame) / self.views[i].pose.sigma) ** 2).sum()
        away = (frame.light - self.light_mean[i]).ravel()
        total += s.light_prior * away @ LIGHT_PRIOR @ away
        if self.samples[i] is not None:
            total += s.w_colour * self._colour_energy(vertices, albedo, i, shared, frame)
        return total

    def _turn(self, i, frame):
        """Frame i's rotation from what it is held to, (3,) radians about the camera's axes."""
        return axis_angle(frame.rotation @ self.told[i].T)

    def _shape_of(self, i, neutral, shared, frame):
        """Vertices of frame i, as far as its samples and landmarks need them; those of the last state are kept."""
        identity, expression, vertices = self._shapes[i]
        if identity is not shared.identity or expression is not frame.expression:
            vertices = self.model.express(neutral, frame.expression, self._rows[i])
            self._shapes[i] = (shared.identity, frame.expression, vertices)
        return vertices

    def _neutral_of(self, shared):
        """Control mesh without expression; that of the last identity is kept."""
        if self._neutral[0] is not shared.identity:
            self._neutral = shared.identity, self.model.neutral(shared.identity)
        return self._neutral[1]

    def _albedo_of(self, shared):
        if not self.settings.w_colour:
            return None
        if self._albedo is None or "albedo" in self.layout:
            self._albedo = self.model.albedo(shared.albedo)
        return self._albedo

    def _colour_energy(self, vertices, albedo, i, shared, frame):
        if self.engine.term:
            shared, centre = in_crop(self.views[i], shared)
            return self.engine.term.energy(vertices, albedo, self._prepared[i], shared, frame, centre)
        residual, _ = view_residuals(self.model, vertices, albedo, self.views[i], self.samples[i], shared, frame,
                                     parallel=not self._pool)
        return energy.colour_energy(residual, self.samples[i].weight)

    def _colour_equations(self, vertices, albedo, i, shared, frame):
        """Hessian (n, n) and gradient (n,) of the colour term, float64."""
        if self.engine.term:
            shared, centre = in_crop(self.views[i], shared)
            e = self.engine.term.normal_equations(vertices, albedo, self._prepared[i], shared, frame, centre,
                                                  self.layout, self.settings.w_colour)
            return e.hessian, e.gradient
        r, j = view_residuals(self.model, vertices, albedo, self.views[i], self.samples[i], shared, frame,
                              self.layout, parallel=not self._pool)
        weight = self.samples[i].weight
        w = self.settings.w_colour * weight * energy.robust_weights(r) / weight.sum()
        root = np.repeat(np.sqrt(w), 3).astype(j.dtype)
        j *= root[:, None]
        return (j.T @ j).astype(np.float64), (j.T @ (root * r.ravel())).astype(np.float64)

    def normal_equations(self, shared, frames):
        """Per frame: Hessian (n, n) and gradient (n,), float64; shared regularisation is in the first frame's."""
        albedo, neutral = self._albedo_of(shared), self._neutral_of(shared)
        return self._each(lambda i, frame: self._equations_of(i, albedo, neutral, shared, frame), frames)

    def _equations_of(self, i, albedo, neutral, shared, frame):
        marks, vertices = self.landmarks[i], self._shape_of(i, neutral, shared, frame)
        r, j = energy.landmark_term(self.model, vertices, marks, shared, frame, self.views[i].principal_point,
                                    self.layout)
        w = np.repeat(2 * self.settings.w_landmark * marks.weight / marks.weight.sum(), 2)
        hessian, gradient = (j * w[:, None]).T @ j, j.T @ (w * r.ravel())
        if self.samples[i] is not None:
            h, g = self._colour_equations(vertices, albedo, i, shared, frame)
            hessian += h
            gradient += g
        self._regularise(hessian, gradient, i, shared, frame)
        return hessian, gradient

    def _regularise(self, hessian, gradient, i, shared, frame):
        s, layout = self.settings, self.layout
        diagonal = hessian.reshape(-1)[::len(hessian) + 1]

        def add(name, value, weight):
            if name in layout:
                diagonal[layout[name]] += 2 * weight
                gradient[layout[name]] += 2 * weight * value

        if i == 0:
            add("identity", shared.identity - s.identity_mean,
                s.w_regulariser * s.identity_weight / s.identity_sigma ** 2)
            add("albedo", shared.albedo, s.w_regulariser)
            add("focal", np.log(shared.focal / self.focal_mean), s.focal_prior)
        add("expression", frame.expression, s.w_regulariser / self.expression_sigma ** 2)
        if self.told[i] is not None:
            add("rotation", self._turn(i, frame), s.w_pose / self.views[i].pose.sigma ** 2)
        if "light" in layout:
            away = (frame.light - self.light_mean[i]).ravel()
            hessian[layout["light"], layout["light"]] += 2 * s.light_prior * LIGHT_PRIOR
            gradient[layout["light"]] += 2 * s.light_prior * LIGHT_PRIOR @ away

    def step(self, equations, frames, damping):
        """Increments (shared, [per frame]) that solve the damped normal equations within the expressions' range."""
        n_s, layout = self.layout.shared_size, self.layout
        low, high = self.model.expression_range
        fixed = [{} for _ in frames]
        if "expression" in layout:
            first = layout["expression"].start
            for frame, pinned, (_, g) in zip(frames, fixed, equations):
                slope = g[layout["expression"]]
                for k in np.flatnonzero(((frame.expression <= low) & (slope > 0))
                                        | ((frame.expression >= high) & (slope < 0))):
                    pinned[first + k] = 0.0
        for _ in range(4):
            top, right, parts = np.zeros((n_s, n_s)), np.zeros(n_s), []
            for pinned, (h, g) in zip(fixed, equations):
                h = h + damping * np.diag(np.diag(h)) + 1e-10 * np.eye(len(h))
                g = g.copy()
                for k, value in pinned.items():
                    g += h[:, k] * value
                for k, value in pinned.items():
                    h[k, :] = h[:, k] = 0
                    h[k, k], g[k] = 1, -value
                solved = np.linalg.solve(h[n_s:, n_s:], np.column_stack([h[n_s:, :n_s], g[n_s:]]))
                top += h[:n_s, :n_s] - h[:n_s, n_s:] @ solved[:, :-1]
                right += g[:n_s] - h[:n_s, n_s:] @ solved[:, -1]
                parts.append(solved)
            shared_step = -np.linalg.solve(top, right) if n_s else np.zeros(0)
            frame_steps = [-p[:, -1] - p[:, :-1] @ shared_step for p in parts]
            if "expression" not in layout:
                break
            local = slice(layout["expression"].start - n_s, layout["expression"].stop - n_s)
            again = False
            for frame, pinned, step in zip(frames, fixed, frame_steps):
                wanted = frame.expression + step[local]
                for k in np.flatnonzero((wanted < low - 1e-9) | (wanted > high + 1e-9)):
                    pinned[first + k] = float(np.clip(wanted[k], low, high) - frame.expression[k])
                    again = True
            if not again:
                break
        if "expression" in layout:
            for frame, step in zip(frames, frame_steps):
                step[local] = np.clip(frame.expression + step[local], low, high) - frame.expression
        return shared_step, frame_steps


def solve(model, shared, frames, views, active, iterations, settings=DEFAULT, light_mean=None, focal_mean=None,
          look_every=2, tolerance=1e-4, appearance=MODEL_ONLY, engine=NUMBA):
    """Lowers the energy of equation 3.

    Parameters
    ----------
    model : MorphableModel
    shared : Shared
    frames : list of Frame
    views : list of View, one per frame
    active : names of the blocks that may change
    iterations : int, most steps
    settings : Settings
    light_mean : list of (9, 3), one per frame, what the light is pulled to; default where it is now
    focal_mean : float, default the present focal length
    look_every : int, steps between renewals of visibility and outline
    tolerance : float, stop when a step lowers the energy by a smaller share
    appearance : Appearance
    engine : Engine

    Returns
    -------
    Solution
    """
    frames = list(frames)
    light_mean = [f.light for f in frames] if light_mean is None else light_mean
    threads = 1 if engine.term else min(len(frames), get_num_threads())
    with ThreadPoolExecutor(threads) as pool:
        problem = _Problem(model, views, active, settings, light_mean, focal_mean or shared.focal, appearance, engine,
                           pool if threads > 1 else None)
        damping, accepted, value, equations = 1e-3, 0, None, []
        for iteration in range(iterations):
            if iteration % look_every == 0:
                problem.look(shared, frames)
                value = problem.energy(shared, frames)
            equations = problem.normal_equations(shared, frames)
            for _ in range(5):
                shared_step, frame_steps = problem.step(equations, frames, damping)
                new_shared = advance_shared(shared, shared_step, problem.layout)
                new_frames = [advance_frame(f, s, problem.layout) for f, s in zip(frames, frame_steps)]
                new_value = problem.energy(new_shared, new_frames)
                if new_value < value:
                    break
                damping = max(damping * 8, 1e-4)
            else:
                break
            gain = (value - new_value) / max(value, 1e-12)
            shared, frames, value = new_shared, new_frames, new_value
            accepted += 1
            damping = max(damping / 4, 1e-6)
            if gain < tolerance and iteration % look_every == look_every - 1:
                break
    return Solution(shared, frames, value if value is not None else np.nan, accepted, problem.samples,
                    problem.landmarks, [h for h, _ in equations])
