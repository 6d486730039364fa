"""What the commands pack and unpack share: names of files, the progress bar, the last line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def packed_path(src: Path, dst: Path | None, output: Path | None, form: str) -> Path:
    """Find the name of the new file or folder that holds a packed model.

    Raises:
        ValueError: two names were given, the new file would be `src`, or `src` is a stream.
    """
    if src.is_dir():
        default = src.resolve().parent / f"{src.resolve().name}-packed"
    else:
        default = src.with_suffix(".lpk" if form == "lpk" else ".packed.safetensors")
    return _target(src, dst, output, default)


def unpacked_path(src: Path, dst: Path | None, output: Path | None) -> Path:
    """Find the name of the file or folder that was packed; raises as `packed_path`."""
    from . import model_files

    default = src
    if src.is_dir():
        name = src.resolve().name
        default = src.resolve().parent / (name.removesuffix("-packed") or name)
    elif dst is None and output is None and str(src) != "-":
        stem = src.with_suffix("").name.removesuffix(".packed")
        default = src.with_name(stem + model_files.suffix_of(src))
    return _target(src, dst, output, default)


def _target(src: Path, dst: Path | None, output: Path | None, default: Path) -> Path:
    if dst is not None and output is not None:
        raise ValueError(f"two names for the new file, {dst} and {output}; give one")
    if str(src) == "-":
        raise ValueError("model files are read in parts, which standard input does not allow")
    target = dst or output or default
    if target.resolve() == src.resolve():
        raise ValueError(f"{src} would overwrite itself; name another file")
    return target


def report(src: Path, target: Path, seconds: float, note: str = "") -> None:
    """Say in one line what became of a file; speed counts the larger of the two."""
    if str(target) == "-":
        return
    old, new = _size(src), _size(target)
    click.echo(
        f"{src} -> {target}: {old:,} -> {new:,} bytes ({new / max(1, old):.2%}), {seconds:.2f} s, "
        f"{max(old, new) / max(seconds, 1e-9) / 1e9:.2f} GB/s{note}"
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


@contextmanager
def byte_bars(what: str) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Yield a function of a file's name that starts its bar; see `byte_bar`."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(name: str) -> Callable[[int, int], None]:
            stack.pop_all().close()  # the bar of the file before
            return stack.enter_context(byte_bar(f"{what} {name}"))

        yield start


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
