"""Files are there whole or not at all."""
import numpy as np
import pytest

from facemodel.errors import InputError
from facemodel.files import stored_arrays, whole


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("failure", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (
    ValueError("not this"), ValueError), (OSError(28, "No space left on device"), InputError)])
def test_a_failure_leaves_what_was_there_and_nothing_beside(tmp_path, failure, raised):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(raised), whole(path) as beside:
        beside.write_text("ha")
        raise failure
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_too_long_is_named(tmp_path):
    with pytest.raises(InputError, match="can't be written"), whole(tmp_path / ("a" * 253)) as beside:
        beside.write_text("x")


def test_a_place_that_can_not_be_written_is_named_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"b: can't be written .*make room there"), \
            whole(tmp_path / "missing" / "b", "make room there") as beside:
        beside.write_text("x")


def test_stored_arrays_are_whole_or_told_in_one_line(tmp_path):
    """Cut off at any place, empty, of other things or of other arrays; the words of who reads them pass through."""
    path, bad = tmp_path / "a.npz", tmp_path / "bad.npz"
    np.savez_compressed(path, a=np.arange(1000), b=np.eye(3))
    with stored_arrays(path, "x") as found:
        assert list(found) == ["a", "b"] and found["a"][999] == 999
    data = path.read_bytes()
    for part in (b"", b"x", data[:40], data[:-30], data[:60] + bytes(100) + data[160:]):
        bad.write_bytes(part)
        with pytest.raises(InputError, match="^.*bad.npz: draw it anew$"), stored_arrays(bad, "draw it anew"):
            pass
    np.save(bad.open("wb"), np.eye(2))
    with pytest.raises(InputError, match="draw it anew"), stored_arrays(bad, "draw it anew"):
        pass
    with pytest.raises(InputError, match="a.npz: draw it anew"), stored_arrays(path, "draw it anew") as found:
        found["c"]
    with pytest.raises(InputError, match="^another model$"), stored_arrays(path, "draw it anew"):
        raise InputError("another model")
