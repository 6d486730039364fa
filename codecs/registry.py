"""Codecs by id. The table is part of the format (FORMAT.md, section 5): append only.

An id is never given to another codec, not even after its codec is gone; a change of any output
byte of a codec is a new id.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from ..kernels.errors import BitstreamError
from .codec import Codec

CODECS = {
    1: "tensor/lossless",
    2: "image/light",
    3: "tensor/delta",
    4: "image/fit",
    5: "image/lossless",
    6: "image/tokens",
    7: "image/compressai",
    8: "audio/rvq",
    9: "audio/lossless",
    10: "video/fit",
    11: "video/lite",
    12: "video/inr",
}


def codec_id(name: str) -> int:
    """Return the id of a codec, e.g. 1 for "tensor/lossless"."""
    for number, known in CODECS.items():
        if known == name:
            return number
    raise ValueError(f"codec {name!r} is unknown; known are {', '.join(CODECS.values())}")


def codec_name(number: int) -> str:
    """Return the name of a codec id that was read from a file."""
    try:
        return CODECS[number]
    except KeyError:
        known = ", ".join(f"{i} ({name})" for i, name in CODECS.items())
        raise BitstreamError(
            f"codec id {number} is unknown; this release knows {known}; "
            "the file may need a newer latentpack"
        ) from None


@functools.cache  # small signals are coded in less time than importlib takes
def load(codec: str | int) -> type[Codec]:
    """Import one codec, and only that one, and return its class.

    Args:
        codec: name ("image/light") or id (2).

    Raises:
        ValueError: the name is unknown. BitstreamError: the id is.
    """
    name = codec_name(codec) if isinstance(codec, int) else CODECS[codec_id(codec)]
    module = importlib.import_module("." + name.replace("/", "."), __package__)
    loaded: type[Codec] = module.CODEC
    return loaded


@functools.cache  # looking costs more than decoding a small tensor
def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters of a function or class."""
    return frozenset(inspect.signature(function).parameters)


def make(number: int, device: Any, options: dict[str, Any]) -> Codec:
    """Make a codec with its options; a wrong name of an option is a wrong argument."""
    loaded = load(number)
    if options.get("base", loaded) is None:  # no base is as good as none given
        options = {name: value for name, value in options.items() if name != "base"}
    if device is not None:
        options = {**options, "device": device}
    known = parameters(loaded)
    if unknown := sorted(options.keys() - known):
        raise ValueError(
            f"{loaded.name} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return loaded(**options)
