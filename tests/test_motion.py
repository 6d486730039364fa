"""Motion of blocks: every backend gives exactly what the definition gives; fields are worth it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.kernels import motion, motion_ref, rans
from latentpack.kernels.motion import Field

FAST = rans.backends()[1:]
SIZES = [(1, 1), (7, 9), (8, 8), (1, 70), (33, 71), (64, 200), (131, 17)]


def random_field(rng, height, width, references, reach, run=1):
    h, w = motion.blocks(height, width)
    v = rng.integers(-reach, reach + 1, (2, h, w, 2)).astype(np.int16)
    v = v[:, :, ::run].repeat(run, 2)[:, :, :w].copy()
    mode = rng.integers(0, 3, (h, w)).astype(np.uint8)
    return Field(v, mode) if references == 2 else Field(v[0].copy())


def pictures(rng, height, width, count, dtype=np.uint8, bits=8):
    shapes = [(height, width), *2 * [(-(-height // 2), -(-width // 2))]]
    return [[rng.integers(0, 1 << bits, s).astype(dtype) for s in shapes] for _ in range(count)]


def smooth(rng, height, width, samples=8):
    """A picture of soft blobs, uint8."""
    y, x = np.mgrid[:height, :width] / 16.0
    total = np.zeros((height, width))
    for _ in range(12):
        fy, fx, phase = rng.uniform(-2, 2, 3)
        total += np.sin(fy * y + fx * x + 3 * phase)
    return (128 + 28 * total).clip(0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(SIZES),
    st.sampled_from([(np.uint8, 8), (np.int16, 8), (np.int16, 10), (np.int16, 14)]),
    st.integers(1, 2),
    st.sampled_from([0, 12, 90, 32767]),
    st.sampled_from([1, 4, 30]),
    st.integers(0, 1 << 32),
)
def test_warp_equals_the_definition(size, kind, references, reach, run, seed):
    rng = np.random.default_rng(seed)
    field = random_field(rng, *size, references, reach, run)
    refs = pictures(rng, *size, references, *kind)
    expected = motion_ref.warp(refs, field, kind[1])
    for backend in FAST:
        for plane, wanted in zip(
            motion.warp(refs, field, kind[1], backend=backend), expected, strict=True
        ):
            assert plane.dtype == np.int16 and np.array_equal(plane, wanted)


@pytest.mark.parametrize("scale", [1, 2, 8])
@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_warp_of_floats_equals_the_definition(size, references, scale):
    rng = np.random.default_rng(scale)
    field = random_field(rng, *size, references, 100, 3)
    shape = (3, -(-size[0] // scale), -(-size[1] // scale))
    refs = [rng.standard_normal(shape).astype(np.float32) for _ in range(references)]
    expected = motion_ref.warp_float(refs, field, scale)
    for backend in FAST:
        assert np.allclose(
            motion.warp_float(refs, field, scale, backend=backend), expected, rtol=0, atol=1e-6
        )


def test_whole_samples_are_copied():
    """By hand: a vector of (-4, 8) takes the sample one row above and two columns to the right."""
    ref = np.arange(24 * 32, dtype=np.int16).reshape(24, 32)
    field = Field(np.tile(np.int16([-4, 8]), (3, 4, 1)))
    (p,) = motion.warp([[ref]], field, 10)
    assert np.array_equal(p[1:, :30], ref[:-1, 2:] << 4)
    assert np.array_equal(p[0, :30], ref[0, 2:] << 4)
    assert (p[5, 30:] == ref[4, 31] << 4).all()


def test_taps_sum_to_one_and_mirror():
    for taps in motion_ref.TAPS.values():
        assert (taps.sum(1) == 64).all()
        assert np.array_equal(taps[1:], taps[1:][::-1, ::-1])


def test_extremes_are_clamped():
    """A pattern of black and white that overshoots most."""
    ref = np.where((np.arange(64)[:, None] + np.arange(64)) % 3 < 2, 255, 0).astype(np.uint8)
    ref = np.kron(ref, np.ones((2, 1))).astype(np.uint8)
    field = Field(np.tile(np.int16([2, 2]), (16, 8, 1)))
    expected = motion_ref.warp([[ref]], field)[0]
    assert expected.min() == 0 and expected.max() == (1 << 14) - 1
    for backend in FAST:
        assert np.array_equal(motion.warp([[ref]], field, backend=backend)[0], expected)


@pytest.mark.parametrize("effort", range(motion.EFFORTS))
def test_search_finds_a_shift(effort):
    rng = np.random.default_rng(3)
    whole = smooth(rng, 220, 260)
    current, ref = whole[30:190, 40:230].copy(), whole[41:201, 19:209].copy()  # by (-11, 21)
    field = motion.search(current, [ref], 0.02, effort=effort)
    inner = field.vectors[3:-3, 4:-4].reshape(-1, 2)
    assert (inner == (-44, 84)).all(1).mean() > 0.95


def test_search_prefers_the_mean_of_noisy_pictures():
    rng = np.random.default_rng(4)
    clean = smooth(rng, 96, 128).astype(float)
    noisy = [(clean + rng.normal(0, 6, clean.shape)).clip(0, 255).astype(np.uint8) for _ in "abc"]
    field = motion.search(noisy[0], noisy[1:], 0.01)
    assert (field.mode == motion_ref.MEAN).mean() > 0.8


def test_search_of_nothing_new_is_zero():
    rng = np.random.default_rng(5)
    still = smooth(rng, 70, 90)
    assert not motion.search(still, [still], 0.02).vectors.any()
    flat = np.full((40, 40), 7, np.uint8)
    assert not motion.search(flat, [flat + np.uint8(3)], 0.02).vectors.any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("references", [1, 2])
def test_search_is_the_same_everywhere(size, references):
    rng = np.random.default_rng(6)
    current, *refs = (smooth(rng, *size) for _ in range(references + 1))
    before = motion.search(current, refs, 0.02, effort=0)
    fields = [
        motion.search(current, refs, 0.02, effort=2, before=before, backend=backend)
        for backend in FAST
    ]
    for field in fields[1:]:
        assert np.array_equal(field.vectors, fields[0].vectors)
        assert references == 1 or np.array_equal(field.mode, fields[0].mode)


def test_cheaper_fields_for_less():
    """A larger price of bits gives fewer different vectors, and a worse prediction."""
    rng = np.random.default_rng(7)
    ref = smooth(rng, 128, 128)
    y, x = np.mgrid[:128, :128]
    rows = (y + 3 * np.sin(x / 20)).round().astype(int).clip(0, 127)
    current = ref[rows, x]
    quality, different = [], []
    for lmbda in (1.0, 0.01, 0.0001):
        field = motion.search(current, [ref], lmbda)
        quality.append(psnr(motion.warp([[ref]], field)[0] / 64, current))
        different.append(len(np.unique(field.vectors.reshape(-1, 2), axis=0)))
    assert quality[0] > quality[1] > quality[2] and different[0] > different[2]


def test_deep_pictures():
    rng = np.random.default_rng(8)
    whole = smooth(rng, 80, 100)
    deep = whole.astype(np.int16) << 2
    a = motion.search(whole[8:72, 8:90], [whole[5:69, 6:88]], 0.02)
    b = motion.search(deep[8:72, 8:90], [deep[5:69, 6:88]], 0.02, bits=10)
    assert np.array_equal(a.vectors, b.vectors)


def test_wrong_arguments():
    y = np.zeros((16, 16), np.uint8)
    one = Field(np.zeros((2, 2, 2), np.int16))
    two = Field(np.zeros((2, 2, 2, 2), np.int16), np.zeros((2, 2), np.uint8))
    bad = [
        lambda: motion.warp([[y]], two),
        lambda: motion.warp([[y], [y]], one),
        lambda: motion.warp([[y]], Field(np.zeros((2, 3, 2), np.int16))),
        lambda: motion.warp([[y]], Field(np.zeros((2, 2, 2), np.int32))),
        lambda: motion.warp([[y], [y]], two._replace(mode=np.full((2, 2), 3, np.uint8))),
        lambda: motion.warp([[y]], one, 10),
        lambda: motion.warp([[y, y]], one),
        lambda: motion.warp([[y.astype(np.int16) + 1024]], one, 10),
        lambda: motion.warp([[y.astype(np.float32)]], one),
        lambda: motion.warp([[]], one),
        lambda: motion.warp([[y.T[::2]]], one),
        lambda: motion.warp_float([y[None].astype(np.float32)], one, 4),
        lambda: motion.warp_float([y[None]], one),
        lambda: motion.search(y, [y], 0.0),
        lambda: motion.search(y, [], 1.0),
        lambda: motion.search(y, [y], 1.0, effort=9),
        lambda: motion.search(y, [y[:8]], 1.0),
        lambda: motion.search(y, [y], 1.0, before=two),
    ]
    for call in bad:
        with pytest.raises(ValueError):
            call()
