"""What the benchmarks share: the machine, interleaved timing, a table or a JSON line."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def hardware() -> dict[str, Any]:
    """The machine and the versions a figure belongs to."""
    import numpy
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = fields.get("flags", "").split()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": fields.get("model name", platform.processor()).strip(),
        "family_model": f"{fields.get('cpu family', '').strip()}/{fields.get('model', '').strip()}",
        "cores": os.cpu_count(),
        "simd": [flag for flag in ("avx2", "avx512f", "avx512_vbmi2") if flag in flags],
        "gpu": gpu,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    slot: float = 0.02,
    clock: Callable[[], float] = time.process_time,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """Time all cases in turn, so that a busy neighbour hurts all alike.

    Args:
        cases: name -> what to time. Each is called once before, unmeasured.
        rounds: how often to go through all of them.
        slot: seconds for which a case is repeated in its turn, at least once.
        clock: CPU time of the process, right for one thread; `time.perf_counter` for several.
        prepare: name -> what to call before each call, unmeasured, e.g. to copy an input.

    Returns:
        Name -> the seconds of every call. The minimum is the machine's, the median the user's.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    prepare = prepare or {}
    for name, call in cases.items():
        prepare.get(name, bool)()
        call()
    for _ in range(rounds):
        for name, call in cases.items():
            spent = 0.0
            while True:
                prepare.get(name, bool)()
                began = clock()
                call()
                times[name].append(clock() - began)
                spent += times[name][-1]
                if spent >= slot:
                    break
    return times


def interleaved_on_gpu(
    cases: Mapping[str, Callable[[], object]], rounds: int, repeat: int = 20
) -> dict[str, list[float]]:
    """Time all cases in turn on torch's current CUDA device, by its events.

    Args:
        cases: name -> what to time; it starts work on the current stream and does not wait.
        rounds: how often to go through all of them.
        repeat: calls between two events: what a call costs the host hides behind the device's work
            where that takes longer.

    Returns:
        Name -> seconds of a call, one for each round.
    """
    import torch

    times: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        call()
    for _ in range(rounds):
        for name, call in cases.items():
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            began, ended = events
            torch.cuda.synchronize()
            began.record()
            for _ in range(repeat):
                call()
            ended.record()
            torch.cuda.synchronize()
            times[name].append(began.elapsed_time(ended) / 1e3 / repeat)
    return times


def show(title: str, rows: Iterable[Mapping[str, Any]], as_json: bool, **extra: Any) -> None:
    """Print rows (all with the same keys) as a table; with `as_json` also as the last line.

    Args:
        title: says what was measured, how, and with how many threads.
        rows: figures; floats are rounded in the table only.
        as_json: print {"hardware": ..., "rows": [...], **extra} as one line at the end.
        **extra: further values for the JSON object.
    """
    rows = [dict(row) for row in rows]
    machine = hardware()
    about = ", ".join(f"{key} {value}" for key, value in machine.items() if value)
    table = Table(title=title, caption=about)
    for key in rows[0] if rows else ():
        text = isinstance(rows[0][key], str)
        table.add_column(key.replace("_", " "), justify="left" if text else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # A pipe has no width of its own; a table folded to 80 columns can't be read.
    Console(width=None if sys.stdout.isatty() else 132).print(table)
    if as_json:
        print(json.dumps({"hardware": machine, "rows": rows, **extra}))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
