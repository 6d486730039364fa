"""What FFmpeg's errors mean, and how to say it."""

from __future__ import annotations

import errno

import av.error


def raise_if_of_the_disk(error: Exception) -> None:
    """Damaged files make FFmpeg seek to places that are none; other errors of files are real."""
    if isinstance(error, av.error.FFmpegError) or not isinstance(error, OSError):
        return
    if error.errno != errno.EINVAL:
        raise error


def reason_of(error: Exception) -> str:
    """An error in a few words."""
    return str(getattr(error, "strerror", None) or error).lower()
