"""The rasterisers against each other on the same scenes, and the parts of the GPU's that run without one.

PyTorch3D and nvdiffrast are extras and nvdiffrast needs a GPU: what is missing is skipped with its reason.
"""
import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from facemodel import device, visibility
from facemodel.device import backend_for
from facemodel.errors import InputError
from facemodel.morphable import load_model
from facemodel.rasterizer import rasterize
from facemodel.rasterizer_nvdiffrast import NvdiffrastRasterizer, clip_positions
from facemodel.visibility import front_triangles, settle
from tests.test_rasterizer import soup

EDGE = 1e-4                 # pixels; how near to an edge of both triangles float32 may take the one for the other

ROUNDING = {"cuda": 0.0, "pytorch3d": 3e-5}     # pixels; PyTorch3D's positions are float32 in pictures of 200 pixels


def head(seed, height=70, width=90, rings=28, grid=None):
    """A bumpy egg before the camera, nose-like fold included: xy (V, 2), z (V,), triangles (T, 3), height, width.

    grid : pixels, rounds corners so that edges run through pixel centres
    """
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.linspace(0.02, np.pi - 0.02, rings), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False),
                       indexing="ij")
    bump = sum(rng.uniform(-0.08, 0.08) * np.sin(k * u + rng.uniform(0, 6)) * np.cos(k * v) for k in range(1, 6))
    radius = 1 + bump + 0.5 * np.exp(-((u - 1.6) ** 2 + (v - 4.4) ** 2) / 0.05)
    points = 60 * radius[..., None] * np.stack([np.sin(u) * np.cos(v), -1.2 * np.cos(u), np.sin(u) * np.sin(v)], -1)
    camera = points.reshape(-1, 3) + [3, -4, 300]
    xy = 1.7 * min(height, width) * camera[:, :2] / camera[:, 2:] + [width / 2, height / 2]
    if grid:
        xy = np.round(xy / grid) * grid
    index = np.arange(u.size).reshape(u.shape)
    a, b = index[:-1], index[1:]
    c, d = np.roll(b, -1, axis=1), np.roll(a, -1, axis=1)
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return xy.astype(np.float32), camera[:, 2].astype(np.float32), triangles.astype(np.int32), height, width


def commons(zoom, height=64, width=56):
    """The embedded face, 106,000 triangles: zoom 1 shows all of it, many triangles to a pixel."""
    model = load_model()
    camera = model.shape() + np.float32([0, 0, 700])
    xy = zoom * 2.6 * width * camera[:, :2] / camera[:, 2:] + np.float32([width / 2, height / 2])
    return xy, camera[:, 2], model.triangles, height, width


def random_triangles(seed):
    camera, xy, triangles = soup(seed, count=40)
    return xy.astype(np.float32), camera[:, 2].astype(np.float32), triangles, 24, 31


SCENES = {"head": lambda: head(0), "tall head": lambda: head(1, height=110, width=64, rings=20),
          "large": lambda: head(2, height=256, width=200, rings=40), "face": lambda: commons(1),
          "face close up": lambda: commons(6), "soup 0": lambda: random_triangles(0),
          "soup 1": lambda: random_triangles(1)}


def edge_distance(scene, triangle, rows, columns):
    """Distance in pixels from pixel centres to the nearest edge line of their triangles, float64."""
    corners = scene[0][scene[2][triangle]].astype(float)
    offset = np.column_stack([columns, rows])[:, None] + 0.5 - corners
    along = np.roll(corners, -1, axis=1) - corners
    cross = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]
    return np.abs(cross / np.linalg.norm(along, axis=2)).min(axis=1)


def altitude(scene, triangle):
    """Smallest altitude of triangles in the picture, pixels."""
    corners = scene[0][scene[2][triangle]].astype(float)
    along = np.roll(corners, -1, axis=1) - corners
    area = np.abs(along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0])
    return area / np.linalg.norm(along, axis=2).max(axis=1)


def compare(scene, raster, reference, edge, rounding=0.0):
    """Asserts that two rasters agree; returns how many pixels went to the other side of an edge nearer than `edge`.

    rounding : pixels, precision of positions; barycentrics agree to 1e-4 or to what it makes of a small triangle
    """
    other = raster.triangle != reference.triangle
    rows, columns = np.nonzero(other)
    for r in (raster, reference):
        seen = r.triangle[rows, columns] >= 0
        distance = edge_distance(scene, r.triangle[rows, columns][seen], rows[seen], columns[seen])
        assert (distance < edge).all(), f"{(distance >= edge).sum()} pixels differ away from an edge"
    same = ~other & reference.mask
    allowed = np.maximum(1e-4, rounding / altitude(scene, reference.triangle[same]))
    away = np.abs(raster.barycentric[same] - reference.barycentric[same]).max(axis=1)
    assert (away <= allowed).all(), f"barycentrics differ by up to {away.max()}"
    np.testing.assert_allclose(raster.depth[same], reference.depth[same], rtol=1e-5)
    assert np.isinf(raster.depth[~raster.mask]).all()
    return len(rows)


@pytest.fixture(params=["pytorch3d", "cuda"])
def backend(request):
    try:
        return backend_for(request.param)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("name", SCENES)
def test_same_scene_same_pixels(backend, name, cull):
    """Every pixel of every scene sees the same triangle, those at silhouettes included."""
    scene = SCENES[name]()
    raster, reference = backend.rasterize(*scene, cull), rasterize(*scene, cull)
    assert reference.mask.mean() > 0.1
    np.testing.assert_array_equal(raster.mask, reference.mask)
    assert compare(scene, raster, reference, EDGE, ROUNDING[backend.name]) == 0


@pytest.mark.parametrize("grid", [1 / 2, 1 / 16])
def test_centres_on_edges(backend, grid):
    """Where edges run through pixel centres the outline is the same; inside it, either neighbour may be seen there."""
    scene = head(3, grid=grid)
    raster, reference = backend.rasterize(*scene), rasterize(*scene)
    np.testing.assert_array_equal(raster.mask, reference.mask)
    compare(scene, raster, reference, 1e-9 if backend.name == "cuda" else EDGE, ROUNDING[backend.name])


def test_nothing_to_see(backend):
    xy = np.float32([[1, 1], [1, 9], [9, 1]])
    for z, triangles in ((np.ones(3), [[0, 2, 1]]), (np.float32([1, 1, -1]), [[0, 1, 2]]), (np.ones(3), [])):
        raster = backend.rasterize(xy, z, np.array(triangles, np.int32).reshape(-1, 3), 10, 12)
        assert raster.triangle.shape == (10, 12) and not raster.mask.any() and np.isinf(raster.depth).all()


def in_float64(scene, cull=True):
    """xy, z, the triangles to be drawn, and their rows in the scene, as tensors."""
    xy, z = torch.as_tensor(scene[0]).double(), torch.as_tensor(scene[1]).double()
    triangles = torch.as_tensor(scene[2]).long()
    front = front_triangles(xy, z, triangles, cull)
    return xy, z, triangles[front], front


def snapped(scene, cull=True, grid=1 / 16):
    """What a rasteriser sees that rounds corners to a grid."""
    return rasterize(np.round(scene[0] / grid) * grid, *scene[1:], cull)


@pytest.mark.parametrize("chunk", [visibility.PAIRS_AT_ONCE, 3000])
@pytest.mark.parametrize("name", SCENES)
def test_settled_from_any_proposal(name, chunk, monkeypatch):
    """Whatever is proposed - corners on a grid, nothing, noise - the answer is the numba rasteriser's."""
    monkeypatch.setattr(visibility, "PAIRS_AT_ONCE", chunk)
    scene = SCENES[name]()
    xy, z, triangles, front = in_float64(scene)
    reference = rasterize(*scene)
    rows = torch.full((len(scene[2]) + 1,), -1)
    rows[front] = torch.arange(len(front))
    noise = torch.from_numpy(np.random.default_rng(0).integers(-1, len(front), reference.triangle.shape))
    coarse = snapped(scene).triangle
    for proposal in (rows[coarse], torch.full_like(noise, -1), noise):
        triangle, _ = settle(xy, z, triangles, proposal)
        found = torch.where(triangle >= 0, front[triangle.clamp(min=0)], -1).numpy()
        np.testing.assert_array_equal(found, reference.triangle)


def test_few_pixels_are_left_to_decide():
    scene = head(2, height=512, width=400, rings=14)
    xy, z, triangles, front = in_float64(scene)
    rows = torch.full((len(scene[2]) + 1,), -1)
    rows[front] = torch.arange(len(front))
    proposal = rows[snapped(scene).triangle]
    triangle, decided = settle(xy, z, triangles, proposal)
    changed = int((triangle != proposal).sum())
    assert 0 < changed < decided < 0.1 * proposal.numel()


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("name", ["head", "face", "soup 1"])
def test_barycentrics_in_torch(name, cull):
    scene = SCENES[name]()
    xy, z, triangles, front = in_float64(scene, cull)
    reference = rasterize(*scene, cull)
    rows = torch.full((len(scene[2]) + 1,), -1)
    rows[front] = torch.arange(len(front))
    barycentric, depth = visibility.barycentrics(xy, z, triangles, rows[reference.triangle])
    np.testing.assert_allclose(barycentric, reference.barycentric * reference.mask[..., None], atol=2e-6)
    np.testing.assert_allclose(depth, reference.depth, rtol=1e-6)


def test_clip_positions_meet_nvdiffrasts_pixel_rule():
    """nvdiffrast puts the centre of pixel (i, j) at ((2 j + 1) / W - 1, (2 i + 1) / H - 1) of the unit square."""
    scene = head(0)
    xy, z, triangles, front = in_float64(scene)
    height, width = scene[3:]
    position = clip_positions(xy, z, triangles, height, width).double().numpy()
    reference = rasterize(*scene)
    i, j = np.nonzero(reference.mask)
    corners = position[scene[2][reference.triangle[i, j]]]
    seen = (reference.barycentric[i, j, :, None] * corners).sum(axis=1)          # linear before the division
    np.testing.assert_allclose(seen[:, 0] / seen[:, 3], (2 * j + 1) / width - 1, atol=1e-6)
    np.testing.assert_allclose(seen[:, 1] / seen[:, 3], (2 * i + 1) / height - 1, atol=1e-6)
    used = np.unique(triangles.numpy())
    assert (np.abs(position[used, 2]) < position[used, 3]).all()                 # nothing is clipped
    order = np.argsort(z.numpy()[used])
    assert (np.diff((position[used, 2] / position[used, 3])[order]) >= 0).all()  # near is less


class StandIn:
    """Answers like nvdiffrast.torch does, its rounding of corners included, with numba instead of a GPU."""

    class RasterizeCudaContext:
        def __init__(self, device=None):
            pass

    @staticmethod
    def rasterize(context, pos, tri, resolution, grad_db=True):
        assert pos.dtype == torch.float32 and tri.dtype == torch.int32 and pos.dim() == 3 and pos.is_contiguous()
        height, width = resolution
        clip = pos[0].numpy()
        xy = (clip[:, :2] / clip[:, 3:] + 1) / 2 * [width, height]
        seen = rasterize(np.round(xy * 16) / 16, clip[:, 3], tri.numpy(), height, width, cull_backfaces=False)
        out = np.concatenate([seen.barycentric[..., :2], seen.depth[..., None], seen.triangle[..., None] + 1.0], -1)
        return torch.from_numpy(out).float()[None], None


@pytest.fixture
def stand_in(monkeypatch):
    package, module, ops = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch"), ModuleType("nvdiffrast.torch.ops")
    module.RasterizeCudaContext, module.rasterize = StandIn.RasterizeCudaContext, StandIn.rasterize
    package.torch, module.ops, ops._get_plugin = module, ops, lambda: None
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    return module


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("name", SCENES)
def test_around_nvdiffrast(stand_in, name, cull):
    """All of the GPU rasteriser but nvdiffrast's own kernel."""
    scene = SCENES[name]()
    raster, reference = NvdiffrastRasterizer("cpu")(*scene, cull), rasterize(*scene, cull)
    assert compare(scene, raster, reference, 0) == 0
    assert raster.triangle.dtype == np.int32 and raster.barycentric.dtype == raster.depth.dtype == np.float32
    if name == "head":
        on_edges = head(4, grid=1 / 2)                                           # here even the choice of neighbour
        assert compare(on_edges, NvdiffrastRasterizer("cpu")(*on_edges, cull), rasterize(*on_edges, cull), 0) == 0
        assert (snapped(scene, cull).triangle != reference.triangle).any()       # there was something to settle
        empty = NvdiffrastRasterizer("cpu")(scene[0], -scene[1], *scene[2:])
        assert not empty.mask.any()


def test_nvdiffrast_that_does_not_compile_is_one_line(stand_in):
    def fail(device):
        raise RuntimeError("Error building extension\nlong log")

    stand_in.RasterizeCudaContext = fail
    with pytest.raises(InputError, match=r"^--device cuda: nvdiffrast does not start \(Error building extension\)"):
        NvdiffrastRasterizer("cpu")


def test_nvdiffrast_that_does_not_find_what_it_compiled(stand_in, monkeypatch, tmp_path):
    """As nvdiffrast 0.3.3 with torch 2.12: compiled, but not importable by name."""
    name = "nvdiffrast_plugin_of_a_test"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setattr("torch.utils.cpp_extension._get_build_directory", lambda name, verbose: str(tmp_path))
    monkeypatch.setattr(stand_in.ops, "_get_plugin", lambda: importlib.import_module(name))
    before = list(sys.path)
    NvdiffrastRasterizer("cpu")
    assert name in sys.modules and sys.path == before
    del sys.modules[name]


def pretend(monkeypatch, installed, gpu):
    monkeypatch.setattr(device, "_installed", lambda package: package in installed)
    monkeypatch.setattr(device, "_has_gpu", lambda: gpu)


@pytest.mark.parametrize("installed, gpu", [((), True), (("torch",), True), (("nvdiffrast",), True),
                                            (("torch", "nvdiffrast"), False)])
def test_auto_is_the_cpu_unless_all_of_cuda_is_there(monkeypatch, installed, gpu):
    pretend(monkeypatch, installed, gpu)
    assert backend_for("auto") is device.CPU
    with pytest.raises(InputError, match="^--device cuda: .*CPU") as error:
        backend_for("cuda")
    assert ('pip install -e ".[gpu]"' in str(error.value)) == gpu


def test_auto_takes_cuda_when_it_is_there(monkeypatch, stand_in):
    pretend(monkeypatch, ("torch", "nvdiffrast"), True)
    for name in ("auto", "cuda"):
        chosen = backend_for(name)
        assert chosen.name == "cuda" and chosen.torch_device == "cuda" and isinstance(chosen.rasterize,
                                                                                      NvdiffrastRasterizer)


def test_missing_pytorch3d_and_unknown_names(monkeypatch):
    pretend(monkeypatch, ("torch",), False)
    with pytest.raises(InputError, match=r'pytorch3d not installed; install with pip install -e "\.\[pytorch3d\]"'):
        backend_for("pytorch3d")
    with pytest.raises(InputError, match="choose one of auto, cpu, cuda"):
        backend_for("tpu")


def test_auto_does_not_import_torch_without_nvdiffrast(monkeypatch):
    monkeypatch.setattr(device, "_installed", lambda package: package == "torch")
    monkeypatch.delitem(sys.modules, "torch")
    backend_for("auto")
    backend_for("cpu")
    assert "torch" not in sys.modules
