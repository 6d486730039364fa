"""Write the golden files: python scripts/make_golden.py.

Tests read tests/golden/ and never write it. A file that is there is never replaced: old files
decode forever, so bytes that changed need a new codec id, a new version, or a new name here.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path

from latentpack.scripts import golden_pictures, golden_sounds, golden_videos
from latentpack.scripts.golden_numbers import numbers

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


def rans() -> dict[str, bytes]:
    """Integers to rANS streams by the definition: tables, symbols, rows, stream."""
    import numpy as np

    from latentpack.kernels import rans_ref

    def case(precision: int, low: int, lengths: list[int], lanes: int | None) -> bytes:
        counts = [[1 + v * v for v in numbers(n, 90, n)] for n in lengths if n]
        rows = [rans_ref.normalise(row, precision) for row in counts]
        offsets = [low + r for r in range(len(lengths))]
        tables = rans_ref.Tables(precision, offsets, lengths, np.concatenate(rows))
        index = np.array(numbers(700, len(lengths), precision), np.uint8)
        # Squares of small numbers, on both sides of every row; a few anywhere in int16.
        spread = np.array(numbers(700, 40, 7)) ** 2 // 20 * (1 - 2 * np.array(numbers(700, 2, 8)))
        values = spread + low + np.array(lengths)[index] // 2
        wild = np.arange(700) % 97 == 5
        values[wild] = np.array(numbers(700, 65536, 9))[wild] - 32768
        symbols = np.where(np.array(lengths)[index] > 0, values, 0).astype(np.int16)
        fields = {
            "precision": precision,
            "offsets": offsets,
            "lengths": lengths,
            "freqs": tables.freqs.tolist(),
            "lanes": lanes,
            "symbols": symbols.tolist(),
            "index": index.tolist(),
            "stream": rans_ref.encode(tables, symbols, index, lanes).hex(),
        }
        return json.dumps(fields).encode()

    counts = [v**3 // 1000 for v in numbers(256, 100, 3)]
    normal = {
        "precision": 12,
        "counts": counts,
        "freqs": rans_ref.normalise(counts, 12).tolist(),
    }
    return {
        "lanes1.json": case(12, -20, [40, 3, 80, 9], 1),
        "lanes8.json": case(12, -20, [40, 3, 80, 9], 8),
        "lanes16.json": case(12, -100, [200, 2, 30], 16),
        "lanes32.json": case(12, -20, [40, 3, 80, 9], 32),
        "chosen.json": case(11, -2, [7, 5, 6], None),
        "uncoded.json": case(12, -20, [0, 40, 0, 9], 16),
        "precision1.json": case(1, 0, [2, 2], 2),
        "precision16.json": case(16, -900, [1500, 2, 40], 4),
        "normalise.json": json.dumps(normal).encode(),
    }


def tensor() -> dict[str, bytes]:
    """Tensors by codec 1 (.lpk) and their elements (.bin); the test knows dtypes and shapes."""
    import numpy as np
    import torch

    import latentpack

    n = 5000  # two chunks, a stream of 32 lanes and one of 4
    noise = np.array(numbers(n, 1 << 31, 1), np.int64)
    # Each exponent half as frequent as the one above it, as in weights; some zeros and NaNs.
    ones = (noise | 1 << 13).tolist()
    falls = np.array([(r & -r).bit_length() - 1 for r in ones])
    u = (121 - falls) << 7 | noise >> 8 & 0x807F
    u[noise % 41 == 0] = 0
    u[noise % 997 == 5] = 0x7FC1
    cases = {
        "bfloat16": u.astype(np.uint16),
        "float32": (u << 16 | noise >> 3 & 0xFFFF).astype(np.uint32),
        "float16": (u >> 3 & 0x3FFF).astype(np.uint16),
        "float8_e4m3fn": (u >> 4 & 0x7F).astype(np.uint8),
        "int8": (noise % 13 + noise // 13 % 17 - 14).astype(np.int8),
        "int64": np.arange(n) * 3 - 7000,
        "bool": (noise % 5 == 0).view(np.uint8),
    }
    files = {}
    for name, values in cases.items():
        data = values.tobytes()
        x = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, name))
        files[f"{name}.bin"] = data
        for mode in ("fast", "tight", "small", "segments"):
            files[f"{name}-{mode}.lpk"] = latentpack.encode(x.view(50, 100), mode=mode, chunk=4096)
    return files


def kv() -> dict[str, bytes]:
    """Pages (.lkv), their tables (.lkt) and elements (.bin) [k and v, 2 layers, 40, 2, 8]."""
    import torch

    from latentpack.codecs.tensor.kv import calibrate, encode_pages
    from latentpack.codecs.tensor.kv_tables import LAYOUTS

    count = 2 * 2 * 40 * 2 * 8
    # Sums of three look like a bell; every channel has its scale; a few are far outside.
    sums = torch.tensor([numbers(count, 2001, seed) for seed in (1, 2, 3)]).sum(0) - 3000
    x = sums.view(2, 2, 40, 2, 8) * 2.0 ** (torch.tensor(numbers(16, 9, 4)).view(2, 8) - 12)
    x.view(-1)[::389] *= 2.0**9
    files = {}
    for dtype in LAYOUTS:
        k, v = x.to(dtype)
        name = str(dtype).removeprefix("torch.")
        tables = calibrate([(k, v)], classes=4)
        files[f"{name}.lkt"] = tables.to_bytes()
        files[f"{name}.lkv"] = encode_pages(k, v, tables, page=16)
        files[f"{name}.bin"] = torch.stack([k, v]).view(torch.uint8).numpy().tobytes()
    return files


def delta() -> dict[str, bytes]:
    """Tensors by codec 3 (.lpk), with what they are (-new.bin) and their base (-base.bin)."""
    import torch

    import latentpack

    n = 3000
    base = torch.tensor(numbers(n, 4001, 1)) - 2000
    step = torch.tensor(numbers(n, 7, 2)) - 3
    step[torch.tensor(numbers(n, 3, 3)) > 0] = 0
    step[1000:2500] = 0  # blocks that did not change
    step[::997] *= 5000
    cases = {
        "bfloat16": (base / 4096, step / 65536),
        "float32": (base / 4096, step / 2**26),
        "float16": (base / 4096, step / 2**14),
        "float8_e4m3fn": (base / 1024, step / 64),
        "int8": (base % 256 - 128, step),
        "int64": (base << 30, step),
        "bool": (base > 0, step > 2),
    }
    files: dict[str, bytes] = {}
    for name, (old, move) in cases.items():
        dtype = getattr(torch, name)
        new = old ^ move if dtype == torch.bool else old + move
        x, b = (t.to(dtype).view(torch.uint8).numpy().tobytes() for t in (new, old))
        files |= {f"{name}-new.bin": x, f"{name}-base.bin": b}
        files[f"{name}.lpk"] = latentpack.encode(new.to(dtype), base=old.to(dtype))
    return files


def outer() -> dict[str, bytes]:
    """A model file (model.safetensors) packed in the second outer form, and as .lpk."""
    import tempfile

    import torch
    from safetensors.torch import save_file

    from latentpack.scripts import model_files

    values = torch.tensor(numbers(4000, 4001, 4)) - 2000
    tensors = {
        "a.weight": (values / 4096).bfloat16().reshape(40, 100),
        "b": (values[:90] / 64).float(),
        "equal": (values / 4096).bfloat16().reshape(40, 100),
        "scalar": torch.tensor(3, dtype=torch.int64),
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.safetensors"
        save_file(tensors, source, {"format": "pt", "note": "é"})
        files = {"model.safetensors": source.read_bytes()}
        for form, name in (("safetensors", "packed.safetensors"), ("lpk", "model.lpk")):
            model_files.pack(source, Path(folder) / name, form=form)
            files[name] = (Path(folder) / name).read_bytes()
    return files


# Folder in tests/golden -> function that makes its files {name: bytes}.
MAKERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "audio_lossless": golden_sounds.audio_lossless,
    "audio_rvq": golden_sounds.audio_rvq,
    "container": container,
    "delta": delta,
    "image_compressai": golden_pictures.image_compressai,
    "image_fit": golden_pictures.image_fit,
    "image_light": golden_pictures.image_light,
    "image_lossless": golden_pictures.image_lossless,
    "image_tokens": golden_pictures.image_tokens,
    "kv": kv,
    "outer": outer,
    "rans": rans,
    "tensor": tensor,
    "video_fit": golden_videos.video_fit,
    "video_inr": golden_videos.video_inr,
    "video_lite": golden_videos.video_lite,
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
