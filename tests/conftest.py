"""What many tests share."""
import pytest

from facemodel.morphable import load_model


@pytest.fixture(scope="session")
def model():
    """The embedded face model; read-only by agreement."""
    return load_model()
