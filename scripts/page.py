"""One HTML file that needs no other: the frame that all pages share, filled with one page's parts.

`page.html`, `.css` and `.js` are the frame: the header with its tools, tables of figures, keys and
themes. A page named `comparison` adds `comparison.html` (what stands in the body),
`comparison.css`, and its scripts, and is given its data as JSON.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def fill(name: str, scripts: Sequence[str], subjects: Sequence[str], data: dict[str, Any]) -> bytes:
    """Make the page.

    Args:
        name: of its .html and .css.
        scripts: names of its .js files, in order.
        subjects: what the page shows, for its title.
        data: what its scripts read.
    """
    title = "latentpack: " + ", ".join(subjects[:3]) + (" ..." if subjects[3:] else "")
    parts = {
        "BODY": _read(f"{name}.html"),
        "TITLE": html.escape(title),
        "STYLE": _read("page.css") + _read(f"{name}.css"),
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
