"""Options of the codecs themselves, the same on every command that encodes.

A codec takes an option by having a parameter of its name in its constructor; an option that is
given to a codec without it is an error that lists what the codec has.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_Codec = TypeVar("_Codec")
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A time in seconds: `90`, `90s`, `1.5m`, `2h`."""

    name = "time"

    def __init__(self, zero: bool = False) -> None:
        """Take 0 as well, or not."""
        self._zero = zero

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """See click."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", str(value).strip().lower())
        if not match or match[2] not in _SECONDS or not (float(match[1]) or self._zero):
            above = "" if self._zero else " above 0"
            self.fail(f"{value!r} is no time{above}; write 90, 90s, 1.5m or 2h", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


OPTIONS: dict[str, Callable[[_Command], _Command]] = {
    "weights": click.option(
        "--weights",
        type=click.Path(path_type=Path),
        help="Weights of your own training, or shipped ones by name.",
    ),
    "effort": click.option(
        "--effort",
        type=click.IntRange(0, 9),
        help="0 to 9: slower and smaller; image/fit: 5 takes minutes, 0 to 2 are drafts.",
    ),
    "preset": click.option("--preset", help="Size of fitted networks: fast, default, best, max."),
    "time_budget": click.option(
        "--time-budget", type=Duration(), help="Stop fitting after this time, e.g. 60s or 5m."
    ),
    "resume": click.option(
        "--resume", type=click.Path(path_type=Path), help="Checkpoint to go on from and to keep."
    ),
    "levels": click.option(
        "--levels", type=click.IntRange(1), help="The most levels of codes, of image/tokens."
    ),
    "gop": click.option(
        "--gop", type=click.IntRange(1), help="Frames of a video that are coded together, at most."
    ),
    "bits": click.option(
        "--bits", type=click.IntRange(8, 32), help="Of a sample, of audio/lossless.  [the file's]"
    ),
    "max_error": click.option(
        "--max-error", type=click.IntRange(0), help="Largest error of a sample; 0 is lossless."
    ),
}


def codec_options(command: _Command) -> _Command:
    """Add the options of codecs to a command, in the order of the table."""
    for option in reversed(OPTIONS.values()):
        command = option(command)
    return command


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of a command -> those for the codec that were given, and the others."""
    options = {n: v for n, v in given.items() if n in OPTIONS and v is not None}
    return options, {n: v for n, v in given.items() if n not in OPTIONS}


def make_codec(loaded: type[_Codec], given: dict[str, Any]) -> _Codec:
    """Make a codec; options that are None are left to it.

    Raises:
        ValueError: it has no such option.
    """
    options = {name: value for name, value in given.items() if value is not None}
    known = inspect.signature(loaded).parameters
    name: Any = loaded.name  # type: ignore[attr-defined]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    return loaded(**options)


def convert(name: str, text: str) -> tuple[str, Any]:
    """An option as text, its name with - or _, to its keyword and its value.

    >>> convert("time-budget", "2m")
    ('time_budget', 120.0)

    Raises:
        ValueError: no codec has such an option. click.BadParameter: the value is none for it.
    """
    name = name.replace("-", "_")
    if name not in OPTIONS:
        raise ValueError(f"codecs have no option {name!r}; some have {', '.join(OPTIONS)}")
    parameter = click.command()(OPTIONS[name](lambda: None)).params[0]
    return name, parameter.type.convert(text, parameter, None)


def split_names(text: str, known: Iterable[str]) -> list[str]:
    """The names in a list with commas, in which options of a codec have commas as well.

    >>> split_names("image/fit@preset=best,effort=3,jpeg", [])
    ['image/fit@preset=best,effort=3', 'jpeg']

    Args:
        text: the list.
        known: what to name where it is empty.
    """
    found: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if "=" in part and "@" not in part and found:
            found[-1] += f",{part}"
        elif part and part not in found:
            found.append(part)
    if not found:
        raise ValueError(f"no codec is named; there are {', '.join(known)}")
    return found


def read_options(text: str) -> dict[str, Any]:
    """Keyword arguments of a codec from what follows its @: "preset=best,effort=3"."""
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if part and not equals:
            raise ValueError(f"option {part!r} has no value; write {part}=..., e.g. effort=9")
        if part:
            key, converted = convert(name.strip(), value.strip())
            found[key] = converted
    return found
