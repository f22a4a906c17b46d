"""What many tests share."""
import pytest
from threadpoolctl import threadpool_limits

from facemodel.morphable import load_model


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """As in fitting.track.track_clip: the solver's matrices are small, threads would only wait for each other."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def model():
    """The embedded face model; read-only by agreement."""
    return load_model()
