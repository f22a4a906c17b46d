"""What many tests share."""
from dataclasses import replace

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from compositing.virtual import portrait, virtual_face
from facemodel.morphable import load_model
from texgan.headshots import bind
from texgan.stage import load_stage


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """As in fitting.track.track_clip: the solver's matrices are small, threads would only wait for each other."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def model():
    """The embedded face model; read-only by agreement."""
    return load_model()


@pytest.fixture(scope="session")
def lopsided(model):
    """The embedded model on a chart whose halves are no mirror images, as charts of other models are; read-only."""
    u, v = model.uv.T
    return replace(model, uv=np.stack([u + 0.012 * np.sin(np.pi * u) * (1 + np.sin(7 * v)), v], axis=1))


@pytest.fixture(scope="session")
def stage(model):
    """ICT-FaceKit with all its parts, for tests that need it (tests.test_rendered.needs_ict); read-only likewise."""
    from tests.test_rendered import ICT
    return load_stage(ICT, model)


@pytest.fixture(scope="session")
def binding(stage, model):
    """Where the dense landmarks lie on it."""
    return bind(stage, model)


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory, model):
    """A folder with portraits p1 and p2 of two faces of nobody, neutral and smiling."""
    folder = tmp_path_factory.mktemp("people")
    smile = np.zeros(model.expression_count, np.float32)
    for name, value in (("mouthSmileLeft", 0.7), ("mouthSmileRight", 0.7), ("jawOpen", 0.15)):
        smile[model.expression_names.index(name)] = value
    for name, seed in (("p1", 7), ("p2", 3)):
        face = virtual_face(model, seed)
        for expression, coefficients in (("neutral", 0 * smile), ("smile", smile)):
            picture = portrait(model, replace(face, expression=coefficients))
            cv2.imwrite(str(folder / f"{name}_{expression}.png"), picture[..., ::-1])
    return folder
