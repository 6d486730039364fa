"""What the commands pack and unpack share: names of files, the progress bar, the last line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def target_path(src: Path, dst: Path | None, output: Path | None, suffix: str) -> Path:
    """Find the name of the new file: as given, or `src` with another suffix.

    Raises:
        ValueError: two names were given, the new file would be `src`, or `src` is a stream.
    """
    if dst is not None and output is not None:
        raise ValueError(f"two names for the new file, {dst} and {output}; give one")
    if str(src) == "-":
        raise ValueError("model files are read in parts, which standard input does not allow")
    target = dst or output or src.with_suffix(suffix)
    if target.resolve() == src.resolve():
        raise ValueError(f"{src} would overwrite itself; name another file")
    return target


def report(src: Path, target: Path, seconds: float, note: str = "") -> None:
    """Say in one line what became of a file; speed counts the larger of the two."""
    if str(target) == "-":
        return
    old, new = src.stat().st_size, target.stat().st_size
    click.echo(
        f"{src} -> {target}: {old:,} -> {new:,} bytes ({new / max(1, old):.2%}), {seconds:.2f} s, "
        f"{max(old, new) / max(seconds, 1e-9) / 1e9:.2f} GB/s{note}"
    )


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (bytes done, bytes in all) that moves a bar with GB/s on stderr.

    Without a terminal nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0.0
            return Text(f"{(task.completed or 0) / 1e9:.2f} GB  {speed / 1e9:.2f} GB/s")

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), Speed())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show
