"""Jobs in threads, their results in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def in_order(job: Callable[[U], T], items: Iterable[U], workers: int) -> Iterator[T]:
    """The results of job(item) in order; a few are made ahead."""
    if workers == 1:
        yield from map(job, items)
        return
    pending: collections.deque[Future[T]] = collections.deque()
    with ThreadPoolExecutor(workers, "latentpack-packets") as pool:
        try:
            for item in items:
                pending.append(pool.submit(job, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
