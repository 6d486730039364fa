import pytest

from latentpack.codecs.rate_control import find_position


@pytest.mark.parametrize("target", [-5, 0, 3, 448.4, 448.6, 5000])
def test_nearest(target):
    expected = min(range(0, 101), key=lambda p: abs(9 * p - target))
    assert find_position(lambda p: 9.0 * p, 100, target) == expected


def test_ceiling():
    assert find_position(lambda p: 9.0 * p, 100, 98.9, ceiling=True) == 10
    assert find_position(lambda p: 9.0 * p + 1, 100, 0.5, ceiling=True) is None


def test_few_calls():
    calls = []
    find_position(lambda p: calls.append(p) or float(p), 448, 100.0)
    assert len(calls) <= 11
