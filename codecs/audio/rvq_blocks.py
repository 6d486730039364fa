"""Causal networks on sounds that come in pieces, with results that are the same to the last bit.

How many rows a matrix product has can decide in which order it adds up a row. So networks here
always see blocks of ROWS frames, and a frame always has the same row: a block that is not full yet
has zeros behind, and is computed again when more of it is there.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

ROWS = 16  # code frames

State = list[Tensor]
# A block [1, channels..., ROWS * unit] and the state before it -> [..., ROWS * unit], state behind.
Network = Callable[[Tensor, State | None], tuple[Tensor, State]]


class Blocks:
    """Runs a network over frames as they come."""

    def __init__(self, network: Network, unit: int) -> None:
        """Take the network.

        Args:
            network: causal; the last axis of what goes in is time.
            unit: steps of that axis to a frame.
        """
        self._network, self._unit = network, unit
        self._state: State | None = None  # before the block
        self._block: Tensor | None = None
        self._filled = 0  # frames of the block

    def push(self, x: Tensor) -> list[Tensor]:
        """Whole frames [..., n * unit] -> what the network makes of them, in pieces along time."""
        made = []
        start, frames = 0, x.shape[-1] // self._unit
        while start < frames:
            count = min(ROWS - self._filled, frames - start)
            piece = x[..., start * self._unit : (start + count) * self._unit]
            made.append(self._run(piece, count))
            start += count
        return made

    def _run(self, piece: Tensor, count: int) -> Tensor:
        """Some frames that fit into the block."""
        if self._block is None:
            self._block = piece.new_zeros(*piece.shape[:-1], ROWS * self._unit)
        begin, end = self._filled, self._filled + count
        self._block[..., begin * self._unit : end * self._unit] = piece
        y, state = self._network(self._block, self._state)
        self._filled = end
        if end == ROWS:
            self._state, self._block, self._filled = state, None, 0
        unit = y.shape[-1] // ROWS
        return y[..., begin * unit : end * unit]
