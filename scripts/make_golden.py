"""Write the golden files: python scripts/make_golden.py.

Tests read tests/golden/ and never write it. A file that is there is never replaced: old files
decode forever, so bytes that changed need a new codec id, a new version, or a new name here.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def numbers(count: int, top: int, seed: int) -> list[int]:
    """A recurrence of integers, so that no library's random numbers are in the files."""
    values = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((seed >> 33) % top)
    return values


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


def image_light() -> dict[str, bytes]:
    """The parse of codec 2: integer networks and tables, latents, and their stream."""
    import torch
    from safetensors.torch import save

    from latentpack.codecs.image.light_frozen import FrozenLight
    from latentpack.codecs.image.light_model import Size
    from latentpack.entropy.coder import Encoder

    def integers(shape: tuple[int, ...], low: int, high: int, seed: int) -> torch.Tensor:
        count = int(torch.tensor(shape).prod())
        return torch.tensor(numbers(count, high - low + 1, seed)).view(shape) + low

    model = FrozenLight(Size(8, 12, 1))
    ranges = {
        "weight": (-127, 127),
        "bias": (-3000, 3000),
        "multiplier": (8192, 16383),
        "shift": (19, 21),
        "offset": (0, 600),
        "z_row": (300, 700),
    }
    for seed, (name, value) in enumerate(model.h_s.state_dict().items()):
        value.copy_(integers(tuple(value.shape), *ranges[name.rsplit(".")[-1]], seed))
    state = {f"h_s.{name}": value for name, value in model.h_s.state_dict().items()}
    state["tables"] = torch.tensor(list(model.tables.to_bytes()), dtype=torch.uint8)
    for position in (0, 100, 448):
        z = integers((1, 32, 3, 2), -9, 9, position).to(torch.int8)
        rows = model.h_s(z, position)
        q = (integers(tuple(rows.shape), -3, 3, position + 1) * (rows > 0)).to(torch.int16)
        encoder = Encoder(model.tables)
        encoder.put(z.flatten().to(torch.int16), model.h_s.z_rows(position).repeat_interleave(6))
        encoder.put(q.flatten(), rows.flatten())
        stream = torch.tensor(list(encoder.finish()), dtype=torch.uint8)
        state |= {f"{position}.z": z, f"{position}.q": q, f"{position}.stream": stream}
    return {"parse.safetensors": save({n: v.contiguous() for n, v in state.items()})}


def image_fit() -> dict[str, bytes]:
    """Files of codec 4 (.lpk), their pixels (.bin), and the prior that they need."""
    import tempfile

    import numpy as np
    import torch

    from latentpack.codecs.codec import Packet
    from latentpack.codecs.container import Writer
    from latentpack.codecs.image import fit_networks, fit_prior, fit_stream, light_alpha, picture
    from latentpack.codecs.image.fit import TILE
    from latentpack.codecs.image.fit_parameters import Coded
    from latentpack.kernels.fit import grid_shapes

    def integers(count: int, top: int, seed: int) -> torch.Tensor:
        return torch.tensor(numbers(count, 2 * top + 1, seed)) - top

    preset = fit_networks.PRESETS["fast"]
    priors = {}
    for colours in (1, 3):
        count = fit_networks.count(preset, colours)
        mean = torch.stack([integers(count, 300, r) / 1024 for r in (0, 1)])
        for row in mean:
            p = fit_networks.split(row, preset, colours)
            p["context.b3"][:, 1] = 9
            p["up"][:] = torch.tensor(fit_networks.CUBIC)
            p["synthesis.b2"][:] = 0.5
        q = torch.arange(2 * len(fit_networks.layout(preset, colours))).view(2, -1) % 3 + 5
        scale = integers(2 * count, 6, 3).view(2, -1) + 46
        priors[f"fast.{colours}"] = {"mean": mean, "scale": scale, "q": q}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prior.lpkw"
        fit_prior.save(path, [0.001, 0.02], priors)
        files = {path.name: path.read_bytes()}
        opened = fit_prior.load(path)
    cases = {"rgb": (27, 40, 3), "grey": (33, 17, 1), "rgba": (20, 9, 4), "tiles": (2, 2050, 1)}
    for seed, (name, (height, width, channels)) in enumerate(cases.items()):
        prior = opened.at("fast", 1 if channels == 1 else 3, seed % 2)
        slices = len(prior.slices)
        coded = Coded(
            prior.q + integers(slices, 1, seed).numpy(),
            integers(slices, 2, seed + 9).numpy(),
            integers(len(prior.mean), 3, seed + 20).numpy(),
        )
        file, tiles = io.BytesIO(), picture.Grid(width, height, TILE)
        pixels = torch.zeros(channels, height, width, dtype=torch.uint8)
        header = {"s": [width, height, channels], "w": opened.digest}
        with Writer(file, 4, header) as writer:
            for number in range(len(tiles)):
                top, left, h, w = tiles.box(number)
                grids = [
                    integers(r * c, 2 + k, seed + k).view(r, c).to(torch.int16).numpy()
                    for k, (r, c) in enumerate(grid_shapes(h, w))
                ]
                grids[seed] = np.zeros_like(grids[seed])  # one that is not coded
                tile = fit_stream.Tile(prior, 100 + seed, coded, grids)
                painted, alpha = torch.from_numpy(tile.pixels()), None
                if channels == 4:
                    plane = (integers(h * w, 127, 5) + 127).view(1, h, w).to(torch.uint8)
                    painted, alpha = torch.cat([painted, plane]), light_alpha.encode(plane[0])
                pixels[:, top : top + h, left : left + w] = painted
                key = number if len(tiles) > 1 else None
                writer.write(Packet(key, fit_stream.write(tile, alpha)))
        files |= {f"{name}.lpk": file.getvalue(), f"{name}.bin": pixels.numpy().tobytes()}
    return files


def audio_lossless() -> dict[str, bytes]:
    """Sounds without loss, and what they decode to: samples [channel, n], little-endian."""
    import numpy as np
    import torch

    import latentpack

    def tones(channels: int, length: int, peak: int) -> "np.ndarray[Any, Any]":
        """Two parabolic waves that the channels share, and noise."""
        t = np.arange(length)
        waves = [(t * step % 64 - 32) * (32 - abs(t * step % 64 - 32)) for step in (3, 7)]
        noise = np.array(numbers(channels * length, 41, peak)).reshape(channels, length) - 20
        values: np.ndarray[Any, Any] = (2 * waves[0] + waves[1]) // 4 + noise
        return values * peak // 300

    mixed = tones(5, 90, 9000)
    mixed[1], mixed[3] = mixed[0], 1234
    loud = np.array(numbers(120, 65536, 5)).reshape(2, 60) - 32768
    cases: dict[str, tuple[np.ndarray[Any, Any], int, dict[str, Any]]] = {
        "mono": (tones(1, 400, 9000), 2, {}),
        "fast": (tones(2, 150, 20000), 2, {"effort": 0}),
        "best": (tones(2, 150, 20000), 2, {"effort": 2}),
        "deep": (tones(2, 120, 30000) * 256, 4, {}),
        "list": (tones(1, 300, 100) * 2123 // 10, 2, {}),
        "mixed": (mixed, 2, {}),
        "packets": (tones(2, 450, 3000), 2, {"seconds": 0.2}),
        "raw": (loud, 2, {}),
    }
    files: dict[str, bytes] = {}
    for name, (samples, width, options) in cases.items():
        x = torch.from_numpy(samples.astype(f"<i{width}"))
        data = latentpack.encode(x, codec="audio/lossless", sample_rate=1000, **options)
        files |= {f"{name}.lpk": data, f"{name}.bin": samples.astype(f"<i{width}").tobytes()}
    return files


def image_lossless() -> dict[str, bytes]:
    """Pictures without loss, and what they decode to: samples in C order, little-endian."""
    import numpy as np
    import torch

    from latentpack.codecs.image.lossless import Lossless
    from latentpack.scripts.pictures import encode_picture

    def ramp(channels: int, height: int, width: int, top: int) -> "np.ndarray[Any, Any]":
        """An edge, a slope and small noise."""
        y, x = np.mgrid[:height, :width]
        noise = np.array(numbers(channels * height * width, 7, top)).reshape(
            channels, height, width
        )
        shade = np.arange(channels)[:, None, None] * 9
        values: np.ndarray[Any, Any] = y * 5 + x * 3 + (x > width // 2) * 60 + shade + noise
        return values * top // 300

    few = np.array(numbers(12 * 15, 5, 3)).reshape(12, 15)
    colours = np.array(numbers(20, 256, 4)).reshape(5, 4)
    cases = {
        "grey": (ramp(1, 9, 11, 255).astype(np.uint8), 0),
        "rgb": (ramp(3, 24, 31, 255).astype(np.uint8), 0),
        "rgba16": (ramp(4, 10, 9, 65535).astype(np.uint16), 0),
        "near2": (ramp(2, 16, 13, 255).astype(np.uint8), 2),
        "colours": (colours[few].transpose(2, 0, 1).astype(np.uint8), 0),
        "sparse16": ((ramp(1, 40, 40, 255) * 64).astype(np.uint16), 0),
        "noise": (np.array(numbers(60, 256, 8), np.uint8).reshape(3, 4, 5), 0),
    }
    files = {}
    for name, (samples, error) in cases.items():
        codec = Lossless(error)
        x = torch.from_numpy(np.ascontiguousarray(samples))
        files[f"{name}.lpk"] = encode_picture(codec, x)
        (packet,) = codec.encode(x)
        decoded = codec.decode(codec.header(x), [packet]).numpy()
        files[f"{name}.bin"] = decoded.astype(decoded.dtype.newbyteorder("<")).tobytes()
    return files


def image_tokens() -> dict[str, bytes]:
    """The parse of codec 6: integer prior and tables, codes of three levels, and their streams."""
    import torch
    from safetensors.torch import save

    from latentpack.codecs.image.tokens_prior import IntegerTokenPrior
    from latentpack.entropy.coder import Encoder
    from latentpack.entropy.models import categorical

    prior = IntegerTokenPrior((32, 16, 16))
    ranges = {"multiplier": (8192, 16383), "shift": (19, 21), "bias": (-3000, 3000)}
    for seed, (name, value) in enumerate(prior.state_dict().items()):
        low, high = ranges.get(name.rsplit(".")[-1], (-127, 127))
        drawn = numbers(value.numel(), high - low + 1, seed)
        value.copy_(torch.tensor(drawn).view(value.shape) + low)
    tables = categorical.freeze()
    state = {f"prior.{name}": value for name, value in prior.state_dict().items()}
    state["tables"] = torch.tensor(list(tables.to_bytes()), dtype=torch.uint8)
    for h, w in ((1, 1), (5, 3)):
        levels = [
            torch.tensor(numbers(h * w * k, size, h + size + i)).view(-1, w * (k // 2 or 1))
            for i, (size, k) in enumerate(((32, 1), (16, 4), (16, 4)))
        ]
        for level in range(3):
            encoder = Encoder(tables)
            prior.put(encoder, levels[: level + 1])
            stream = torch.tensor(list(encoder.finish()), dtype=torch.uint8)
            state |= {f"{h}x{w}.{level}.codes": levels[level], f"{h}x{w}.{level}.stream": stream}
    return {"parse.safetensors": save({n: v.contiguous() for n, v in state.items()})}


def audio_rvq() -> dict[str, bytes]:
    """Weights of codec 8, sounds coded with them (.lpk), a stream, their codes and samples.

    The weights are integers of a recurrence. Codes are int16 [C, n_q, T], samples float32 [C, N].
    """
    import tempfile

    import torch

    from latentpack.codecs import weight_files
    from latentpack.codecs.audio.rvq import Rvq
    from latentpack.codecs.audio.rvq_frozen import config_of, frozen_state
    from latentpack.codecs.audio.rvq_model import RvqModel, Size
    from latentpack.codecs.codec import Rate
    from latentpack.codecs.container import Reader
    from latentpack.entropy.models.code_prior import IntegerCodePrior
    from latentpack.entropy.models.code_prior import Size as PriorSize
    from latentpack.scripts.sounds import write_sound

    size = Size(
        8000, 40, dim=16, hidden=16, encoder=2, decoder=2, latent=8, n_q=4, codebook_size=32
    )
    model, prior = RvqModel(size), IntegerCodePrior((32,) * 4, PriorSize(16, 16, 16, 16, 1))
    ranges = {"multiplier": (8192, 16383), "shift": (19, 21), "bias": (-3000, 3000)}
    for seed, (name, value) in enumerate(prior.state_dict().items()):
        low, high = ranges.get(name.rsplit(".")[-1], (-127, 127))
        value.copy_(
            (torch.tensor(numbers(value.numel(), high - low + 1, seed)) + low).view_as(value)
        )
    state = frozen_state(model, prior)
    for seed, (name, value) in enumerate(state.items()):
        if value.dtype == torch.int8 and not name.startswith("prior."):
            state[name] = (
                (torch.tensor(numbers(value.numel(), 255, seed)) - 127).view_as(value).char()
            )
        elif name.endswith((".weight.scale", "codebook.scale")):
            wide = state[name.removesuffix(".scale")].shape[1]
            state[name] = torch.full_like(value, 1 / (64 * wide**0.5))
        elif not name.startswith("prior."):
            drawn = torch.tensor(numbers(value.numel(), 65, seed)).view_as(value)
            base = 0.0 if name.endswith("bias") else 1.0
            state[name] = base + (drawn - 32) / 256
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.lpkw"

        def sound(channels: int, count: int) -> torch.Tensor:
            t = torch.arange(count) / 900
            tones = torch.stack([(t * (1 + c + t / 9)) % 1 - 0.5 for c in range(channels)])
            return tones * (t % 3 - 1).clamp_min(0)  # a third of the time silent

        stereo = sound(2, 5_000)
        stereo[1, 2400:] /= 20  # better not as mid and side
        weight_files.write(path, "audio/rvq", state, config_of(size, prior))
        state["prior.weight"] = state["prior.weight"].sign()
        state["prior.weight"][:, 2:] = 0  # so that what is usual counts for more than the context
        for q, codes in enumerate(Rvq(8000, path).encode_tokens(sound(1, 5_000))[0]):
            seen = torch.bincount(codes, minlength=32).tolist()  # what the prior shall expect
            bits = [5000 * n.bit_length() for n in seen]
            state["prior.bias"][32 * q : 32 * q + 32] = torch.tensor(bits)
        weight_files.write(path, "audio/rvq", state, config_of(size, prior), force=True)
        files[path.name] = path.read_bytes()
        cases = {
            "mono": (Rvq(8000, path, packet_seconds=0.1), sound(1, 5_123), None),
            "stereo": (Rvq(8000, path, packet_seconds=0.3, prior=False), stereo, None),
            "rate": (Rvq(11_025, path, packet_seconds=0.6), sound(3, 4_001), Rate(kbps=4)),
        }
        for name, (codec, x, rate) in cases.items():
            file = io.BytesIO()
            write_sound(file, codec, iter([x]), rate)
            reader = Reader(file.getvalue())
            files[f"{name}.lpk"] = file.getvalue()
            codes = codec.parse(reader.params, reader.packets())
            files[f"{name}.codes"] = codes.short().numpy().astype("<i2").tobytes()
            decoded = codec.decode(reader.params, reader.packets())
            files[f"{name}.bin"] = decoded.numpy().astype("<f4").tobytes()
        codec, x, _ = cases["mono"]
        encoder, decoder = codec.stream_encoder(kbps=0.8), codec.stream_decoder()
        files["stream.lprv"] = encoder.push(x) + encoder.finish()
        decoded = torch.cat([decoder.push(files["stream.lprv"]), decoder.finish()], 1)
        files["stream.bin"] = decoded.numpy().astype("<f4").tobytes()
    return files


def image_compressai() -> dict[str, bytes]:
    """A model of CompressAI, a picture coded with it (.lpk), and its samples [3, 70, 90] (.bin).

    Weights of h_s are few quarters, so that no sum in it is rounded: its scales are the same on
    every machine.
    """
    import torch
    from compressai.registry import MODELS
    from safetensors.torch import save

    import latentpack

    model = MODELS["bmshj2018-hyperprior"](4, 6).eval()
    state = model.state_dict()
    for seed, (name, value) in enumerate(state.items()):
        count = value.numel()
        if name.startswith("h_s"):
            state[name] = (torch.tensor(numbers(count, 3, seed)) - 1).view(value.shape) / 4
        elif name.split(".")[0] in ("g_a", "h_a", "g_s") and value.ndim in (1, 4):
            if "gamma" not in name and "beta" not in name and "bound" not in name:
                state[name] = (torch.tensor(numbers(count, 33, seed)) - 16).view(value.shape) / 64
        elif "biases" in name:
            state[name] = torch.tensor(numbers(count, 65, seed)).view(value.shape) / 64 - 0.5
    state["h_s.4.bias"] += 1
    model.load_state_dict(state)
    model.update([0.11 * 1.3**i for i in range(16)])
    x = torch.tensor(numbers(3 * 70 * 90, 64, 5)).view(3, 70, 90)
    x = (x + torch.arange(90) * 2 + torch.arange(70)[:, None] // 16 * 9) % 256
    data = latentpack.encode(x.to(torch.uint8), codec="image/compressai", weights=model)
    decoded = latentpack.decode(data, weights=model)
    assert isinstance(decoded, torch.Tensor)
    kept = {name: value.contiguous() for name, value in model.state_dict().items()}
    return {
        "model.safetensors": save(kept),
        "picture.lpk": data,
        "picture.bin": decoded.numpy().tobytes(),
    }


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
    "audio_lossless": audio_lossless,
    "audio_rvq": audio_rvq,
    "container": container,
    "delta": delta,
    "image_compressai": image_compressai,
    "image_fit": image_fit,
    "image_light": image_light,
    "image_lossless": image_lossless,
    "image_tokens": image_tokens,
    "kv": kv,
    "outer": outer,
    "rans": rans,
    "tensor": tensor,
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
