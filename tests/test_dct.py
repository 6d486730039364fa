import torch

from latentpack.codecs.transforms.dct import dct_matrix, opponent_dct


def test_dct_of_two_samples():
    half = 0.5**0.5
    assert torch.allclose(dct_matrix(2), torch.tensor([[half, half], [half, -half]]))


def test_rows_are_orthonormal():
    rows = opponent_dct(16, (192, 32, 32))
    assert torch.allclose(rows @ rows.t(), torch.eye(256), atol=1e-5)


def test_a_flat_grey_block_is_one_coefficient():
    """A block of ones has luma sqrt(3) everywhere, so its DC is 16 sqrt(3)."""
    y = opponent_dct(16, (192, 32, 32)) @ torch.ones(768)
    assert torch.allclose(y[0], torch.tensor(16 * 3**0.5))
    assert y[1:].abs().max() < 1e-4
