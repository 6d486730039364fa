"""python scripts/bench_memory.py [--quick] [--json]: how much memory packing a large model takes.

Writes a synthetic bfloat16 model of one large and many smaller tensors, packs it and unpacks it in
processes of their own, and compares their peak memory (resident, mapped pages included) with the
goal: at most 1.5 times the largest tensor + 300 MB, whatever the size of the model. `import torch`
alone may take more than these 300 MB, so the peak above that is shown, too. The file that comes
back must be the one that was packed. Needs about 2.7 times the model's size on the disk.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from latentpack.scripts.bench import show

MB = 1_000_000
_BLOCK = 1 << 22  # elements of random weights, which the tensors repeat


def write_model(path: Path, total: int, largest: int, sparse: bool) -> None:
    """Write a .safetensors file: a tensor of `largest` bytes in the middle, others of an eighth."""
    small = largest // 8
    sizes = [small] * max(1, (total - largest) // small)
    sizes.insert(len(sizes) // 2, largest)
    header, offset = {}, 0
    for i, size in enumerate(sizes):
        after = offset + size
        header[f"layer.{i:04}.weight"] = {
            "dtype": "BF16",
            "shape": [size // 2],
            "data_offsets": [offset, after],
        }
        offset = after
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    weights = np.random.default_rng(0).standard_normal(_BLOCK, np.float32) * np.float32(0.02)
    block = (weights.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if not sparse:
            for at in range(0, offset, len(block)):
                file.write(block[: offset - at])
        file.truncate(8 + len(text) + offset)


def peak(*args: object) -> tuple[int, float]:
    """Run Python with these arguments; its peak resident bytes, and its seconds."""
    command = [sys.executable, *map(str, args)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


@click.command()
@click.option("--total", default=5000, show_default=True, help="Size of the model in MB.")
@click.option("--largest", default=500, show_default=True, help="Its largest tensor in MB.")
@click.option("--form", default="lpk", show_default=True, help="The outer form: lpk, safetensors.")
@click.option("--sparse", is_flag=True, help="Tensors of zeros that take no place on the disk.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where to write.")
@click.option("--quick", is_flag=True, help="A small model, to see that it runs.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line at the end.")
def main(
    total: int,
    largest: int,
    form: str,
    sparse: bool,
    folder: Path | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure the peak memory of pack and unpack; exit code 1: above torch's own it is too much."""
    if quick:
        total, largest = 200, 40
    rows: list[dict[str, Any]] = []
    bare, _ = peak("-c", "import torch")
    limit = int((1.5 * largest + 300) * MB)
    cli = ("-m", "latentpack.scripts.main")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        model, packed, again = (Path(name) / n for n in ("m.safetensors", "m.packed", "again"))
        write_model(model, total * MB, largest * MB // 16 * 16, sparse)
        runs = {
            "pack": (*cli, "pack", model, packed, "--format", form),
            "unpack": (*cli, "unpack", packed, again),
        }
        for what, args in runs.items():
            most, seconds = peak(*args)
            rows.append(
                {
                    "command": what,
                    "peak_MB": most / MB,
                    "above_torch_MB": (most - bare) / MB,
                    "goal_MB": limit / MB,
                    "GB_per_s": model.stat().st_size / seconds / 1e9,
                    "seconds": seconds,
                    "ratio": packed.stat().st_size / model.stat().st_size,
                    "held": "yes" if most <= limit else "no",
                    "held_above_torch": "yes" if most - bare <= limit else "no",
                }
            )
        same = digest(model) == digest(again)
    title = f"Peak memory, model of {total} MB, largest tensor {largest} MB, form {form}"
    show(title, rows, as_json, same=same)
    if not same or any(row["held_above_torch"] == "no" for row in rows):
        print("too much memory, or the file that came back is another", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
