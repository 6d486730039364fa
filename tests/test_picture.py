"""What the picture codecs share."""

import pytest

from latentpack.codecs.image.picture import MAX_SIDE, Grid, blank, read_varint, varint
from latentpack.kernels.errors import BitstreamError


def test_a_header_may_claim_more_than_there_is_memory():
    with pytest.raises(BitstreamError, match="do not fit into memory"):
        blank(4, MAX_SIDE, MAX_SIDE)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**28 - 1])
def test_varints(value):
    data = b"x" + varint(value) + b"y"
    assert read_varint(data, 1) == (value, len(data) - 1)


def test_tiles_cover_a_picture_once():
    grid = Grid(130, 65, 64)
    assert (grid.columns, grid.rows, len(grid)) == (3, 2, 6)
    boxes = [grid.box(n) for n in range(len(grid))]
    assert sum(h * w for _, _, h, w in boxes) == 130 * 65
    assert boxes[-1] == (64, 128, 1, 2)
