"""A second decoder of video/inr, written from codecs/FORMAT.md, section 26, alone."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import latentpack
from latentpack.codecs.container import Reader
from latentpack.codecs.video.gop_times import read_times
from latentpack.entropy.tables import TableSet
from latentpack.kernels import rans_ref

GOLDEN = Path(__file__).parent / "golden" / "video_inr"
TABLES = Path(__file__).parents[1] / "codecs" / "weights" / "image-fit-tables.bin"
FILES = sorted(GOLDEN.glob("*.lpk"))


class Stream:
    def __init__(self, data):
        self.decoder = rans_ref.Decoder(TableSet.from_bytes(TABLES.read_bytes()), data)

    def get(self, rows):
        return self.decoder.get(np.asarray(rows, np.uint8)).astype(int)

    def side(self, count):
        return self.get([162] * count)

    def by_differences(self, count):
        return np.cumsum(self.side(count))


def varint(data):
    value = shift = 0
    for at, byte in enumerate(data):
        value |= (byte & 127) << shift
        if byte < 128:
            return value, data[at + 1 :]
        shift += 7
    raise AssertionError


class Gop:
    """A payload: `weights` by name, `grids[t][level]` as integers, `steps[level]`."""

    def __init__(self, data, outputs, height, width, count, whole):
        arch, levels = data[0] & 3, (data[0] >> 3 & 7) + 1
        differences, data = data[0] >> 2 & 1, data[1:]
        self.arch, self.outputs, self.count = ("nerv", "hnerv", "boosted")[arch], outputs, count
        self.w, data = list(data[: levels + 1]), data[levels + 1 :]
        if self.arch == "nerv":
            self.hidden, data = data[0], data[1:]
        self.g, data = list(data[: levels + 1]), data[levels + 1 :]
        if differences:
            _, data = varint(data)
            data = data[4:]
        size, data = varint(data)
        self.sizes = [(-(-height // 2), -(-width // 2))]
        for _ in range(levels):
            self.sizes.append(tuple(-(-n // 2) for n in self.sizes[-1]))
        self.levels = range(levels, -1, -1)
        self.read_weights(data[:size], whole.weights if differences else None)
        if any(self.g):
            self.read_grids(data[size:])

    def shapes(self):
        w, g, top, out = self.w, self.g, len(self.w) - 1, self.outputs
        if self.arch == "boosted":
            for level in self.levels:
                if level < top:
                    yield f"{level}.up.weight", (4 * w[level], w[level + 1], 3, 3)
                if g[level]:
                    yield f"{level}.grid.weight", (w[level], g[level], 3, 3)
                yield f"{level}.bias", (w[level],)
                yield f"{level}.time.weight", (2 * w[level], 12)
                yield f"{level}.picture.weight", (out, w[level], 3, 3)
                yield f"{level}.picture.bias", (out,)
            return
        if self.arch == "nerv":
            yield "stem0.weight", (self.hidden, 40)
            yield "stem0.bias", (self.hidden,)
            yield "stem1.weight", (w[top] * math.prod(self.sizes[top]), self.hidden)
            yield "stem1.bias", (w[top] * math.prod(self.sizes[top]),)
        else:
            yield "stem.weight", (w[top], g[top], 1, 1)
            yield "stem.bias", (w[top],)
        for level in range(top - 1, -1, -1):
            k = 3 if self.arch == "nerv" else min(5, 1 + 2 * (top - 1 - level))
            yield f"{level}.weight", (4 * w[level], w[level + 1], k, k)
            yield f"{level}.bias", (4 * w[level],)
        yield "head.weight", (out, w[0], 3, 3)
        yield "head.bias", (out,)

    def read_weights(self, data, base):
        stream, shapes = Stream(data), dict(self.shapes())
        steps = stream.by_differences(len(shapes))
        rows = stream.by_differences(len(shapes))
        self.weights = {}
        for (name, shape), k, r in zip(shapes.items(), steps, rows, strict=True):
            symbols = stream.get([9 * r] * math.prod(shape)).reshape(shape)
            value = torch.tensor(symbols * 2.0 ** (k / 8 - 16), dtype=torch.float64)
            self.weights[name] = value if base is None else base[name] + value
        stream.decoder.finish()

    def read_grids(self, data):
        stream = Stream(data)
        self.steps, follow, row, lift = {}, {}, {}, {}
        for level in sorted(self.levels):
            if self.g[level]:
                self.steps[level] = stream.by_differences(self.g[level])
                follow[level] = stream.side(self.g[level])
                row[level] = stream.by_differences(self.g[level])
                lift[level] = stream.side(16).reshape(2, 8)
        self.grids = []
        miss = {}
        for t in range(self.count):
            values, before = {}, dict(miss)
            for level in self.levels:
                if not self.g[level]:
                    continue
                h, w = self.sizes[level]
                rows, means, rests = (np.zeros((self.g[level], h, w), int) for _ in range(3))
                for c, y, x in np.ndindex(rows.shape):
                    near = 0
                    if t:
                        near = before[level][max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum()
                        e = follow[level][c] * self.grids[t - 1][level][c, y, x]
                        means[c, y, x] = (e + 8) >> 4
                        rests[c, y, x] = e - 16 * means[c, y, x]
                    if level + 1 in values:
                        near += 4 * miss[level + 1][y // 2, x // 2]
                    kind = min(7, int(near).bit_length())
                    rows[c, y, x] = min(27, max(0, row[level][c] + lift[level][min(t, 1), kind]))
                s = stream.get((9 * rows + abs(rests)).ravel()).reshape(rows.shape)
                values[level] = means + np.where(rests < 0, -s, s)
                miss[level] = abs(values[level] - means).sum(0)
            self.grids.append(values)
        stream.decoder.finish()

    def grid(self, t, level):
        steps = 2.0 ** (self.steps[level] / 8 - 16)
        return torch.tensor(self.grids[t][level] * steps[:, None, None])[None]

    def draw(self, t):
        p = t / max(1, self.count - 1)
        w, top = self.weights, len(self.w) - 1

        def waves(n, b):
            angles = math.pi * p * b ** torch.arange(n, dtype=torch.float64)
            return torch.cat([torch.sin(angles), torch.cos(angles)])

        def shuffled(x, name, level):
            weight = w[f"{name}.weight"]
            x = F.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)
            return F.pixel_shuffle(x, 2)[:, :, : self.sizes[level][0], : self.sizes[level][1]]

        if self.arch == "boosted":
            x = picture = None
            for level in self.levels:
                y = w[f"{level}.bias"][None, :, None, None]
                if x is not None:
                    y = y + shuffled(x, f"{level}.up", level)
                if self.g[level]:
                    y = y + F.conv2d(self.grid(t, level), w[f"{level}.grid.weight"], padding=1)
                gain, offset = (w[f"{level}.time.weight"] @ waves(6, 2.0))[:, None, None].chunk(2)
                x = F.gelu(y * (1 + gain) + offset)
                here = F.conv2d(
                    x, w[f"{level}.picture.weight"], w[f"{level}.picture.bias"], padding=1
                )
                if picture is not None:
                    double = F.interpolate(picture, scale_factor=2, mode="bilinear")
                    here = here + double[:, :, : self.sizes[level][0], : self.sizes[level][1]]
                picture = here
            return picture[0]
        if self.arch == "nerv":
            x = F.gelu(w["stem0.weight"] @ waves(20, 1.25) + w["stem0.bias"])
            x = F.gelu(w["stem1.weight"] @ x + w["stem1.bias"])
            x = x.reshape(1, self.w[top], *self.sizes[top])
        else:
            x = F.gelu(F.conv2d(self.grid(t, top), w["stem.weight"], w["stem.bias"]))
        for level in range(top - 1, -1, -1):
            x = F.gelu(shuffled(x, str(level), level))
        return F.conv2d(x, w["head.weight"], w["head.bias"], padding=1)[0]


def planes_of(packed, header):
    """Samples before they are rounded."""
    width, height = header["s"]
    tensor, planes, at = "t" in header, [], 0
    for number in range(header["c"]):
        if tensor or not number:
            plane = F.pixel_shuffle(packed[at : at + 4], 2)[0, :height, :width]
            at += 4
        else:
            plane = packed[at]
            at += 1
        peak = 1 if header.get("t") == "float32" else (1 << header["b"]) - 1
        planes.append((plane + 0.5).clamp(0, 1) * peak)
    return planes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_is_enough_to_decode(path):
    reader = Reader(path.read_bytes())
    header = reader.params
    width, height = header["s"]
    found = latentpack.decode(path.read_bytes())
    found = found.unbind(1) if isinstance(found, torch.Tensor) else found
    outputs = 4 * header["c"] if "t" in header else 3 + header["c"]
    integers = json.loads(path.with_suffix(".json").read_text())
    shown, whole = 0, None
    for packet, expected in zip(reader.packets(), integers, strict=True):
        times, payload = read_times(packet.body, header["g"])
        gop = Gop(bytes(payload), outputs, height, width, len(times.pts), whole)
        whole = whole or gop
        grids = [
            y[level].ravel().tolist() for y in getattr(gop, "grids", []) for level in sorted(y)
        ]
        assert grids == expected["grids"]
        for t in range(gop.count):
            for a, b in zip(planes_of(gop.draw(t), header), found, strict=True):
                off = (a - b[shown].double()).abs().max()
                assert off < (2e-3 if b.dtype == torch.float32 else 0.6)
            shown += 1


def test_there_are_golden_files():
    assert len(FILES) >= 4
