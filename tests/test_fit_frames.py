"""The decoder of video/fit's frames: all backends against the reference, that against training."""

import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_networks as still
from latentpack.codecs.video import fit_networks as networks
from latentpack.codecs.video.fit_networks import Shape
from latentpack.entropy.tables import TableSet
from latentpack.kernels import fit, fit_passes_ref, fit_ref, rans
from latentpack.kernels.errors import BitstreamError

FAST = rans.backends()[1:]
RANGES = {"w1": 4000, "b1": 9000, "w2": 3000, "b2": 5000, "w3": 3000, "skip": 1500, "b3": 30000}
CONTEXT = len(fit_ref.Context._fields)


def context(shape, seed=0):
    rng = np.random.default_rng(seed)
    slices = list(networks.layout(shape).items())[:CONTEXT]
    tops = [RANGES[name.removeprefix("context.")] for name, _ in slices]
    return fit_ref.Context(
        *(
            rng.integers(-top, top + 1, s.shape, dtype=np.int32)
            for top, (_, s) in zip(tops, slices, strict=True)
        )
    )


def parameters(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = networks.initial(shape, generator)
    params += 0.05 * torch.randn(len(params), generator=generator)
    return networks.split(params, shape)


def synthesis(shape, seed=0):
    arrays = [value.numpy() for value in parameters(shape, seed).values()]
    return fit_ref.Synthesis(*arrays[CONTEXT:])


def even(colours, height, width):
    return (height + height % 2, width + width % 2) if colours == 3 else (height, width)


def pyramid(size, seed=0, top=5, zeros=()):
    rng = np.random.default_rng(seed)
    grids = [
        rng.integers(-top, top + 1, shape).astype(np.int16) for shape in fit_ref.grid_shapes(*size)
    ]
    return [np.zeros_like(g) if k in zeros else g for k, g in enumerate(grids)]


def planes(colours, height, width, seed=0):
    rng = np.random.default_rng(seed)
    half = (-(-height // 2), -(-width // 2))
    sizes = [(height, width), half, half][:colours]
    return [rng.integers(0, 1 << 14, s).astype(np.int16) for s in sizes]


@pytest.fixture(scope="module")
def tables():
    scales = 2.0 ** (np.arange(fit_ref.SCALES) / 3 - 4)
    rows = [np.exp(-np.abs(np.arange(-20, 21)) / b) for b in scales for _ in range(9)]
    return TableSet.from_pmfs([np.append(row, 0.001) for row in rows], [-20] * len(rows))


@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize("hidden", [8, 32])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 6), (3, 65), (34, 50), (65, 130)])
def test_symbols_and_decoding_are_those_of_the_reference(predicted, hidden, size, tables):
    model = context(Shape(hidden, 8, 3, predicted))
    y, other = pyramid(size, zeros=(2,)), pyramid(size, 1, zeros=(3,)) if predicted else ()
    values, index = fit.frame_symbols(model, y, other, backend="ref")
    stream = rans.encode(tables, values, index)
    coded = [bool(g.any()) for g in y]
    for backend in rans.backends():
        for threads in (1, 3):
            got = fit.frame_symbols(model, y, other, backend=backend, threads=threads)
            assert np.array_equal(got[0], values) and np.array_equal(got[1], index)
        decoder = rans.Decoder(tables, stream, backend=backend)
        again = fit.frame_decode(model, decoder, *size, coded, other)
        decoder.finish()
        assert all(np.array_equal(a, b) for a, b in zip(again, y, strict=True))


def test_nothing_coded_takes_no_symbols(tables):
    model, zeros = context(Shape(8, 8, 3, True)), pyramid((9, 7), top=0)
    for backend in rans.backends():
        values, index = fit.frame_symbols(model, zeros, pyramid((9, 7)), backend=backend)
        assert len(values) == len(index) == 0
        decoder = rans.Decoder(tables, rans.encode(tables, values, index), backend=backend)
        again = fit.frame_decode(model, decoder, 9, 7, [False] * 7, pyramid((9, 7)))
        decoder.finish()
        assert not any(g.any() for g in again)


def test_sums_that_overflow_wrap_everywhere():
    shape = Shape(32, 8, 1, True)
    tops = [(1 << 23) if name[0] == "b" else 32767 for name in fit_ref.Context._fields]
    model = context(shape, 3)
    model = fit_ref.Context(
        *(np.sign(a) * np.int32(top) for a, top in zip(model, tops, strict=True))
    )
    y, other = pyramid((40, 33), 2, top=511), pyramid((40, 33), 3, top=511)
    expected = fit.frame_symbols(model, y, other, backend="ref")
    for backend in FAST:
        got = fit.frame_symbols(model, y, other, backend=backend)
        assert all(np.array_equal(*pair) for pair in zip(got, expected, strict=True))


def test_positions_of_a_pass_do_not_see_each_other():
    """A change in a pass changes no row of a table of that pass or an earlier one."""
    model, y = context(Shape(8, 8, 1, False)), pyramid((16, 16), zeros=(1, 2, 3, 4, 5, 6))
    _, before = fit.frame_symbols(model, y)
    for number, (row, column) in enumerate(fit_passes_ref.PASSES):
        other = [g.copy() for g in y]
        other[0][row::2, column::2] += 3
        _, after = fit.frame_symbols(model, other)
        same = (before == after).reshape(4, 64).all(1)
        assert same[: number + 1].all() and not same[number + 1 :].any()


def test_the_integers_are_those_of_training():
    """Bits by the integer model's rows and means against the networks with the same weights."""
    shape = Shape(8, 8, 1, True)
    model, y, other = context(shape, 5), pyramid((30, 44), 5), pyramid((30, 44), 6)
    model = fit_ref.Context(*(a // 4 for a in model))
    model.skip[0, -5:] = 2000, -1500, 1000, 800, -700
    p = {
        f"context.{name}": torch.tensor(a / 4096, dtype=torch.float64)
        for name, a in zip(model._fields, model, strict=True)
    }
    doubles = [[torch.tensor(g).double() for g in grids] for grids in (y, other)]
    bits = networks.rate_bits(p, doubles[0], shape, doubles[1], 0)
    values, index = fit.frame_symbols(model, y, other)
    means, rows = torch.tensor(index % 9) / 16.0, torch.tensor(index // 9).double()
    ours = still.laplace_bits(torch.tensor(values).double(), means, rows).sum()
    assert abs(float(ours / bits) - 1) < 0.05
    none = [torch.zeros_like(g) for g in doubles[1]]
    assert abs(float(bits / networks.rate_bits(p, doubles[0], shape, none, 0)) - 1) > 0.1


@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(
    ("size", "bits", "zeros"),
    [
        ((1, 1), 8, ()),
        ((2, 2), 10, (0,)),
        ((17, 33), 8, (0, 1, 4)),
        ((64, 48), 10, ()),
        ((7, 129), 12, (0, 1, 2, 3, 4, 5, 6)),
        ((65, 3), 14, (0, 6)),
    ],
)
def test_frames_are_those_of_the_reference(predicted, colours, size, bits, zeros):
    model = synthesis(Shape(8, 9, colours, predicted), 1)
    grids = pyramid(even(colours, *size), zeros=zeros)
    ahead = planes(colours, *size) if predicted else ()
    expected = fit.synthesise_frame(model, grids, *size, bits, ahead, backend="ref")
    for backend in FAST:
        for threads in (1, 3):
            got = fit.synthesise_frame(
                model, grids, *size, bits, ahead, backend=backend, threads=threads
            )
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("colours", [1, 3])
def test_frames_are_those_of_training(colours):
    shape = Shape(8, 12, colours, True)
    grids, ahead = pyramid((50, 70), 3), planes(colours, 50, 70)
    unit = 1 / (1023 << 4)
    wholes = networks.full_size([torch.tensor(p).float() * unit for p in ahead])
    p = parameters(shape, 2)
    x_hat = networks.synthesise(p, [torch.tensor(g).float() for g in grids], wholes)
    wanted = [x_hat[0], *(x.view(25, 2, 35, 2).mean((1, 3)) for x in x_hat[1:])]
    got = fit.synthesise_frame(synthesis(shape, 2), grids, 50, 70, 10, ahead)
    for plane, x in zip(got, wanted, strict=True):
        off = (torch.tensor(plane).float() - (1023 * x + 0.5).clamp(0, 1023).floor()).abs()
        assert off.max() <= 1 and off.mean() < 0.01
        assert 100 < plane.std()


@pytest.mark.parametrize("bits", [8, 10])
def test_a_prediction_begins_as_what_is_shown(bits):
    shape = Shape(8, 8, 3, True)
    params = networks.split(networks.initial(shape), shape)
    model = fit_ref.Synthesis(*[v.numpy() for v in params.values()][CONTEXT:])
    ahead = [p >> (14 - bits) << (14 - bits) for p in planes(3, 21, 33)]
    got = fit.synthesise_frame(model, pyramid((22, 34), top=0), 21, 33, bits, ahead)
    for a, b in zip(got, ahead, strict=True):
        assert np.array_equal(a, b >> (14 - bits))


def test_infinities_and_nan_are_samples_too():
    model = synthesis(Shape(8, 8, 3, True))
    huge = fit_ref.Synthesis(*(np.sign(a) * np.float32(1e30) for a in model))
    grids, ahead = pyramid((34, 20), top=511), planes(3, 33, 20)
    expected = fit.synthesise_frame(huge, grids, 33, 20, 10, ahead, backend="ref")
    for backend in FAST:
        got = fit.synthesise_frame(huge, grids, 33, 20, 10, ahead, backend=backend)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_damaged_streams_are_errors_or_grids(tables):
    model, y, other = context(Shape(8, 8, 1, True), 2), pyramid((12, 20)), pyramid((12, 20), 1)
    stream = rans.encode(tables, *fit.frame_symbols(model, y, other))
    rng = np.random.default_rng(0)
    for i in range(0, len(stream), len(stream) // 12):
        flipped = bytearray(stream)
        flipped[i] ^= 1 << int(rng.integers(8))
        for data in (stream[:i], bytes(flipped)):
            backends = rans.backends()[i % 9 > 0 :]  # the reference takes its time
            found = [outcome(model, tables, data, other, backend) for backend in backends]
            assert all(one == found[0] for one in found), i


def outcome(model, tables, data, other, backend):
    try:
        decoder = rans.Decoder(tables, data, backend=backend)
        result = fit.frame_decode(model, decoder, 12, 20, [True] * 7, other)
        decoder.finish()
    except BitstreamError:
        return "damaged"
    return [g.tolist() for g in result]


def test_wrong_arguments():
    shape = Shape(8, 8, 3, True)
    model, net, y = context(shape), synthesis(shape), pyramid((8, 12))
    ahead = planes(3, 8, 12)
    with pytest.raises(ValueError, match="reference's grids are of a picture"):
        fit.frame_symbols(model, y, pyramid((8, 10)))
    with pytest.raises(ValueError, match="21 inputs is not one of frames without"):
        fit.frame_symbols(model, y)
    with pytest.raises(ValueError, match=r"w1 is float32 \(8, 10\), expected"):
        fit.synthesise_frame(net, y, 8, 12, 8)
    with pytest.raises(ValueError, match="prediction of 1 planes, expected 3"):
        fit.synthesise_frame(net, y, 8, 12, 8, ahead[:1])
    with pytest.raises(ValueError, match="a prediction is int16"):
        fit.synthesise_frame(net, y, 8, 12, 8, [ahead[0], ahead[0], ahead[2]])
    with pytest.raises(ValueError, match="expected 8 to 14"):
        fit.synthesise_frame(net, y, 8, 12, 15, ahead)
    with pytest.raises(ValueError, match="grids are of a picture"):
        fit.synthesise_frame(net, y, 6, 12, 8, planes(3, 6, 12))
