import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_networks as net
from latentpack.entropy.models import laplace
from latentpack.kernels import fit_ref, rans


def test_sizes_are_those_of_the_kernel():
    assert (laplace.SCALES, laplace.FRACTIONS) == (fit_ref.SCALES, fit_ref.FRACTIONS)
    assert len(laplace.freeze()) == laplace.SCALES * laplace.FRACTIONS


@pytest.mark.parametrize("row", [0, 3, 11, 19, 27])
@pytest.mark.parametrize("sixteenths", [0, 3, 8])
def test_costs_are_those_of_the_distribution(row, sixteenths):
    """Within a percent of the entropy, or what twelve bits can say."""
    tables = laplace.freeze()
    y = torch.arange(-126, 127, dtype=torch.float64)
    bits = net.laplace_bits(y, torch.full_like(y, sixteenths / 16), torch.full_like(y, float(row)))
    p = 2**-bits
    index = np.full(1, laplace.FRACTIONS * row + sixteenths, np.uint8)
    cost = [tables.cost_bits(np.array([v], np.int16), index) for v in y.tolist()]
    entropy = float((p * bits).sum())
    mean = float((p * torch.tensor(cost)).sum())
    assert mean == pytest.approx(entropy, rel=0.013, abs=0.004)


def test_tables_take_the_fast_paths():
    tables = laplace.freeze()
    last = tables.offsets + tables.lengths - 2
    assert last.max() - tables.offsets.min() < 255 and tables.precision == 12
    symbols = np.arange(-511, 512, dtype=np.int16)
    index = (np.arange(1023) % 252).astype(np.uint8)
    for backend in rans.backends():
        data = rans.encode(tables, symbols, index, backend=backend)
        assert np.array_equal(rans.Decoder(tables, data, backend=backend).get(index), symbols)
