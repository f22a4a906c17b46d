"""Frames on an assembly line: what is done to each goes on in several threads, one frame in each."""
from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor


class Pipeline:
    """Passes items through functions, each of which runs in a thread of its own and sees them in order.

    A function may remember items before and so depend on them, but shares nothing that changes with the others. Results
    do not depend on how fast the threads are.

    Parameters
    ----------
    functions : callables item -> item, from first to last
    ahead : int, items that are under way at most; by default one for each function

    >>> line = Pipeline(lambda x: x + 1, lambda x: 2 * x, ahead=1)
    >>> [list(line.push(x)) for x in (1, 2, 3)], list(line.drain())
    ([[], [4], [6]], [8])
    """

    def __init__(self, *functions, ahead=None):
        self._functions, self._ahead = functions, len(functions) if ahead is None else ahead
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="pipeline") for _ in functions]
        self._under_way = deque()

    def push(self, item):
        """Takes the next item; yields results, of items before, so that no more than `ahead` are under way.

        What a function raises is raised here in its item's turn.
        """
        result = None
        for function, thread in zip(self._functions, self._threads):
            result = (thread.submit(function, item) if result is None else
                      thread.submit(lambda before, function=function: function(before.result()), result))
        self._under_way.append(result)
        while len(self._under_way) > self._ahead:
            yield self._under_way.popleft().result()

    def drain(self):
        """Yields the results of all items that are under way."""
        while self._under_way:
            yield self._under_way.popleft().result()

    def close(self):
        """Gives up what is under way; returns when no function runs any more."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            thread.shutdown()
        self._under_way.clear()
