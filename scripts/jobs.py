"""Which file becomes which: sources of a command line, their targets, and the run over all."""

import glob
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import click

from latentpack.codecs.output import create
from latentpack.scripts.main import describe

Advance = Callable[[], None]  # called after each file
STREAM = "-"
_BIG_FILE = 4_000_000  # bytes from which a single file gets a progress bar
_BIG_PACKED = 100_000  # the same of a .lpk file
_HELD_BYTES = 1 << 26  # of standard input in memory
_SHOWN_WARNINGS = 5
_bars: list[Callable[[float], None]] = []  # what shows the share of the file at hand


@dataclass(frozen=True)
class Job:
    """One file to make: paths, or "-" for standard input and output."""

    source: str
    target: str
    new_folder: bool = False  # the target lies in an output folder, which is made when needed


def plan(
    sources: Iterable[str],
    output: str | None,
    suffix: str | Callable[[str], str],
    known: Callable[[], set[str]],
) -> list[Job]:
    """Pair every source with its target.

    Args:
        sources: files, patterns ("*.png"), folders (searched to the bottom), or "-".
        output: a file, "-", or a folder (when it is one, ends in "/", or there are several
            sources). None puts each target beside its source, and that of "-" to "-".
        suffix: of the targets, with its dot; or what gives it for the path of a source.
        known: gives the suffixes of the files that are taken from folders.

    Raises:
        ValueError: nothing was found, or two sources have one target.
    """
    sources = list(sources)
    found = find(sources, known)
    several = len(found) > 1 or any(Path(source).is_dir() for source in sources)
    into_folder = output not in (None, STREAM) and (
        several or str(output).endswith("/") or Path(str(output)).is_dir()
    )
    if several and output == STREAM:
        raise ValueError(f"{len(found)} files can't go to standard output; name a folder with -o")
    jobs = [
        Job(path, _target(path, relative, output, into_folder, suffix), into_folder)
        for path, relative in found
    ]
    _refuse_clashes(jobs)
    return jobs


def find(sources: Iterable[str], known: Callable[[], set[str]]) -> list[tuple[str, Path]]:
    """List the files of all sources, each with its path below the folder that was named."""
    found = [pair for source in sources for pair in _find(source, known)]
    if not found:
        raise ValueError("no source given; name files, folders, patterns or - for standard input")
    return found


def _find(source: str, known: Callable[[], set[str]]) -> Iterator[tuple[str, Path]]:
    path = Path(source)
    if source == STREAM:
        yield source, Path("stdin")
    elif path.is_dir():
        suffixes = known()
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in suffixes and file.is_file() and not _hidden(file, path)
        ]
        if not files:
            raise ValueError(f"{source}: the folder holds no {', '.join(sorted(suffixes)[:8])} ...")
        yield from ((str(file), file.relative_to(path)) for file in files)
    elif glob.has_magic(source) and not path.exists():
        names = glob.glob(source, recursive=True)  # noqa: PTH207 (Path.glob: no absolute patterns)
        matches = sorted(name for name in names if Path(name).is_file())
        if not matches:
            raise ValueError(f"{source}: no file matches")
        yield from ((name, Path(Path(name).name)) for name in matches)
    else:
        yield source, Path(path.name)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _target(
    path: str,
    relative: Path,
    output: str | None,
    into_folder: bool,
    suffix: str | Callable[[str], str],
) -> str:
    if output is not None and not into_folder:
        return output
    if path == STREAM and output is None:
        return STREAM
    ending = suffix if isinstance(suffix, str) else suffix(path)
    if output is None:
        return str(Path(path).with_suffix(ending))
    return str(Path(output) / relative.with_suffix(ending))


def _refuse_clashes(jobs: list[Job]) -> None:
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target == STREAM:
            continue
        if job.target in taken:
            raise ValueError(
                f"{taken[job.target]} and {job.source} would both become {job.target}; "
                "do them one by one with -o"
            )
        taken[job.target] = job.source
        if job.source != STREAM and Path(job.source).resolve() == Path(job.target).resolve():
            raise ValueError(f"{job.source} would overwrite itself; name another file with -o")


@contextmanager
def target_file(job: Job, force: bool) -> Iterator[BinaryIO]:
    """The file to write: it takes its name when it is complete, and replaces only with force."""
    if job.new_folder:
        Path(job.target).parent.mkdir(parents=True, exist_ok=True)
    try:
        with create(job.target, force) as file:
            yield file
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a failed write names no file
            error.filename = job.target
        raise


def source_file(path: str) -> BinaryIO:
    """The file to read, seekable; of standard input a copy, on the disk where it is large."""
    if path != STREAM:
        return Path(path).open("rb")
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_HELD_BYTES))
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.seek(0)
    return file


def note(job: Job, text: str) -> None:
    """Say something about a file on stderr, whatever goes to stdout."""
    click.echo(f"latentpack: note: {job.source}: {text}", err=True)


@contextmanager
def noted_damage(job: Job) -> Iterator[None]:
    """Say what a codec warns of: how much of a damaged file could be decoded."""
    from latentpack.codecs.codec import DamageWarning

    with warnings.catch_warnings(record=True, category=DamageWarning) as caught:
        warnings.simplefilter("always", DamageWarning)
        yield
    for warning in caught[:_SHOWN_WARNINGS]:
        note(job, str(warning.message))
    if caught[_SHOWN_WARNINGS:]:
        note(job, f"... and {len(caught) - _SHOWN_WARNINGS} more of this kind")


def show_share(share: float) -> None:
    """Move the bar, if there is one, to a share of the file that is worked on."""
    if _bars:
        _bars[-1](min(share, 1.0))


def run_jobs(jobs: list[Job], work: Callable[[Job], str]) -> None:
    """Do all jobs, print what each has to say, and go on after a failure.

    Raises:
        ValueError: the only job failed, or some of several, each of which has been reported.
    """
    failed = 0
    with _progress(jobs) as advance:
        for job in jobs:
            try:
                line = work(job)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                message = describe(error)
                if job.source not in message and job.target not in message:
                    message = f"{job.source}: {message}"
                if len(jobs) == 1:
                    raise ValueError(message) from error
                failed += 1
                click.echo(f"latentpack: {message}", err=True)
            else:
                click.echo(line, err=job.target == STREAM)
            advance()
    if failed:
        raise ValueError(f"{failed} of {len(jobs)} files failed, the others are done")


def _progress(jobs: list[Job]) -> AbstractContextManager[Advance]:
    """A bar on a terminal, for many files or a big one."""
    big = any(job.source != STREAM and _is_big(job.source) for job in jobs)
    if not (len(jobs) > 1 or big) or not sys.stderr.isatty():
        return nullcontext(_no_bar)
    return _bar(jobs)


def _no_bar() -> None:
    """There is nothing to move."""


def _is_big(path: str) -> bool:
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    return size > (_BIG_PACKED if path.endswith(".lpk") else _BIG_FILE)


@contextmanager
def _bar(jobs: list[Job]) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        # One file has no known share that is done: the bar pulses.
        task = progress.add_task(Path(jobs[0].source).name, total=len(jobs) if jobs[1:] else None)
        following = iter([*jobs[1:], jobs[-1]])
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, description=Path(next(following).source).name)

        _bars.append(lambda share: progress.update(task, completed=done + share, total=len(jobs)))
        try:
            yield advance
        finally:
            _bars.pop()
