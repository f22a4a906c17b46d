"""Ranges of passed-through frames, and the exit status that follows from them."""
import pytest

from compositing.report import exit_status, passed_ranges, range_words


def test_ranges_in_words():
    assert range_words(passed_ranges([1, 0, 0, 1, 0, 1])) == "1-2, 4"
    assert range_words([[k, k] for k in range(0, 40, 2)], limit=2) == "0, 2, and 18 more ranges"


@pytest.mark.parametrize(("replaced", "status"), [(100, 0), (90, 0), (89, 3), (1, 3)])
def test_status(replaced, status):
    assert exit_status({"frames": 150, "outside_span": 50, "replaced": replaced}) == status
