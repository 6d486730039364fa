"""Blocks in threads: one pool for all callers, and none for what is done sooner without."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_JOB_BYTES = 1 << 18  # of elements, below which a thread does not pay


def run(job: Callable[[int], None], count: int, nbytes: int, threads: int | None) -> None:
    """Call job(0) .. job(count - 1), in any order.

    Args:
        job: raises what this raises.
        count: of the calls.
        nbytes: of all that is coded.
        threads: at most so many; None = one per core.
    """
    workers = min(threads or os.cpu_count() or 1, count, max(1, nbytes // _JOB_BYTES))
    if workers <= 1:
        for number in range(count):
            job(number)
        return

    def some(first: int) -> None:
        for number in range(first, count, workers):
            job(number)

    list(_pool().map(some, range(workers)))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "latentpack-kv")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
