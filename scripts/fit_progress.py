"""How a codec that fits for minutes shows how far it is: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_SECONDS = 20.0  # between lines where there is no terminal


class FitProgress:
    """Takes what a codec says to its option `progress`: step, steps in all, bpp, PSNR in dB.

    Nothing is shown, and nothing imported, before something is said.
    """

    def __enter__(self) -> Self:
        self._bar: Progress | None = None
        self._told = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, step: int, steps: int, bpp: float, psnr_db: float) -> None:
        """Show it."""
        detail = f"{bpp:.3f} bpp, {psnr_db:.2f} dB"
        if not sys.stderr.isatty():
            if time.monotonic() - self._told > _LINE_SECONDS:
                self._told = time.monotonic()
                click.echo(f"step {step} of {steps}: {detail}", err=True)
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task("fitting", total=steps, detail="")
        self._bar.update(self._bar.task_ids[0], completed=step, total=steps, detail=detail)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
