"""video/lite: trained networks, frame after frame without delay, all rates from one model.

    frame 0     -> networks of `lite_intra.py`   -> integers, picture
    frame i > 0 -> field of block vectors from the last decoded picture
                -> networks of `lite_inter.py`   -> integers, picture, memory

Papers and drawings of the networks are there. What chooses the entropy tables comes from integers
alone, so every machine parses the same; pictures are made in floating point and may differ by one
step of a sample here and there.

Bitstream of a group of pictures (payload behind the times of FORMAT.md, section 23):

    size      meaning
    2         rate position of the first frame, u16 little-endian, 0 to 448 (64 to a level)
    2         if there are others: 2 p + 1, p the position of all of them, or 2 p, p that of the
              second frame, and then
    1-2 each  of each further frame a zigzag varint: its position less that of the frame before
    1- each   of each frame but the first: varint n, then n bytes of its field (section 27)
    rest      one rANS stream: of each frame z, then q (the first frame in one pass, others the
              positions of the checkerboard whose row + column is even, then the others)

Parameters in the header: section 23, and "w" = digest of the weights (8 bytes).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...entropy.coder import Encoder
from ...kernels import motion
from ...kernels.errors import BitstreamError
from .. import weight_files
from ..image.light_frozen import POSITIONS
from .frames import Planes, VideoFormat, psnr_db
from .gops import Coded, GopCodec
from .lite_blocks import lmbda_of
from .lite_frames import code_inter, code_intra, position_tensor, show_inter, show_intra
from .lite_frozen import DEFAULT, SHIPPED, FrozenLite, load_weights
from .lite_run import Shown, to_cells
from .lite_stream import Parsed, parse_group, put_group, to_input, to_samples

MOST_SAMPLES = 1 << 26  # of luma in a frame: what decoding takes grows with them
_FIELD_SHARE = 0.5  # of lmbda in the search for motion; measured, as are the next two
_FIELD_EFFORT = 2  # of the search
_INTRA_STEP = 160  # positions that the first frame lies above the others


class Lite(GopCodec):
    """Videos of 8 to 10 bits, 4:2:0 or grey.

    Takes all kinds of Rate. A stream is decoded by the weights that it was made with. In groups
    much longer than the usual ones, quality falls slowly behind their first frame.
    """

    name: ClassVar[str] = "video/lite"

    def __init__(
        self,
        weights: str | Path | None = None,
        gop: int | None = None,
        bits: int | None = None,
        frame_rate: float | Fraction | None = None,
        keep_going: bool = False,
    ) -> None:
        """Use shipped weights, by their name in `SHIPPED`, or a weights file.

        A stream made with any of the shipped weights is decoded whatever is given here.

        Args:
            weights: None is the default of `SHIPPED`.
            gop: see `GopCodec`.
            bits: see `GopCodec`.
            frame_rate: see `GopCodec`.
            keep_going: see `GopCodec`.
        """
        super().__init__(gop, bits, frame_rate, keep_going)
        self.path = SHIPPED.get(str(weights), Path(weights)) if weights else DEFAULT

    @property
    def model(self) -> FrozenLite:
        """The networks, loaded at first use."""
        return load_weights(self.path)

    def header_fields(self, format: VideoFormat) -> dict[str, Any]:
        """See GopCodec."""
        return {"w": self.model.digest}

    def snap(self, quality: float) -> float:
        """See GopCodec."""
        return 100 * _position(quality) / POSITIONS

    def encode_gop(
        self,
        gop: list[Planes],
        format: VideoFormat,
        quality: float,
        before: Coded | None = None,
        near: Coded | None = None,
    ) -> Coded:
        """See GopCodec."""
        position = _position(quality)
        coder = _GroupEncoder(self.model, position)
        total = 0.0
        for planes in gop:
            shown = coder.add(*to_input(planes, format))
            total += psnr_db(planes, to_samples(shown.y, shown.uv, format), format.bits)
        return Coded(coder.finish(), total / len(gop))

    def decode_gop(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> Iterator[Planes]:
        """See GopCodec."""
        model = self._model_of(header)
        if format.width * format.height > MOST_SAMPLES or format.bits not in self.depths:
            raise BitstreamError(
                f"frames of {format.width} x {format.height} and {format.bits} bits are too large"
            )
        state: Shown | None = None
        for frame in parse_group(model, payload, format, count):
            state = _show(model, state, frame)
            yield to_samples(state.y, state.uv, format)

    def parse(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> list[Parsed]:
        """All integers of a group, without running a network that floats; see `decode_gop`."""
        return list(parse_group(self._model_of(header), payload, format, count))

    def _check_format(self, format: VideoFormat) -> None:
        super()._check_format(format)
        if format.width * format.height > MOST_SAMPLES:
            raise ValueError(
                f"{self.name} takes frames of at most {MOST_SAMPLES} pixels, got "
                f"{format.width} x {format.height}; make the video smaller"
            )

    def _model_of(self, header: dict[str, Any]) -> FrozenLite:
        """The networks that a stream was made with: ours, or shipped ones."""
        path = weight_files.file_of(header.get("w"), self.path, self.model.digest, SHIPPED.values())
        return self.model if path == self.path else load_weights(path)


CODEC = Lite


def _position(quality: float) -> int:
    return round(quality / 100 * POSITIONS)


@torch.inference_mode()
def _show(model: FrozenLite, before: Shown | None, frame: Parsed) -> Shown:
    if before is None or frame.vectors is None:
        return show_intra(model, frame.integers, frame.position)
    return show_inter(model, before, frame.vectors, frame.integers, frame.position)


class _GroupEncoder:
    """Codes the frames of a group one after the other."""

    def __init__(self, model: FrozenLite, position: int) -> None:
        """Begin a group at a rate position."""
        self._model, self._position = model, position
        self._encoder = Encoder(model.tables)
        self._positions: list[int] = []
        self._fields: list[bytes] = []
        self._field: motion.Field | None = None
        self._state: Shown | None = None
        self._lmbda = _FIELD_SHARE * float(lmbda_of(position_tensor(position)))

    @torch.inference_mode()
    def add(self, y: Tensor, uv: Tensor) -> Shown:
        """Code a frame as `to_input` gives it; returns what will be decoded."""
        position = self._position
        if self._state is None:
            position = min(POSITIONS, position + _INTRA_STEP)
            integers = code_intra(self._model, self._encoder, y, uv, position)
            self._state = show_intra(self._model, integers, position)
        else:
            vectors = self._search(y, self._state.y)
            self._state = code_inter(
                self._model, self._encoder, to_cells(y, uv), self._state, vectors, position
            )
        self._positions.append(position)
        return self._state

    def _search(self, y: Tensor, before: Tensor) -> Tensor:
        now, last = ((x[0] * 255).round().to(torch.uint8).numpy() for x in (y, before))
        field = motion.search(now, [last], self._lmbda, effort=_FIELD_EFFORT, before=self._field)
        self._fields.append(motion.encode(field, self._field))
        self._field = field
        return torch.from_numpy(field.vectors)[None]

    def finish(self) -> bytes:
        """The payload."""
        return put_group(self._positions, self._fields, self._encoder.finish())
