"""A second decoder of image/fit, written from section 15 of codecs/FORMAT.md: slow and plain."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpack.codecs import weight_files
from latentpack.codecs.container import Reader
from latentpack.entropy.tables import TableSet
from latentpack.kernels import rans_ref

GOLDEN = Path(__file__).parent / "golden" / "image_fit"
TABLES = Path(weight_files.__file__).parent / "weights" / "image-fit-tables.bin"
PRESETS = {0: ("fast", 6, 8, 12), 1: ("default", 10, 16, 24)}
TAPS = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1)]
F = np.float32


def shapes_of(taps, h, s, c):
    n = taps + 5
    context = {"w1": (h, n), "b1": (7, h), "w2": (h, h), "b2": (h,), "w3": (2, h), "skip": (2, n)}
    synthesis = {"w1": (s, 7), "b1": (s,), "w2": (c, s), "b2": (c,), "skip": (c, 7)}
    synthesis |= {"k1": (c, c, 3, 3), "c1": (c,), "k2": (c, c, 3, 3), "c2": (c,)}
    found = {f"context.{name}": shape for name, shape in (context | {"b3": (7, 2)}).items()}
    return found | {"up": (6, 4)} | {f"synthesis.{name}": s for name, s in synthesis.items()}


def networks(prior, rate, key, shapes, get):
    """Sections 15.3 and 15.4."""
    q = prior[f"{key}.q"][rate].astype(int) + get([81] * 17)
    shift = get([81] * 17)
    sizes = [math.prod(shape) for shape in shapes.values()]
    each_q, each_shift = np.repeat(q, sizes), np.repeat(shift, sizes)
    scale = prior[f"{key}.scale"][rate].astype(int)
    v = get((9 * np.clip(scale - 48 + 3 * each_q + each_shift, 0, 27)).tolist())
    unit = np.repeat([12 if name.startswith("context") else 16 for name in shapes], sizes)
    mean = np.floor(prior[f"{key}.mean"][rate].astype(float) * 2.0**unit + 0.5).astype(int)
    values = mean + v * 2 ** (unit - each_q)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}


def signed(x):
    return ((np.asarray(x) + 2**31) % 2**32) - 2**31


def grids_of(p, taps, height, width, mask, get):
    """Section 15.5, a position at a time."""
    grids = [np.zeros((-(-height // 2**k), -(-width // 2**k)), int) for k in range(9)]

    def at(k, r, c):
        rows, columns = grids[k].shape
        return grids[k][r, c] if k < 7 and 0 <= r < rows and 0 <= c < columns else 0

    for k in range(6, -1, -1):
        rows, columns = grids[k].shape
        places = [(r, c) for r in range(rows) for c in range(columns)]
        for r, c in sorted(places, key=lambda rc: (rc[1] + 3 * rc[0], rc[0])) * (mask >> k & 1):
            x = [at(k, r + dr, c + dc) for dr, dc in TAPS[:taps]]
            i, j = r // 2, c // 2
            side_i, side_j = (i + 1 if r % 2 else i - 1), (j + 1 if c % 2 else j - 1)
            near = [(i, j), (i, side_j), (side_i, j), (side_i, side_j)]
            x = np.array([*x, *(at(k + 1, *place) for place in near), at(k + 2, r // 4, c // 4)])
            h1 = signed(p["context.w1"] @ x + p["context.b1"][k] + 2**5) >> 6
            h1 = np.clip(h1, 0, 32767)
            h2 = signed(p["context.w2"] @ h1 + (p["context.b2"] << 6) + 2**11) >> 12
            h2 = np.minimum(h1 + np.clip(h2, 0, 32767), 32767)
            out = p["context.w3"] @ h2 + ((p["context.skip"] @ x + p["context.b3"][k]) << 6)
            mu = int(np.clip(signed(out[0] + 2**13) >> 14, -8176, 8176))
            a = int(np.clip(signed(out[1] + 2**17) >> 18, 0, 27))
            m = (mu + 8) >> 4
            f = mu - 16 * m
            (v,) = get([9 * a + abs(f)])
            grids[k][r, c] = m - v if f < 0 else m + v
    return grids[:7]


def doubled(x, kernel, length):
    """Step 1 of section 15.6, along the first axis."""
    padded = np.pad(x, [(2, 2)] + [(0, 0)] * (x.ndim - 1), "edge")
    out = []
    for e in range(length):
        i = e // 2 + 2
        taps = [i - 1, i, i + 1, i + 2] if e % 2 else [i - 2, i - 1, i, i + 1]
        weights = kernel[::-1] if e % 2 else kernel
        total = weights[0] * padded[taps[0]]
        for w, t in zip(weights[1:], taps[1:], strict=True):
            total = total + w * padded[t]
        out.append(total)
    return np.stack(out)


def pixels_of(p, grids):
    """Section 15.6."""
    p = {n: (v * 2.0**-16).astype(F) for n, v in p.items() if not n.startswith("context")}
    u = [grids[6].astype(F)]
    for k in range(5, -1, -1):
        rows, columns = grids[k].shape
        u = [doubled(doubled(x, p["up"][k], rows).T, p["up"][k], columns).T for x in u]
        u.append(grids[k].astype(F))
    v = [x * F(1 / 16) for x in u]
    net = {n.removeprefix("synthesis."): x for n, x in p.items()}

    def weighted(bias, weights, planes):
        total = np.full(v[0].shape, bias, F)
        for w, plane in zip(weights, planes, strict=True):
            total = total + w * plane
        return total

    h = [np.maximum(weighted(b, w, v), 0) for b, w in zip(net["b1"], net["w1"], strict=True)]
    rows = zip(net["b2"], net["skip"], net["w2"], strict=True)
    a = [weighted(b, [*s, *w], [*v, *h]) for b, s, w in rows]

    def conv(x, kernel, bias):
        padded = [np.pad(plane, 1, "edge") for plane in x]
        height, width = x[0].shape
        near = [
            t[y : y + height, z : z + width] for t in padded for y in range(3) for z in range(3)
        ]
        return [weighted(b, k.ravel(), near) for b, k in zip(bias, kernel, strict=True)]

    b = [np.maximum(s + t, 0) for s, t in zip(a, conv(a, net["k1"], net["c1"]), strict=True)]
    x = [s + t for s, t in zip(b, conv(b, net["k2"], net["c2"]), strict=True)]
    scaled = F(255) * np.stack(x) + F(0.5)
    return np.floor(np.clip(scaled, 0, 255)).astype(np.uint8)


def tile(prior, body, channels, height, width):
    """Section 15.2."""
    name, taps, h, s = PRESETS[body[0] & 3]
    rest, alpha = body[3:], b""
    if channels in (2, 4):
        n = at = 0
        while True:
            n |= (rest[at] & 127) << 7 * at
            at += 1
            if rest[at - 1] < 128:
                break
        rest, alpha = rest[at : at + n], rest[at + n :]
    colours = 1 if channels < 3 else 3
    decoder = rans_ref.Decoder(TableSet.from_bytes(TABLES.read_bytes()), rest)

    def get(rows):
        return decoder.get(np.array(rows, np.uint8)).astype(int)

    shapes = shapes_of(taps, h, s, colours)
    p = networks(prior, body[0] >> 2, f"{name}.{colours}", shapes, get)
    grids = grids_of(p, taps, height, width, body[1], get)
    decoder.finish()
    pixels = pixels_of(p, grids)
    if channels in (2, 4):
        plane = np.array(Image.open(io.BytesIO(alpha)).convert("RGB"))[:, :, 1]
        pixels = np.concatenate([pixels, plane[None]])
    return pixels


@pytest.mark.parametrize("name", ["rgb", "grey", "rgba"])
def test_it_decodes_the_golden_files(name):
    reader = Reader((GOLDEN / f"{name}.lpk").read_bytes())
    weights = weight_files.read(GOLDEN / "prior.lpkw", "image/fit")
    assert reader.params["w"] == weights.digest
    prior = {n: t.numpy() for n, t in weights.tensors.items()}
    (packet,) = reader.packets()
    width, height, channels = reader.params["s"]
    found = tile(prior, packet.body, channels, height, width)
    assert found.tobytes() == (GOLDEN / f"{name}.bin").read_bytes()
