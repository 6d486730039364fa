"""Golden files of the picture codecs, see `make_golden.py`."""

import io
from pathlib import Path
from typing import Any

from latentpack.scripts.golden_numbers import numbers


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
