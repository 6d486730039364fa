"""Write the golden files: python scripts/make_golden.py.

Tests read tests/golden/ and never write it. A file that is there is never replaced: old files
decode forever, so bytes that changed need a new codec id, a new version, or a new name here.
"""

import io
from collections.abc import Callable
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def container() -> dict[str, bytes]:
    """Containers of version 1; tests/test_container.py says what they hold."""
    from latentpack.codecs.codec import Packet
    from latentpack.codecs.container import Writer

    metadata = {"icc": bytes(20), "notes": ["é"], "dpi": 72.5, "none": None, "deep": {"a": [-1]}}
    packets = [Packet(f"layer.{i}", bytes([i]) * i, bytes(range(i, 3 * i))) for i in range(20)]
    files = {}
    for name, start, what in (
        ("many", (1, {"w": 300, "flag": True}, metadata), packets),
        ("unnamed", (2, {}), [Packet(None, b"abc")]),
        ("none", (1, {}), []),
        ("numbers", (1, {}), [Packet(i, b"") for i in (0, -1, 2**64 - 1, -(2**64))]),
    ):
        file = io.BytesIO()
        with Writer(file, *start) as writer:
            for packet in what:
                writer.write(packet)
        files[f"{name}.lpk"] = file.getvalue()
    return files


# Folder in tests/golden -> function that makes its files {name: bytes}.
MAKERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "container": container,
}


def write(folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = GOLDEN / folder / name
        if path.exists() and path.read_bytes() != data:
            raise ValueError(f"{path} holds other bytes; make the new ones under another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path.relative_to(GOLDEN)}: {len(data)} bytes")


if __name__ == "__main__":
    for folder, make in MAKERS.items():
        write(folder, make())
