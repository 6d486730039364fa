"""Measuring codecs on files: every file at every step of every codec, once.

Results are kept in a file, a line of JSON for each, so that runs can go on: what is in it is not
measured again; a last line that was cut off is dropped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import xxhash

Key = tuple[str, str, str, float | None]


class Curve(Protocol):
    """A codec with the steps of a curve, None for one without a rate to choose."""

    @property
    def name(self) -> str:
        """As it was asked for, with its options."""

    @property
    def settings(self) -> str:
        """In words; other settings or weights give other words."""

    @property
    def steps(self) -> tuple[float | None, ...]:
        """From small files to large ones."""


class Measured(Protocol):
    """A result; it must be a dataclass of what JSON can hold."""

    @property
    def key(self) -> Key:
        """By what it is found again: other weights or another file are others."""


Result = TypeVar("Result", bound=Measured)


@dataclass(frozen=True)
class Task:
    """One file to code at one step of one codec."""

    file: Path
    digest: str
    codec: str
    settings: str
    step: float | None

    @property
    def key(self) -> Key:
        """That of its result."""
        return self.digest, self.codec, self.settings, self.step


def plan(codecs: Sequence[Curve], files: Sequence[Path], every: int = 1) -> list[Task]:
    """All that is to be coded.

    The codecs take turns on each file, so that a busy machine slows all of them alike.

    Args:
        codecs: what to measure.
        files: pictures or sounds.
        every: take each so-many-th step of a codec only.
    """
    return [
        Task(file, digest, codec.name, codec.settings, step)
        for file in files
        for digest in [xxhash.xxh3_128_hexdigest(file.read_bytes())]
        for codec in codecs
        for step in codec.steps[::every]
    ]


class Results(Generic[Result]):
    """Results by their keys, each written to the file as soon as it is there.

    Args:
        path: the file; None keeps them in memory only.
        kind: their class.
    """

    def __init__(self, path: Path | None, kind: type[Result]) -> None:
        self._path = path
        self._found: dict[Key, Result] = {}
        if path is not None and path.exists():
            self._found = {result.key: result for result in _read(path, kind)}

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    def __getitem__(self, key: Key) -> Result:
        return self._found[key]

    def add(self, result: Result) -> None:
        """Keep a result."""
        self._found[result.key] = result
        if self._path is not None:
            values: Any = result
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(values)) + "\n")


def _read(path: Path, kind: type[Result]) -> Iterator[Result]:
    with path.open("r+b") as file:
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                file.truncate(whole)  # a run was stopped while it wrote
                return
            whole += len(line)
            yield _parse(line, kind, f"{path}, line {number}")


def _parse(line: bytes, kind: Any, where: str) -> Any:
    try:
        values = json.loads(line)
        if set(values) != {field.name for field in fields(kind)}:
            raise ValueError("it has other fields")
        return kind(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: no result of evaluate ({error}); name another file") from None


def measure(
    tasks: Sequence[Task], results: Results[Result], run: Callable[[Task], Result], jobs: int
) -> Iterator[Task]:
    """Do the tasks that have no result yet; yields each when its result is kept.

    Args:
        tasks: of `plan`.
        results: where they are looked for and kept.
        run: does one, also in another process.
        jobs: processes, each with one thread.

    Raises:
        ValueError: a codec could not do a file; what has been done is kept.
    """
    left = [task for task in tasks if task.key not in results]
    yield from (task for task in tasks if task.key in results)
    if jobs == 1:
        for task in left:
            results.add(run(task))
            yield task
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running = {pool.submit(run, task): task for task in left}
        try:
            for done in as_completed(running):
                results.add(done.result())
                yield running[done]
        finally:
            pool.shutdown(cancel_futures=True)
