"""Motion fields as bytes: exactly those of the definition, and any bytes are some field."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.kernels import motion, motion_ref, rans
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.motion import Field
from latentpack.kernels.motion_coder_ref import Grid, Motion

BACKENDS = rans.backends()


def field_of(seed, h, w, two, reach, run):
    """Squares of `run` blocks with vectors of their own."""
    rng = np.random.default_rng(seed)

    def spread(values):
        return values.repeat(run, -3).repeat(run, -2)[..., :h, :w, :].copy()

    small = (-(-h // run), -(-w // run))
    v = spread(rng.integers(-reach, reach + 1, (2, *small, 2)).astype(np.int16))
    mode = spread(rng.integers(0, 3, (*small, 1)).astype(np.uint8))[..., 0]
    if not two:
        return Field(v[0].copy())
    v[0][mode == motion_ref.SECOND] = 0
    v[1][mode == motion_ref.FIRST] = 0
    return Field(v, mode)


def same(a, b):
    return np.array_equal(a.vectors, b.vectors) and (
        (a.mode is None and b.mode is None) or np.array_equal(a.mode, b.mode)
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([(1, 1), (1, 9), (5, 7), (8, 8), (9, 17)]),
    st.booleans(),
    st.sampled_from([0, 2, 40, 32767]),
    st.sampled_from([1, 3, 8]),
    st.sampled_from(["none", "other", "same"]),
)
def test_round_trip_and_same_bytes(seed, size, two, reach, run, temporal):
    field = field_of(seed, *size, two, reach, run)
    before = {"none": None, "same": field, "other": field_of(seed + 1, *size, two, reach, 2)}[
        temporal
    ]
    data = motion.encode(field, before, backend="ref")
    height, width = 8 * size[0] - 3, 8 * size[1]
    for backend in BACKENDS:
        assert motion.encode(field, before, backend=backend) == data
        decoded = motion.decode(data, height, width, two=two, before=before, backend=backend)
        assert same(decoded, field)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_any_bytes_are_the_same_field_everywhere(data, two, temporal):
    before = field_of(1, 6, 11, two, 50, 2) if temporal else None
    found = []
    for backend in ("ref", BACKENDS[-1]):
        try:
            found.append(motion.decode(data, 48, 88, two=two, before=before, backend=backend))
        except BitstreamError as error:
            found.append(str(error))
    assert found[0] == found[1] if isinstance(found[0], str) else same(*found)
    if not isinstance(found[0], str) and two:
        assert found[0].mode.max() <= motion_ref.MEAN


def test_nothing_takes_one_byte():
    still = Field(np.zeros((135, 240, 2), np.int16))
    assert len(motion.encode(still)) <= 1
    pan = Field(np.tile(np.int16([-3, 14]), (135, 240, 1)))
    assert len(motion.encode(pan)) <= 4
    two = Field(np.zeros((2, 45, 80, 2), np.int16), np.full((45, 80), motion_ref.MEAN, np.uint8))
    assert len(motion.encode(two)) <= 1


def test_what_was_before_helps():
    field = field_of(3, 40, 60, False, 60, 4)
    assert len(motion.encode(field, field)) < len(motion.encode(field)) / 8


def test_vectors_that_are_not_used_do_not_matter():
    field = field_of(4, 8, 8, True, 30, 2)
    junk = field.vectors.copy()
    junk[0][field.mode == motion_ref.SECOND] = 77
    junk[1][field.mode == motion_ref.FIRST] = -5
    assert motion.encode(field._replace(vectors=junk)) == motion.encode(field)


def test_choices_and_prediction_by_hand():
    grid = Grid(4, 4, False, None)
    m = {v: Motion(0, (v, 10 * v), (0, 0)) for v in range(1, 5)}
    grid.fill(0, 0, 2, 1, m[1], False)
    grid.fill(0, 2, 1, 0, m[2], False)
    grid.fill(0, 3, 1, 0, m[3], False)
    grid.fill(1, 2, 1, 0, m[3], False)
    # The block at (1, 3): left m3, above m3, nothing to the right or below, above left m2, zero.
    assert [(c.motion.first[0], c.votes, c.source) for c in grid.choices(1, 3, 1)] == [
        (3, 2, 0), (2, 1, 5), (0, 1, 6),
    ]  # fmt: skip
    assert grid.predicted(1, 3, 1, 0) == (3, 30)
    grid.fill(1, 3, 1, 0, m[4], True)
    grid.fill(2, 0, 2, 1, m[4], True)
    # The leaf at (2, 2): left m4, above m4; above to the right is outside; above left m1.
    assert grid.choices(2, 2, 2)[0] == (m[4], 2, 0)
    assert grid.spread(2, 2, 2, 0) == 0
    assert grid.predicted(2, 2, 2, 0) == (4, 40)


def test_wrong_arguments():
    field = field_of(5, 3, 4, False, 9, 1)
    two = field_of(5, 3, 4, True, 9, 1)
    data = motion.encode(field)
    bad = [
        lambda: motion.encode(Field(field.vectors[0])),
        lambda: motion.encode(Field(field.vectors.astype(np.int32))),
        lambda: motion.encode(Field(field.vectors[:0])),
        lambda: motion.encode(field, two),
        lambda: motion.encode(field, Field(field.vectors[:2])),
        lambda: motion.decode(data, 0, 32),
        lambda: motion.decode(data, 24, 1 << 20),
        lambda: motion.decode(data, 24, 32, before=two),
        lambda: motion.decode(data + bytes(9), 24, 32),
    ]
    for call in bad:
        with pytest.raises(ValueError):
            call()
    with pytest.raises(BitstreamError, match="there are"):
        motion.decode(data + bytes(9), 24, 32)
