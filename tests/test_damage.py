"""Damaged files of tensors: every cut and every flipped bit is noticed."""

import random

import pytest
import torch

import latentpack

SMALL = {
    "a": (torch.arange(300) * 0.37 - 50).to(torch.bfloat16),
    "b": torch.arange(5),
    "c": torch.zeros(40),
}


def rejects(data):
    with pytest.raises(latentpack.BitstreamError):
        latentpack.decode(data, threads=1)


@pytest.mark.parametrize("x", [SMALL, SMALL["a"]], ids=["mapping", "tensor"])
def test_every_cut_and_every_bit_of_a_small_file(x):
    data = latentpack.encode(x, threads=1)
    for size in range(len(data)):
        rejects(data[:size])
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        rejects(damaged)


def test_bits_and_cuts_of_a_file_with_a_bulk():
    rng = random.Random(1)
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(1)).bfloat16()
    data = latentpack.encode({"x": x, "y": x[:50_000]}, threads=1)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        rejects(damaged)
        rejects(data[: rng.randrange(len(data))])


def test_a_cut_file_gives_its_whole_tensors(tmp_path):
    path = tmp_path / "x.lpk"
    data = latentpack.encode(SMALL, threads=1)
    counts = set()
    for size in range(20, len(data)):
        path.write_bytes(data[:size])
        with latentpack.open(path, recover=True, threads=1) as f:
            assert all(torch.equal(f[name], SMALL[name]) for name in f)
            assert list(f) == list(SMALL)[: len(f)]
            counts.add(len(f))
    assert counts == {0, 1, 2, 3}
