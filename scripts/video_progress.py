"""How far a video is: frames and bits a second, time left; a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from latentpack.scripts.jobs import show_share

if TYPE_CHECKING:
    from rich.progress import Progress

_QUIET_SECONDS = 1.0  # nothing is shown of what is over sooner
_LINE_SECONDS = 20.0  # between lines where there is no terminal
_FRAME_SECONDS = 0.1  # between changes of the bar


class VideoProgress:
    """Is told of every frame; use as a context manager."""

    def __init__(self, name: str, seconds: float | None) -> None:
        """Begin.

        Args:
            name: of the file.
            seconds: of the video that is to be done; None if that is not known.
        """
        self._name, self._seconds = name, seconds or None
        self._begun = self._told = time.monotonic()
        self._frames = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def update(self, shown: float, size: int | None = None) -> None:
        """Count a frame.

        Args:
            shown: seconds of the video up to the frame.
            size: bytes so far.
        """
        self._frames += 1
        now = time.monotonic()
        share = min(1.0, shown / self._seconds) if self._seconds else None
        if share is not None:
            show_share(share)
        terminal = sys.stderr.isatty()
        if now - self._begun < _QUIET_SECONDS or now - self._told < (
            _FRAME_SECONDS if terminal else _LINE_SECONDS
        ):
            return
        self._told = now
        text = self._text(now - self._begun, shown, size, share)
        if not terminal:
            click.echo(f"{self._name}: {text}", err=True)
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task("", total=1.0, detail="")
        self._bar.update(self._bar.task_ids[0], completed=share or 0.0, detail=text)

    def _text(self, elapsed: float, shown: float, size: int | None, share: float | None) -> str:
        parts = [f"frame {self._frames}", f"{self._frames / elapsed:.1f} fps"]
        if size and shown > 0:
            parts.append(f"{size * 8 / shown / 1000:.0f} kbps")
        if share:
            left = round(elapsed * (1 - share) / share)
            parts.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
        return ", ".join(parts)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)
