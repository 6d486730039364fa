"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def create(path: str | os.PathLike[str], force: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when it is complete and on the disk.

    The bytes go to a hidden temporary file in the same folder, which is renamed at the end. After
    any exception the temporary file is gone and what was at `path` is as it was.

    Args:
        path: where the file shall be; "-" is standard output, which is written to directly, as
            are devices and pipes.
        force: replace a file that exists.

    Raises:
        FileExistsError: something is at `path`, and not `force`.
        OSError: the folder is missing, not writable, or full.
    """
    if os.fspath(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if force:
        target = target.resolve()  # a link stays, the file that it names is replaced
        if target.exists() and not target.is_file():
            with target.open("wb") as file:  # raises for a folder
                yield file
            return
    _refuse_existing(target, force)
    temporary = target.parent / f".latentpack-{secrets.token_hex(8)}.tmp"
    try:
        with _new(temporary, target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse_existing(target, force)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            raise OSError(
                error.errno, f"{error.strerror}; free some space, nothing was written", str(target)
            ) from error
        raise


def _new(temporary: Path, target: Path) -> BinaryIO:
    """Open a file that did not exist; its permissions follow the umask."""
    try:
        return temporary.open("xb")
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "the folder does not exist; make it first", str(target.parent)
        ) from None


def _refuse_existing(target: Path, force: bool) -> None:
    if not force and os.path.lexists(target):
        raise FileExistsError(
            errno.EEXIST, "the file exists; choose another name or use --force", str(target)
        )
