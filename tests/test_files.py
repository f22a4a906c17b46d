"""Files are there whole or not at all."""
import pytest

from facemodel.errors import InputError
from facemodel.files import whole


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
