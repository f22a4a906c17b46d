"""Fresh processes that share the cores instead of fighting for them."""

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def worker_pool(count=None, initializer=None, initargs=()):
    """Worker processes of one thread each.

    The libraries read their thread counts from the environment when they are loaded, so it is set while the pool is
    open, and put back after: numba reads it again whenever it compiles, and refuses a count that has changed.

    Parameters
    ----------
    count : int, processes; default one per core
    initializer, initargs : what each process calls first

    When what is done with the pool fails, work that has not begun is dropped.

    Yields
    ------
    ProcessPoolExecutor
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        with ProcessPoolExecutor(count or os.cpu_count(), get_context("spawn"), initializer, initargs) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
