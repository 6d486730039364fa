"""SOAP on small matrices."""

import numpy as np

from latentpack.codecs.image.fit_soap import Soap


def test_a_rotated_valley_is_no_harder_than_a_straight_one():
    rng = np.random.default_rng(1)
    left = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    right = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    stiff = np.logspace(0, 4, 24).reshape(6, 4)
    goal = rng.normal(size=(6, 4))

    def run(turned):
        a, b = (left, right) if turned else (np.eye(6), np.eye(4))
        x = np.zeros(30, np.float32)
        soap = Soap([(slice(3, 27), (6, 4))])
        for i in range(400):
            off = a.T @ (x[3:27].reshape(6, 4) - goal) @ b
            grads = np.zeros(30, np.float32)
            grads[3:27] = (a @ (stiff * off) @ b.T).reshape(-1)
            soap.step(i + 1, 0.05 * (1 - i / 400), grads, x)
        assert (x[:3] == 0).all() and (x[27:] == 0).all()
        return np.abs(x[3:27].reshape(6, 4) - goal).max()

    assert run(False) < 0.05
    assert run(True) < 0.05


def test_arrays_are_all_that_is_kept():
    grads = np.random.default_rng(2).normal(size=(30, 12)).astype(np.float32)
    part = [(slice(0, 12), (3, 2, 2))]
    whole, x = Soap(part), np.zeros(12, np.float32)
    for i in range(30):
        if i == 17:
            half, y = Soap(part), x.copy()
            for name, array in half.arrays().items():
                array[:] = whole.arrays()[name]
        if i >= 17:
            half.step(i + 1, 0.1, grads[i], y)
        whole.step(i + 1, 0.1, grads[i], x)
    assert (x == y).all()
