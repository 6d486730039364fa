"""The picture kernel: every backend gives exactly what the reference gives."""

import numpy as np
import pytest
import torch

from latentpack.kernels import pixels, rans
from latentpack.kernels.pixels import Plane
from latentpack.kernels.pixels_mix_ref import Decoder, Encoder, counted_on
from latentpack.kernels.pixels_numbers_ref import exponential, logarithm, total
from latentpack.kernels.pixels_taps_ref import TAPS, LeastSquares

COMPILED = [name for name in rans.backends() if name != "ref"]


def picture(planes, height, width, peak, seed=0, noise=0.02):
    """A ramp with an edge and noise, uint16 [planes, height, width]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    base = 0.2 + 0.4 * x + 0.2 * y + 0.2 * (x > 0.5)
    many = (
        base
        + rng.normal(0, noise, (planes, height, width))
        + 0.05 * np.arange(planes)[:, None, None]
    )
    return np.rint(many.clip(0, 1) * peak).astype(np.uint16)


def chain(count, peak, error=0):
    return [Plane(peak, error, min(i, 2)) for i in range(count)]


CASES = {
    "one pixel": (picture(1, 1, 1, 255), chain(1, 255)),
    "a row": (picture(1, 1, 9, 255), chain(1, 255)),
    "a column": (picture(2, 9, 1, 255), chain(2, 255)),
    "colour": (picture(3, 6, 7, 255), chain(3, 255)),
    "four planes": (picture(4, 4, 5, 255), [*chain(3, 255), Plane(255, 0, 0)]),
    "bits": (picture(1, 8, 7, 1, noise=0.3), chain(1, 1)),
    "deep": (picture(3, 4, 5, 65535), chain(3, 65535)),
    "noise": (
        np.random.default_rng(5).integers(0, 65536, (1, 5, 8)).astype(np.uint16),
        chain(1, 65535),
    ),
    "odd peaks": (picture(2, 5, 6, 9), [Plane(1000, 0, 0), Plane(9, 0, 1)]),
    "with errors": (picture(3, 5, 6, 255), [Plane(255, 2, 0), Plane(255, 1, 1), Plane(255, 7, 2)]),
    "flat": (np.full((2, 6, 6), 7, np.uint16), chain(2, 255)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_backend_equals_the_reference(name):
    samples, planes = CASES[name]
    decoded = samples.copy()
    data = pixels.encode(decoded, planes, backend="ref")
    for plane, rows, before in zip(planes, decoded, samples, strict=True):
        assert np.abs(rows.astype(int) - before).max() <= plane.error
    shape = samples.shape[1:]
    for backend in rans.backends():
        if backend != "ref":
            again = samples.copy()
            assert pixels.encode(again, planes, backend=backend) == data
            assert np.array_equal(again, decoded)
        if backend != "ref" or samples.size < 60:
            assert np.array_equal(pixels.decode(data, planes, *shape, backend=backend), decoded)


@pytest.mark.parametrize("error", [0, 1, 2])
def test_compiled_backends_agree_on_larger_tiles(error):
    samples = picture(3, 61, 47, 255, seed=error)
    samples[:, 10:20, 5:40] = np.random.default_rng(1).integers(0, 256, (3, 10, 35))
    files = set()
    for backend in COMPILED:
        decoded = samples.copy()
        data = pixels.encode(decoded, chain(3, 255, error), backend=backend)
        assert np.abs(decoded.astype(int) - samples).max() <= error
        for reader in COMPILED:
            back = pixels.decode(data, chain(3, 255, error), 61, 47, backend=reader)
            assert np.array_equal(back, decoded)
        files.add(data)
    assert len(files) == min(1, len(COMPILED))


def test_flushing_denormal_numbers_changes_nothing():
    samples = picture(1, 40, 40, 255)
    samples[:, :, 8:] = 3  # sums decay over it
    expected = pixels.encode(samples.copy(), chain(1, 255))
    assert torch.set_flush_denormal(True) in (True, False)  # False: this CPU always has them
    try:
        assert pixels.encode(samples, chain(1, 255)) == expected
    finally:
        torch.set_flush_denormal(False)


def test_photograph_like_planes_get_small():
    samples = picture(3, 64, 64, 255, noise=0.004)
    size = len(pixels.encode(samples.copy(), chain(3, 255)))
    assert size < 0.31 * samples.size  # 2.5 bits a sample; the noise alone has some 2
    flat = len(pixels.encode(np.full((3, 64, 64), 200, np.uint16), chain(3, 255)))
    assert flat < 60


def test_coder_by_hand():
    coder = Encoder()
    coder.code(1, 32768)  # [0, 7FFFFFFF]
    coder.code(0, 16384)  # 0 + 7FFFFFFF / 4 = 1FFFFFFF: [20000000, 7FFFFFFF]
    assert (coder.low, coder.high) == (0x20000000, 0x7FFFFFFF)
    assert coder.finish() == b"\x20"
    decoder = Decoder(b"\x20")
    assert [decoder.code(0, p) for p in (32768, 16384)] == [1, 0]


def test_coder_with_the_least_likely():
    bits = [0, 1] * 40 + [1] * 9
    odds = [65535, 1] * 40 + [32768] * 9
    coder = Encoder()
    for bit, p in zip(bits, odds, strict=True):
        coder.code(bit, p)
    data = coder.finish()
    assert 155 <= len(data) <= 165  # 80 decisions of 16 bits
    decoder = Decoder(data)
    assert [decoder.code(0, p) for p in odds] == bits


def test_numbers_by_hand():
    assert total(np.arange(16, dtype=np.float32)) == 120
    v = np.linspace(-30, 30, 100, dtype=np.float32)
    assert np.allclose(exponential(v), np.exp(v.astype(float)), rtol=1e-5)
    assert np.allclose(logarithm(np.exp(v)), v, atol=1e-4)
    assert counted_on(1 << 31, 1) >> 10 == (1 << 21) + ((4194303 - (1 << 21)) * 40960 >> 16)


def test_least_squares_find_a_line():
    """A ramp is predicted from two taps once a few pixels have been seen."""
    fit = LeastSquares(20, 0.9, 0.9, np.float32(1e-3))
    fit.start_row()
    taps = np.zeros(TAPS, np.float32)
    rng = np.random.default_rng(0)
    for x in range(20):
        taps[:2] = rng.normal(size=2)
        weights = fit.solve(x)
        fit.learn(x, taps, np.float32(2 * taps[0] - taps[1]))
    assert np.allclose(weights[:2], [2, -1], atol=0.01) and abs(weights[2:]).max() < 1e-15


@pytest.mark.parametrize("backend", rans.backends())
def test_any_bytes_decode(backend):
    rng = np.random.default_rng(3)
    planes = [Plane(200, 0, 0), Plane(65535, 2, 1)]
    for size in (0, 1, 40, 400):
        side = 5 if backend == "ref" else 40
        samples = pixels.decode(rng.bytes(size), planes, side, side, backend=backend)
        assert samples[0].max() <= 200


def test_wrong_arguments():
    samples = picture(2, 4, 4, 255)
    with pytest.raises(ValueError, match="links, legal are 0 to 0"):
        pixels.encode(samples, [Plane(255, 0, 1), Plane(255, 0, 0)])
    with pytest.raises(ValueError, match="peak 0"):
        pixels.encode(samples, [Plane(0, 0, 0), Plane(255, 0, 0)])
    with pytest.raises(ValueError, match="above its peak 100"):
        pixels.encode(samples + 101, [Plane(100, 0, 0), Plane(255, 0, 0)])
    with pytest.raises(ValueError, match="1 planes for samples"):
        pixels.encode(samples, chain(1, 255))
    with pytest.raises(ValueError, match="expected uint16"):
        pixels.encode(samples.astype(np.uint8), chain(2, 255))
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        pixels.decode(b"", chain(1, 255), 4, 4, backend="gpu")
