"""One HTML file that needs no other: the frame that all pages share, filled with one page's parts.

`page.html`, `.css` and `.js` are the frame: the header with its tools, tables of figures, keys and
themes. A page named `comparison` adds `comparison.html` (what stands in the body),
`comparison.css`, and its scripts, and is given its data as JSON.
"""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """What `compare` does to files of a kind: how they are read, coded and shown.

    Attributes:
        codecs: to run; each has a name.
        read: (file, its name for people) -> what it holds.
        run: (codec, what a file holds) -> what the codec made of it.
        item: (what a file holds, what codecs made of it) -> the item of the page, with `name`,
            `about` and `results`, which are the figures as dicts.
        page: items -> the page.
        columns: of the table that is printed: head, key of a result, format.
        asked: of all codecs alike, in words; may be empty.
    """

    codecs: Sequence[Any]
    read: Callable[[BinaryIO, str], Any]
    run: Callable[[Any, Any], Any]
    item: Callable[[Any, list[Any]], Any]
    page: Callable[[list[Any]], bytes]
    columns: Sequence[tuple[str, str, str]]
    asked: str = ""


def fill(
    name: str,
    scripts: Sequence[str],
    subjects: Sequence[str],
    data: dict[str, Any],
    styles: Sequence[str] = (),
) -> bytes:
    """Make the page.

    Args:
        name: of its .html, in which {{TOOLS}} are those of a stage, and .css.
        scripts: names of its .js files, in order.
        subjects: what the page shows, for its title.
        data: what its scripts read.
        styles: names of .css files that it shares with other pages.
    """
    title = "latentpack: " + ", ".join(subjects[:3]) + (" ..." if subjects[3:] else "")
    parts = {
        "BODY": _read(f"{name}.html").replace("{{TOOLS}}", _read("stage.html")),
        "TITLE": html.escape(title),
        "STYLE": "".join(_read(f"{style}.css") for style in ("page", *styles, name)),
        "SCRIPT": "".join(_read(f"{script}.js") for script in ("page", *scripts)),
        # A name could hold "</script>".
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    text = _read("page.html")
    for part, value in parts.items():
        before, after = text.split("{{" + part + "}}")
        text = before + value + after
    return text.encode("utf-8")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
