"""The kernel of the code prior: every backend gives exactly what the reference gives."""

import copy
import threading

import numpy as np
import pytest

from latentpack.kernels import codes, codes_ref, rans
from latentpack.kernels.codes import Dense, Model, Network
from latentpack.kernels.errors import BitstreamError

COMPILED = [name for name in rans.backends() if name != "ref"]


def network(sizes=(16, 64, 2), widths=(16, 32, 16, 48), past=2, seed=0, extreme=False):
    """Random weights; `extreme` ones make sums wrap and frequencies span all octaves."""
    rng = np.random.default_rng(seed)
    dim, context, hidden, features = widths

    def int8(*shape):
        if extreme:
            return rng.choice(np.array([-127, 127], np.int8), shape)
        return rng.normal(0, 40, shape).clip(-127, 127).astype(np.int8)

    def dense(count, inputs, outputs):
        most = 2**31 - 1 if extreme else 2000
        bias = rng.integers(-most, most, (count, outputs))
        multiplier = rng.integers(1 << 14, (1 << 15) + 1, (count, outputs))
        shift = (
            rng.choice([1, 15, 40], (count, outputs)) if extreme else np.full((count, outputs), 21)
        )
        parts = [int8(count, outputs, inputs), bias, multiplier, shift]
        return Dense(parts[0], *(part.astype(np.int32) for part in parts[1:]))

    total = sum(sizes)
    model = Model(
        sizes,
        int8(total, dim),
        dense(1, dim, context),
        dense(past, 2 * context, context),
        dense(len(sizes), context + dim, hidden),
        dense(len(sizes), context + dim + hidden, features),
        int8(total, features),
        rng.integers(-(2**31) if extreme else -4000, 4000, total).astype(np.int32),
    )
    return Network(model)


def drawn(model, k, count, seed=1):
    """Codes int64 [k, count] at random."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, count) for size in model.sizes[:k]])


CASES = {
    "no frames": (network(), 3, 0),
    "one frame": (network(), 3, 1),
    "one codebook": (network(), 1, 13),
    "no past": (network(past=0), 2, 5),
    "more frames than the past": (network(past=3), 3, 21),
    "large codebooks": (network((1024, 4096), (64, 16, 16, 64)), 2, 3),
    "extremes": (network((4, 256, 8), seed=2, extreme=True), 3, 17),
    "other extremes": (network((32, 32), (32, 16, 32, 16), seed=3, extreme=True), 2, 17),
}


@pytest.mark.parametrize("name", CASES)
def test_every_backend_equals_the_reference(name):
    net, k, count = CASES[name]
    given = drawn(net.model, k, count)
    data = net.encode(given, backend="ref")
    for backend in rans.backends():
        assert net.encode(given, backend=backend) == data
        assert np.array_equal(net.decode(data, k, count, backend=backend), given)


def test_no_frames_are_one_byte():
    net = network()
    assert net.encode(drawn(net.model, 3, 0)) == b"\1"
    assert net.decode(b"\1", 2, 0).shape == (2, 0)
    for wrong in (b"", b"\0", b"\2", b"\1\0"):
        with pytest.raises(BitstreamError, match="end elsewhere"):
            net.decode(wrong, 2, 0)


def test_a_step_by_hand():
    """One codebook of two codes: what the second frame sees of the first."""
    one = Dense(
        np.zeros((1, 16, 16), np.int8),
        *(np.full((1, 16), n, np.int32) for n in (0, 1 << 14, 14)),
    )
    one.weight[0, 3, 5] = 2
    model = Model(
        (2,),
        np.zeros((2, 16), np.int8),
        one,
        Dense(np.zeros((0, 16, 32), np.int8), *[np.zeros((0, 16), np.int32)] * 3),
        Dense(np.zeros((1, 16, 32), np.int8), *one[1:]),
        Dense(np.zeros((1, 16, 48), np.int8), *one[1:]),
        np.zeros((2, 16), np.int8),
        np.array([0, 64], np.int32),
    )
    model.embedding[1, 5] = 20
    model.features.weight[0, 0, 3] = -1  # the context
    model.weight[0, 0] = -8
    frames = codes_ref._Frames(model)
    frames.begin()
    # Logits 0 and (64 + 64) >> 7 = 1: 1/32 of an octave.
    assert frames.frequencies(0).tolist() == [513054 | 1, 524288 | 1]
    frames.put(0, 1)
    frames.begin()
    assert frames.context[3] == 40
    # The feature is -40, the logits (320 + 64) >> 7 = 3 and 1.
    assert frames.frequencies(0).tolist() == [524289, 502060 | 1]


def counted(*shape):
    """Numbers without a pattern, the same for ever."""
    numbers = np.arange(np.prod(shape), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((numbers >> np.uint64(40)) % np.uint64(91)).astype(np.int64).reshape(shape) - 45


def test_bytes_of_today():
    """Streams stand in files: another result here needs another codec."""

    def dense(count, inputs, outputs):
        weight = counted(count, outputs, inputs).astype(np.int8)
        parts = (counted(count, outputs) * 90, np.full((count, outputs), 1 << 15))
        parts += (np.full((count, outputs), 22),)
        return Dense(weight, *(part.astype(np.int32) for part in parts))

    model = Model(
        (64, 16, 256),
        counted(336, 16).astype(np.int8),
        dense(1, 16, 32),
        dense(2, 64, 32),
        dense(3, 48, 16),
        dense(3, 64, 32),
        counted(336, 32).astype(np.int8),
        (counted(336) * 40).astype(np.int32),
    )
    given = np.stack([counted(9) % size for size in model.sizes])
    data = Network(model).encode(given)
    assert data.hex() == "c2d617573d3b589b11fcc3951db9af74bbfa2e21ff532b6e844415678880bd0e394c"


def test_probable_codes_are_short():
    net = network((1024, 1024), (16, 16, 16, 16))
    net.model.weight[:] = 0
    net.model.bias[:] = 0
    net.model.bias[[7, 1024 + 9]] = 12 * 32 << 7  # 12 octaves more than all others
    given = np.tile(np.array([[7], [9]]), 400)
    assert len(net.encode(given)) < 800 * 0.5 / 8
    other = drawn(net.model, 2, 400)
    assert len(net.encode(other)) > 800 * 11 / 8


@pytest.mark.parametrize("backend", rans.backends())
def test_damage_is_noticed_and_harms_nothing(backend):
    net = network()
    rng = np.random.default_rng(4)
    given = drawn(net.model, 3, 12)
    data = net.encode(given)
    noticed, tries = 0, 40
    for _ in range(tries):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            found = net.decode(bytes(damaged), 3, 12, backend=backend)
            assert ((found >= 0) & (found < np.array(net.model.sizes)[:, None])).all()
        except BitstreamError:
            noticed += 1
    assert noticed > 0.9 * tries
    for wrong in (data + b"\0", data + b"\1", b"", rng.bytes(400)):
        with pytest.raises(BitstreamError, match="end elsewhere"):
            net.decode(wrong, 3, 12, backend=backend)


def test_backends_agree_on_damage():
    net = network(seed=5)
    rng = np.random.default_rng(6)

    def read(data, backend):
        try:
            return net.decode(data, 3, 6, backend=backend).tolist()
        except BitstreamError:
            return None

    for size in range(20):
        data = rng.bytes(size)
        assert len({str(read(data, backend)) for backend in rans.backends()}) == 1


def test_threads_share_a_network():
    net = network()
    given = [drawn(net.model, 3, 40, seed) for seed in range(8)]
    expected = [net.encode(part) for part in given]
    shared, found = copy.deepcopy(net), {}

    def work(i):
        found[i] = shared.decode(shared.encode(given[i]), 3, 40)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], given[i]) for i in range(8))
    assert [shared.encode(part) for part in given] == expected


def test_wrong_arguments():
    net = network()
    given = drawn(net.model, 3, 4)
    with pytest.raises(ValueError, match="expected int64"):
        net.encode(given.astype(np.int32))
    with pytest.raises(ValueError, match="4 codebooks, expected 1 to 3"):
        net.encode(np.zeros((4, 1), np.int64))
    for wrong in (-1, 16):
        given[0, 2] = wrong
        with pytest.raises(ValueError, match="outside their codebooks"):
            net.encode(given)
    with pytest.raises(ValueError, match="0 codebooks"):
        net.decode(b"", 0, 1)
    with pytest.raises(ValueError, match="count is -1"):
        net.decode(b"", 1, -1)
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        net.encode(given, backend="gpu")


def test_wrong_models():
    good = network().model
    bad = {
        "power of two": {"sizes": (16, 66)},
        "expected 1 to 64": {"sizes": ()},
        "embedding is int8": {"embedding": good.embedding[1:]},
        "bias is int64": {"bias": good.bias.astype(np.int64)},
        "past.weight": {"past": good.first},
        "first.shift has": {"first": good.first._replace(shift=good.first.shift * 0)},
        "hidden.multiplier": {"hidden": good.hidden._replace(multiplier=-good.hidden.multiplier)},
        "multiple of 16": {"embedding": good.embedding[:, :8]},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):
            Network(good._replace(**change))
    assert codes.UNITS == 16
