"""Damaged streams for every decoder: `scripts/fuzz.py` in the size of a test."""

import pytest

from latentpack.kernels import rans
from latentpack.scripts import fuzz

COUNT = 10_000


@pytest.mark.skipif(len(rans.backends()) == 1, reason="the compiled kernels are missing")
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damage_is_an_error_or_symbols(target):
    rejected, decoded = fuzz.fuzz(target, COUNT, seed=1)
    assert rejected + decoded == COUNT
    assert rejected > COUNT / 2  # else the mutations miss what they are for
    assert decoded > 0  # a decoder that rejects everything would pass, too
