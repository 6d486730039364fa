"""A second decoder of audio/rvq, written from FORMAT.md alone, and the golden files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpack.codecs import weight_files
from latentpack.codecs.audio.rvq import Rvq
from latentpack.codecs.audio.rvq_frozen import load_networks
from latentpack.codecs.container import Reader

GOLDEN = Path(__file__).parent / "golden" / "audio_rvq"
WEIGHTS = GOLDEN / "weights.lpkw"


class Second:
    """Section 20, in NumPy and double precision."""

    def __init__(self):
        weights = weight_files.read(WEIGHTS, "audio/rvq")
        self.config = weights.config
        self.tensors = {n: v.numpy() for n, v in weights.tensors.items()}
        self.prior = load_networks(weights)[1]
        self.hop = self.config["hop"]

    def get(self, name):
        value = self.tensors[name].astype(np.float64)
        return value * self.tensors.get(f"{name}.scale", 1.0)

    def linear(self, name, x):
        return x @ self.get(f"{name}.weight").T + self.get(f"{name}.bias")

    def norm(self, name, x):
        y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return y * self.get(f"{name}.weight") + self.get(f"{name}.bias")

    def stack(self, name, x):
        y = self.norm(f"{name}.first_norm", self.linear(f"{name}.into", x))
        for i in range(self.config[name]):
            block = f"{name}.blocks.{i}"
            taps, padded = self.get(f"{block}.taps"), np.pad(y, ((6, 0), (0, 0)))
            mixed = sum(taps[j] * padded[j : j + len(y)] for j in range(7))
            z = self.linear(f"{block}.into", self.norm(f"{block}.norm", mixed))
            z = z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
            y = y + self.get(f"{block}.scale") * self.linear(f"{block}.out", z)
        return self.linear(f"{name}.out", self.norm(f"{name}.norm", y))

    def basis(self):
        n, b = np.arange(2 * self.hop), np.arange(self.hop + 1)
        angle = 2 * math.pi * np.outer(n, b) / (2 * self.hop)
        window = np.sin(math.pi * (n + 0.5) / (2 * self.hop)) / math.sqrt(2 * self.hop)
        return np.cos(angle) * window[:, None], np.sin(angle) * window[:, None]

    def silence(self):
        bins = self.hop + 1
        log = np.full(bins, math.log(1e-6) / 8)
        row = np.concatenate([np.zeros(2 * bins), log] * 2)
        return self.stack("encoder", np.tile(row, (50, 1)))[-1]

    def synthesise(self, latents):
        rows = self.stack("decoder", latents).reshape(2 * len(latents), 3, self.hop + 1)
        magnitude = np.exp(np.minimum(rows[:, 2], 6)) / 8
        share = np.full(self.hop + 1, 2.0)
        share[[0, -1]] = 1
        cosine, sine = self.basis()
        re, im = rows[:, 0] * magnitude * share, rows[:, 1] * magnitude * share
        frames = re @ cosine.T - im @ sine.T
        x = np.zeros((len(frames) + 1) * self.hop)
        for i, frame in enumerate(frames):
            x[i * self.hop : (i + 2) * self.hop] += frame
        return x[: len(frames) * self.hop]

    def packet(self, body, channels, number, group, before, at_rate):
        """Samples, layout, codes [C][k, T] or None."""
        at = 0

        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = body[at]
                at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
                if byte < 128:
                    return value

        samples = varint()
        total = -(-(before + samples) * self.config["sample_rate"] // at_rate)
        frames = min(group, -(-(total + self.hop) // (2 * self.hop)) - number * group)
        joint = 0
        if channels == 2:
            joint, at = body[at], at + 1
        heads, at = body[at : at + channels], at + channels
        left = sum(head > 0 for head in heads)
        codes = []
        for head in heads:
            if not head:
                codes.append(None)
                continue
            left -= 1
            size = varint() if left else len(body) - at
            data, at, k = body[at : at + size], at + size, head & 127
            if head & 128:
                codes.append(self.prior.decode(data, k, frames).numpy())
            else:
                b = (self.config["codebook_size"] - 1).bit_length()
                bits = "".join(f"{byte:08b}" for byte in data)
                values = [int(bits[i : i + b], 2) for i in range(0, k * frames * b, b)]
                codes.append(np.array(values).reshape(frames, k).T)
        assert at == len(body)
        return samples, joint, codes, frames

    def decode(self, data):
        reader = Reader(data)
        rate, channels, group = (reader.params[name] for name in "rcg")
        latents = [[] for _ in range(channels)]
        matrices, total, all_codes = [], 0, []
        for number, packet in enumerate(reader.packets()):
            assert packet.key == number
            samples, joint, codes, frames = self.packet(
                packet.body, channels, number, group, total, rate
            )
            total += samples
            matrix = np.array([[1.0, 1], [1, -1]]) if joint else np.eye(channels)
            matrix = matrix * [float(part is not None) for part in codes]
            matrices += [matrix] * frames
            rows = np.full((channels, self.config["n_q"], frames), -1)
            for c, part in enumerate(codes):
                v = np.tile(self.silence(), (frames, 1))
                if part is not None:
                    books = [
                        self.get(f"quantizer.stages.{q}.codebook")[code]
                        for q, code in enumerate(part)
                    ]
                    v, rows[c, : len(part)] = sum(books), part
                latents[c].append(v)
            all_codes.append(rows)
        coded = np.stack([self.synthesise(np.concatenate(parts)) for parts in latents])
        x = np.empty_like(coded)
        hop, old = self.hop, matrices[0]
        for t, new in enumerate(matrices):
            old = np.where((old != 0).any(0), old, new)
            at = 2 * hop * t
            first, second = coded[:, at : at + hop], coded[:, at + hop : at + 2 * hop]
            share = (np.arange(hop) + 0.5) / hop
            x[:, at : at + hop] = old @ first
            x[:, at + hop : at + 2 * hop] = old @ second * (1 - share) + new @ second * share
            old = new
        return np.concatenate(all_codes, 2), x[:, hop:], total


def stored(name, kind, channels):
    return np.fromfile(GOLDEN / name, kind).reshape(channels, -1)


@pytest.mark.parametrize("name, channels", [("mono", 1), ("stereo", 2), ("rate", 3)])
def test_golden_files_decode_forever(name, channels):
    reader, codec = Reader((GOLDEN / f"{name}.lpk").read_bytes()), Rvq(weights=WEIGHTS)
    codes = codec.parse(reader.params, reader.packets())
    assert np.array_equal(codes.flatten(1), stored(f"{name}.codes", "<i2", channels))
    x = codec.decode(reader.params, reader.packets())
    expected = stored(f"{name}.bin", "<f4", channels)
    assert x.shape == expected.shape and np.abs(x.numpy() - expected).max() < 1e-4
    assert np.abs(expected).max() > 0.01


def test_golden_stream_decodes_forever():
    decoder = Rvq(weights=WEIGHTS).stream_decoder()
    x = torch.cat([decoder.push((GOLDEN / "stream.lprv").read_bytes()), decoder.finish()], 1)
    expected = stored("stream.bin", "<f4", 1)
    assert x.shape == expected.shape and np.abs(x.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("name, channels", [("mono", 1), ("stereo", 2), ("rate", 3)])
def test_a_decoder_from_the_format_agrees(name, channels):
    codes, x, total = Second().decode((GOLDEN / f"{name}.lpk").read_bytes())
    assert np.array_equal(codes.reshape(channels, -1), stored(f"{name}.codes", "<i2", channels))
    expected = stored(f"{name}.bin", "<f4", channels)
    assert expected.shape[1] == total
    if name != "rate":  # the way to another rate is free
        assert np.abs(x[:, :total] - expected).max() < 1e-4
