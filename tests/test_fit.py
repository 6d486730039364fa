import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_networks as net
from latentpack.entropy.tables import TableSet
from latentpack.kernels import fit, fit_ref, rans
from latentpack.kernels.errors import BitstreamError

FAST = rans.backends()[1:]
SIZES = [(1, 1), (1, 5), (7, 1), (2, 2), (17, 33), (64, 48), (65, 3), (3, 65), (31, 130)]
RANGES = {"w1": 4000, "b1": 9000, "w2": 3000, "b2": 5000, "w3": 3000, "skip": 1500, "b3": 30000}


def context(preset, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    slices = list(net.layout(net.PRESETS[preset], 3).items())[:7]
    arrays = []
    for name, s in slices:
        top = int(RANGES[name.removeprefix("context.")] * scale)
        arrays.append(rng.integers(-top, top + 1, s.shape, dtype=np.int32))
    return fit_ref.Context(*arrays)


def synthesis(preset, colours, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = net.split(
        net.initial(net.PRESETS[preset], colours, generator), net.PRESETS[preset], colours
    )
    for value in p.values():
        value += 0.05 * torch.randn(value.shape, generator=generator)
    return fit_ref.Synthesis(*(value.numpy() for name, value in p.items() if "context" not in name))


def grids(height, width, seed=0, top=9):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(-top, top + 1, shape).astype(np.int16)
        for shape in fit_ref.grid_shapes(height, width)
    ]


@pytest.fixture(scope="module")
def tables():
    scales = 2.0 ** (np.arange(fit_ref.SCALES) / 3 - 4)
    rows = [np.exp(-np.abs(np.arange(-20, 21)) / b) for b in scales for _ in range(9)]
    return TableSet.from_pmfs([np.append(row, 0.001) for row in rows], [-20] * len(rows))


def test_distribution_by_hand():
    """One unit of each layer, numbers small enough to follow."""
    shapes = {name: s.shape for name, s in net.layout(net.PRESETS["fast"], 1).items()}
    c = fit_ref.Context(*(np.zeros(s, np.int32) for n, s in shapes.items() if "context" in n))
    c.w1[0, 0] = 8192  # 2 x
    c.b1[3, 0] = 4096  # + 1
    c.w2[1, 0] = 2048  # h1 / 2
    c.b2[1] = -4096  # - 1
    c.w3[0, :2] = 4096  # the sum of both units
    c.w3[1, 1] = 4096
    c.skip[0, 1] = -1024  # - x1 / 4
    c.b3[3] = [512, 5 * 4096]
    x = np.zeros((2, 11), np.int32)
    x[0, :2] = [3, 1]  # h1 = 7; h2 = 7, 2.5; mean 9.5 - 0.25 + 0.125, row 2.5 + 5
    x[1, :2] = [-3, 8]  # h1 = 0; h2 = 0, 0; mean -2 + 0.125, row 5
    mu, row = fit_ref.distribution(c, x, 3)
    assert mu.tolist() == [150, -30] and row.tolist() == [8, 5]


@pytest.mark.parametrize("preset", net.PRESETS)
@pytest.mark.parametrize("size", SIZES)
def test_symbols_and_decoding_are_those_of_the_reference(preset, size, tables):
    model, y = context(preset), grids(*size)
    y[2][:] = 0
    values, index = fit.symbols(model, y, backend="ref")
    stream = rans.encode(tables, values, index)
    coded = [bool(g.any()) for g in y]
    for backend in rans.backends():
        for threads in (1, 3):
            got = fit.symbols(model, y, backend=backend, threads=threads)
            assert np.array_equal(got[0], values) and np.array_equal(got[1], index)
        decoder = rans.Decoder(tables, stream, backend=backend)
        again = fit.decode(model, decoder, *size, coded)
        decoder.finish()
        assert all(np.array_equal(a, b) for a, b in zip(again, y, strict=True))


@pytest.mark.parametrize("scale", [7, 1e9])
def test_sums_that_overflow_wrap_everywhere(scale):
    """Clamped weights of the largest size, latents at their limits."""
    model = context("max", 3, 1.0)
    model = fit_ref.Context(
        *(
            (a * scale).clip(*((-(1 << 23), 1 << 23) if n[0] == "b" else (-32767, 32767)))
            for n, a in zip(model._fields, model, strict=True)
        )
    )
    model = fit_ref.Context(*(a.astype(np.int32) for a in model))
    y = grids(40, 33, 2, top=511)
    expected = fit.symbols(model, y, backend="ref")
    for backend in FAST:
        assert all(
            np.array_equal(*p)
            for p in zip(fit.symbols(model, y, backend=backend), expected, strict=True)
        )


def test_the_integers_are_those_of_training():
    """Means and rows against the floating-point networks with the same weights."""
    preset = net.PRESETS["default"]
    model, y = context("default", 5, 0.3), grids(30, 40, 5, top=3)
    p = {
        f"context.{name}": torch.tensor(a / 4096, dtype=torch.float64)
        for name, a in zip(model._fields, model, strict=True)
    }
    x = net.contexts([torch.tensor(g, dtype=torch.float64) for g in y], 0, preset.taps)
    mu, row = net.context_model(p, x, 0)
    integers = fit_ref.distribution(model, x.numpy().astype(np.int32), 0)
    assert np.abs(integers[0] / 16 - mu.numpy()).max() < 0.07
    assert np.abs(integers[1] - row.numpy()).max() < 0.6


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_reference(colours, size):
    for preset in ("fast", "max"):
        model, y = synthesis(preset, colours, 1), grids(*size, top=5)
        expected = fit.synthesise(model, y, backend="ref")
        for backend in FAST:
            assert np.array_equal(fit.synthesise(model, y, backend=backend), expected)


@pytest.mark.parametrize("colours", [1, 3])
def test_pixels_are_those_of_training(colours):
    preset = net.PRESETS["best"]
    model, y = synthesis("best", colours, 2), grids(50, 70, 3, top=5)
    names = [n for n in net.layout(preset, colours) if "context" not in n]
    p = {n: torch.tensor(a) for n, a in zip(names, model, strict=True)}
    x_hat = net.synthesise(p, net.upsample(p, [torch.tensor(g).float() for g in y]))
    expected = (255 * x_hat + 0.5).clamp(0, 255).floor()
    off = (torch.tensor(fit.synthesise(model, y)).float() - expected).abs()
    assert off.max() <= 1 and off.mean() < 0.01
    assert 20 < expected.std()


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_pixel(threads):
    model, y = synthesis("default", 3), grids(300, 90)
    one = fit.synthesise(model, y)
    assert np.array_equal(fit.synthesise(model, y, threads=threads), one)


def test_infinities_and_nan_are_pixels_too():
    model, y = synthesis("fast", 3), grids(33, 20, top=511)
    huge = fit_ref.Synthesis(*(np.sign(a) * np.float32(1e30) for a in model))
    expected = fit.synthesise(huge, y, backend="ref")
    for backend in FAST:
        assert np.array_equal(fit.synthesise(huge, y, backend=backend), expected)


def test_pixels_whatever_the_thread_has_set():
    """Flushing of subnormal numbers to zero, which torch and others switch on."""
    model, y = synthesis("fast", 1), grids(20, 20)
    tiny = fit_ref.Synthesis(*(a.copy() for a in model))
    tiny.w1[:] *= np.float32(1e-38)
    tiny.b1[:] = 0
    tiny.w2[:] *= np.float32(1e38)
    expected = [fit.synthesise(tiny, y, backend=b) for b in rans.backends()]
    flat = tiny._replace(w2=tiny.w2 * 0)
    assert not np.array_equal(fit.synthesise(flat, y), expected[0])  # these numbers matter
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such switch")
    try:
        flushed = [fit.synthesise(tiny, y, backend=b) for b in FAST]
        assert torch.tensor([1e-40]).mul(1.0).item() == 0  # the switch is as it was
    finally:
        torch.set_flush_denormal(False)
    for one in [*expected, *flushed]:
        assert np.array_equal(one, expected[0])


def test_damaged_streams_are_errors_or_grids(tables):
    model, y = context("default", 2), grids(24, 40)
    values, index = fit.symbols(model, y)
    stream = rans.encode(tables, values, index)
    rng = np.random.default_rng(0)
    for i in range(0, len(stream), len(stream) // 100):
        flipped = bytearray(stream)
        flipped[i] ^= 1 << int(rng.integers(8))
        for data in (stream[:i], bytes(flipped)):
            backends = rans.backends()[i % 9 > 0 :]  # the reference takes its time
            found = [outcome(model, tables, data, backend) for backend in backends]
            assert all(one == found[0] for one in found), i


def outcome(model, tables, data, backend):
    try:
        decoder = rans.Decoder(tables, data, backend=backend)
        result = fit.decode(model, decoder, 24, 40, [True] * 7)
        decoder.finish()
    except BitstreamError:
        return "damaged"
    return [g.tolist() for g in result]


def test_wrong_arguments():
    model, y = context("fast"), grids(8, 8)
    with pytest.raises(ValueError, match="outside"):
        fit.symbols(model, [y[0] * 512, *y[1:]])
    with pytest.raises(ValueError, match="expected int16"):
        fit.symbols(model, [y[0], y[1][:, :3], *y[2:]])
    with pytest.raises(ValueError, match="w1 has values outside"):
        fit.symbols(model._replace(w1=model.w1 + 40000), y)
    with pytest.raises(ValueError, match="backend is"):
        fit.synthesise(synthesis("fast", 1), y, backend="z80")
