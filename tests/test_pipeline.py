"""compositing.pipeline: functions in threads of their own, items in order, results that do not depend on speed."""
import threading
import time

import pytest

from compositing.pipeline import Pipeline


def slowly(function, seconds):
    def slow(item):
        time.sleep(seconds(item))
        return function(item)
    return slow


def passed(line, items):
    """All results, taken as they come."""
    return [result for item in items for result in line.push(item)] + list(line.drain())


def test_results_are_those_of_a_loop_however_fast_each_function_is():
    for pace in (lambda k: 0.002 * (k % 3), lambda k: 0.004 * ((k + 1) % 2), lambda k: 0):
        sums, seen = [0], []

        def add(item, sums=sums):                  # remembers the items before
            sums.append(sums[-1] + item)
            return sums[-1]

        line = Pipeline(slowly(add, pace), slowly(lambda x, seen=seen: seen.append(x) or 3 * x, pace))
        assert passed(line, range(12)) == [3 * sum(range(k + 1)) for k in range(12)]
        assert seen == [sum(range(k + 1)) for k in range(12)]


def test_functions_run_at_once_each_in_its_own_thread():
    meeting, threads = threading.Barrier(3, timeout=20), [set(), set(), set()]

    def meets(place):
        def function(item):
            threads[place].add(threading.get_ident())
            if place <= item < 6 + place:
                meeting.wait()                     # all three are at work on different items, or this never ends
            return item
        return function

    # item k reaches place p as the (k - p)th of its turn: the barrier opens for three items that follow one another
    order = [slowly(meets(place), lambda item: 0) for place in (2, 1, 0)]
    line = Pipeline(*order, ahead=5)
    assert passed(line, range(9)) == list(range(9))
    assert all(len(its) == 1 for its in threads) and len(set.union(*threads)) == 3


def test_no_more_are_under_way_than_allowed():
    begun = []
    line = Pipeline(lambda x: begun.append(x) or x, lambda x: x, ahead=2)
    assert list(line.push(0)) == list(line.push(1)) == []
    assert list(line.push(2)) == [0] and len(begun) <= 3
    assert list(line.drain()) == [1, 2] and list(line.drain()) == []
    assert passed(line, [3, 4]) == [3, 4]          # it goes on after that


def test_an_error_comes_in_its_items_turn():
    line = Pipeline(lambda x: 1 / x, lambda x: -x, ahead=1)
    assert list(line.push(1)) == []
    assert list(line.push(0)) == [-1]
    with pytest.raises(ZeroDivisionError):
        list(line.push(2))
    line.close()


def test_closing_waits_for_what_runs_and_leaves_the_rest():
    started, ended = [], []

    def work(item):
        started.append(item)
        time.sleep(0.05)
        ended.append(item)
        return item

    line = Pipeline(work, work, ahead=5)
    for item in range(4):
        assert list(line.push(item)) == []
    line.close()
    assert started == ended and len(ended) < 8 and list(line.drain()) == []
    with pytest.raises(RuntimeError):
        list(line.push(9))
