"""Byte planes on a CUDA device: encode in the way SEGMENTS, decode, and the form in device memory.

The bytes are those of `planes_ref`; a chunk is a warp's work from beginning to end. A launch takes
any number of arrays of one layout and width. Nothing here waits for the device but `Packed.check`,
`Packed.to_host` and `Packed.trimmed`, and `Encoding.run` and `Decoding.run` only launch: they
allocate nothing and can be captured in a graph.

Encode, four launches
    prepare    a block for each segment: clears counts and status, finds the segment's window
    count      blocks (segment, piece): counts of plane 0 in shared memory, one copy per warp, then
               global additions. Reads the elements: the only time but one.
    normalise  a warp for each segment: `rans_ref.normalise`, in the same integers
    encode     a warp for each chunk: splits it into shared memory, codes plane 0 there, says how
               long it is, learns from the chunks before where it belongs, writes it there.
               Blocks take tickets, so that a chunk only waits for those that have started.
Decode, one launch
    a warp for each chunk, several chunks for a warp where there are many; the table of a block's
    chunks in shared memory (16 KiB); symbols, joined with the other planes, to whole lines.

Workspace of `Encoding` (int64): counts u32 [S, 256]; the encoder's tables, 8 bytes [S, 256];
windows u32 [S]; status u64 [C]; a ticket. S segments and C chunks of all arrays of the launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import cuda
from .errors import BitstreamError
from .planes_cuda_head import head_of, records_of
from .planes_head_ref import BYTE_PLANES, FLOAT, NIBBLES
from .planes_segments_ref import segment_count
from .rans_ref import log2_table

SHAPES = {
    (FLOAT, 2): "float2",
    (FLOAT, 4): "float4",
    (NIBBLES, 1): "nibbles1",
    (BYTE_PLANES, 1): "bytes1",
    (BYTE_PLANES, 2): "bytes2",
}
ENCODER_LOG2 = range(12, 15)  # chunks that the encoder takes
DEFAULT_LOG2 = 13
RECORD_WORDS = 16
ALIGN = 16
SLOTS_BYTES = 4 * 4096
WARP_BYTES = 2 * 512 + 512  # words and symbols of a warp of the decoder
ENCODER_SHARED = 96 << 10  # a block of the encoder takes at most so much
PIECE = 1 << 15  # elements that a block counts, at least

_ERRORS = {
    1: "fails its checksum",
    2: "has a record that does not fit its bytes",
    3: "has a coded stream that is damaged",
    4: "has patches that do not ascend",
}


def takes(layout: int, width: int) -> bool:
    """Whether the device has kernels for a layout and width."""
    return (layout, width) in SHAPES


@dataclass(eq=False)
class Packed:
    """A coded array in device memory.

    Attributes:
        n: elements.
        width: bytes of an element.
        layout: of `planes`.
        chunk_log2: log2 of the elements of a chunk.
        coded: uint8 [room], the coded bytes and what is left of the room, a multiple of 16 bytes.
        used: int64 [1], coded bytes.
        records: int32 [chunks, 16], how chunks are coded (`planes.cuh`, Record).
        tables: uint16 [tables, 256], frequencies of 12 bits.
        error: int64 [1], -1, or the lowest damaged chunk that was met << 8 | what is wrong.
    """

    n: int
    width: int
    layout: int
    chunk_log2: int
    coded: torch.Tensor
    used: torch.Tensor
    records: torch.Tensor
    tables: torch.Tensor
    error: torch.Tensor

    @classmethod
    def empty(
        cls, n: int, width: int, layout: int, chunk_log2: int = DEFAULT_LOG2, device: Any = "cuda"
    ) -> Packed:
        """Room for any array of n elements."""
        _check_shape(width, layout)
        if chunk_log2 not in ENCODER_LOG2:
            raise ValueError(f"chunk_log2 is {chunk_log2}, the CUDA encoder takes 12 to 14")
        chunks = -(-n >> chunk_log2)
        tables = segment_count(n, chunks)
        room = -(-n * width // ALIGN) * ALIGN
        return cls(
            n,
            width,
            layout,
            chunk_log2,
            torch.empty(room, dtype=torch.uint8, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
            torch.empty((chunks, RECORD_WORDS), dtype=torch.int32, device=device),
            torch.empty((tables, 256), dtype=torch.uint16, device=device),
            torch.full((1,), -1, dtype=torch.int64, device=device),
        )

    @classmethod
    def from_host(
        cls, head: Any, coded: Any, n: int, width: int, layout: int, device: Any = "cuda"
    ) -> Packed | None:
        """A coded array from the host; None if only a CPU can decode it (contexts, wide tables).

        Raises:
            BitstreamError: the head is damaged.
            ValueError: the device has no kernels for such elements.
        """
        _check_shape(width, layout)
        parsed = records_of(bytes(head), len(coded), n, width, layout)
        if parsed is None:
            return None
        tables, records = parsed
        room = np.zeros(-(-len(coded) // ALIGN) * ALIGN, np.uint8)
        room[: len(coded)] = np.frombuffer(coded, np.uint8)
        return cls(
            n,
            width,
            layout,
            head[0],
            torch.from_numpy(room).to(device),
            torch.tensor([len(coded)], dtype=torch.int64, device=device),
            torch.from_numpy(records).to(device),
            torch.from_numpy(tables).to(device),
            torch.full((1,), -1, dtype=torch.int64, device=device),
        )

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.records)

    def elements(self, chunks: tuple[int, int] | None = None) -> int:
        """Elements of chunks first .. last - 1; None = all."""
        if chunks is None:
            return self.n
        first, last = chunks
        if not 0 <= first <= last <= self.chunks:
            raise ValueError(
                f"chunks are {first} to {last}, expected a range of 0 to {self.chunks}"
            )
        return min(self.n, last << self.chunk_log2) - min(self.n, first << self.chunk_log2)

    def trimmed(self) -> Packed:
        """The same with no room left; waits for the device."""
        size = -(-int(self.used.item()) // ALIGN) * ALIGN
        return Packed(**(vars(self) | {"coded": self.coded[:size].clone()}))

    def to_host(self) -> tuple[bytes, bytes]:
        """Head and coded bytes, as `planes.encode` in mode "segments" makes them; waits."""
        size = int(self.used.item())
        head = head_of(
            self.chunk_log2,
            self.tables.cpu().numpy(),
            self.records.cpu().numpy(),
            self.width,
            self.layout,
        )
        return head, self.coded[:size].cpu().numpy().tobytes()

    def check(self) -> None:
        """Raise BitstreamError if decoding met damage since this was last asked; waits."""
        error = int(self.error.item())
        if error != -1:
            self.error.fill_(-1)
            what = _ERRORS.get(error & 255, "is damaged")
            raise BitstreamError(f"chunk {error >> 8} of {self.chunks} {what}")


class _Tensor(ctypes.Structure):
    """`Tensor` of planes.cuh."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "coded elements records tables used error n chunk_log2 table_count "
            "first_chunk last_chunk first_tile first_segment first_status"
        ).split()
    ]


class _Tensors(ctypes.Structure):
    """`Tensors` of planes.cuh."""

    _fields_ = [("many", ctypes.c_void_p), ("count", ctypes.c_uint64), ("one", _Tensor)]


class _Launch:
    """What encoding and decoding share: arrays, described for the device."""

    def __init__(self, arrays: Sequence[torch.Tensor], packs: Sequence[Packed]) -> None:
        if len(arrays) != len(packs) or not packs:
            raise ValueError(
                f"{len(arrays)} arrays and {len(packs)} packs, expected as many of both"
            )
        self._packs = list(packs)
        self._arrays = list(arrays)
        first = packs[0]
        self.device = first.coded.device
        for pack in packs:
            if (pack.layout, pack.width, pack.coded.device) != (
                first.layout,
                first.width,
                self.device,
            ):
                raise ValueError("the arrays of a launch need one layout, one width, one device")
        _check_shape(first.width, first.layout)
        self.shape = SHAPES[first.layout, first.width]

    def _describe(self, rows: Sequence[dict[str, int]]) -> _Tensors:
        described = [
            _Tensor(
                coded=pack.coded.data_ptr(),
                elements=array.data_ptr(),
                records=pack.records.data_ptr(),
                tables=pack.tables.data_ptr(),
                used=pack.used.data_ptr(),
                error=pack.error.data_ptr(),
                n=pack.n,
                chunk_log2=pack.chunk_log2,
                table_count=len(pack.tables),
                **row,
            )
            for pack, array, row in zip(self._packs, self._arrays, rows, strict=True)
        ]
        if len(described) == 1:
            return _Tensors(None, 1, described[0])
        text = b"".join(bytes(tensor) for tensor in described)
        table = torch.frombuffer(bytearray(text), dtype=torch.int64).to(self.device)
        self._table = table  # as long as the launch may be repeated
        return _Tensors(table.data_ptr(), len(described), _Tensor())


class Encoding(_Launch):
    """Arrays to be encoded, any number of times; `run` only launches.

    Args:
        arrays: uint8 [n * width] each, contiguous on the device, at addresses of multiples of 16.
        packs: `Packed.empty` of their sizes, all with one `chunk_log2`.
        workspace: int64 [`workspace_size(packs)`] on the device; None = made here.

    Raises:
        ValueError: an array does not fit its pack.
    """

    def __init__(
        self,
        arrays: Sequence[torch.Tensor],
        packs: Sequence[Packed],
        workspace: torch.Tensor | None = None,
    ) -> None:
        kept = [(a, p) for a, p in zip(arrays, packs, strict=True) if p.n]
        self._idle = not kept
        if self._idle:
            return
        super().__init__([a for a, _ in kept], [p for _, p in kept])
        for array, pack in kept:
            _check_bytes(array, pack.n * pack.width, self.device)
            if pack.chunk_log2 != kept[0][1].chunk_log2 or pack.chunk_log2 not in ENCODER_LOG2:
                raise ValueError("the packs of a launch need one chunk_log2, 12 to 14")
            if len(pack.tables) != segment_count(pack.n, pack.chunks):
                raise ValueError("a pack was not made by Packed.empty: it has too few tables")
            if pack.coded.numel() < pack.n * pack.width:
                raise ValueError("a pack has too little room: make it with Packed.empty")
        self._module = cuda.load("planes_encode.cu", self.device)
        self._tables_module = cuda.load("planes_tables.cu", self.device)
        self._log = _log_table(self.device)
        self._chunk_room = _chunk_room(self._packs[0])
        chunks = sum(pack.chunks for pack in self._packs)
        spread = -(-chunks // self._module.multiprocessors)
        self._warps = max(1, min(8, spread, ENCODER_SHARED // self._chunk_room))
        self._segments = sum(len(pack.tables) for pack in self._packs)
        size = workspace_size(self._packs)
        if workspace is None:
            workspace = torch.empty(size, dtype=torch.int64, device=self.device)
        elif workspace.dtype != torch.int64 or workspace.numel() < size:
            raise ValueError(f"workspace: expected int64 [{size}]")
        counts, entries = 128 * self._segments, 256 * self._segments
        self._counts, self._entries = workspace[:counts], workspace[counts : counts + entries]
        self._tops = workspace[counts + entries :]
        self._tickets = self._tops[-(-self._segments // 2) :]
        self._status = self._tickets[1:]
        rows, tile, segment, status = [], 0, 0, 0
        for pack in self._packs:
            rows.append(
                {
                    "first_chunk": 0,
                    "last_chunk": pack.chunks,
                    "first_tile": tile,
                    "first_segment": segment,
                    "first_status": status,
                }
            )
            tile += -(-pack.chunks // self._warps)
            segment += len(pack.tables)
            status += pack.chunks
        self._tiles = tile
        self._tensors = self._describe(rows)

    def run(self) -> None:
        """Launch: `coded`, `used`, `records` and `tables` of the packs are written."""
        if self._idle:
            return
        tables, pack = self._tables_module, self._packs[0]
        width = ctypes.c_int(pack.width if pack.layout == FLOAT else 0)
        tensors, segments = self._tensors, self._segments
        prepared = [tensors, width, self._counts, self._status, self._tickets, self._tops]
        tables.launch("planes_prepare", segments, 256, prepared)
        largest = max(-(-p.chunks // len(p.tables)) << p.chunk_log2 for p in self._packs)
        pieces = min(65535, -(-largest // PIECE))
        counted = [tensors, self._tops, self._counts]
        tables.launch(f"planes_count_{self.shape}", (segments, pieces), 256, counted)
        tables.launch(
            "planes_normalise", segments, 32, [tensors, self._counts, self._log, self._entries]
        )
        self._module.launch(
            f"planes_encode_{self.shape}",
            self._tiles,
            32 * self._warps,
            [tensors, self._status, self._tickets, self._tops, self._entries],
            shared=self._warps * self._chunk_room,
        )


class Decoding(_Launch):
    """Packs to be decoded, any number of times; `run` only launches.

    Args:
        packs: the coded arrays.
        outs: uint8 [elements * width] each, contiguous on the device, at addresses of multiples
            of 16.
        chunks: for each pack the range of its chunks that is wanted; None = all of all.

    Raises:
        ValueError: an output does not fit, or there are no such chunks.
    """

    def __init__(
        self,
        packs: Sequence[Packed],
        outs: Sequence[torch.Tensor],
        chunks: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        ranges = [(0, pack.chunks) for pack in packs] if chunks is None else list(chunks)
        kept = []
        for pack, out, (first, last) in zip(packs, outs, ranges, strict=True):
            elements = pack.elements((first, last))
            if elements:
                _check_bytes(out, elements * pack.width, pack.coded.device)
                kept.append((pack, out, first, last))
        self._idle = not kept
        if self._idle:
            return
        super().__init__([out for _, out, _, _ in kept], [pack for pack, _, _, _ in kept])
        self._module = cuda.load("planes_decode.cu", self.device)
        total = sum(last - first for _, _, first, last in kept)
        several = self._module.multiprocessors * 8
        self._warps = 8 if total >= several else 4
        self._per_warp = max(1, min(8, total // (4 * several)))
        rows, tile = [], 0
        for _, _, first, last in kept:
            rows.append({"first_chunk": first, "last_chunk": last, "first_tile": tile})
            tile += -(-(last - first) // (self._warps * self._per_warp))
        self._tiles = tile
        self._tensors = self._describe(rows)

    def run(self, checksum: bool = True) -> None:
        """Launch. Damage is found by `Packed.check`; what is decoded of such a chunk is undefined.

        Args:
            checksum: compare the chunks' checksums, too; costs about a fifth.
        """
        if self._idle:
            return
        self._module.launch(
            f"planes_decode_{self.shape}",
            self._tiles,
            32 * self._warps,
            [self._tensors, ctypes.c_uint32(self._per_warp), ctypes.c_int(checksum)],
            shared=SLOTS_BYTES + self._warps * WARP_BYTES,
        )


def encode(data: torch.Tensor, width: int, layout: int, chunk_log2: int = DEFAULT_LOG2) -> Packed:
    """Encode the bytes of an array: `Encoding` of one, where it must not be graph-safe."""
    if data.data_ptr() % ALIGN:
        data = data.clone()
    packed = Packed.empty(data.numel() // width, width, layout, chunk_log2, data.device)
    Encoding([data], [packed]).run()
    return packed


def decode(
    packed: Packed,
    out: torch.Tensor | None = None,
    *,
    chunks: tuple[int, int] | None = None,
    checksum: bool = True,
) -> torch.Tensor:
    """Decode an array, or some of its chunks; see `Decoding`. `Packed.check` finds damage.

    Returns:
        uint8 [elements * width], `out` if it is given.
    """
    size = packed.elements(chunks) * packed.width
    fits = out is not None and out.data_ptr() % ALIGN == 0
    target = out if fits else torch.empty(size, dtype=torch.uint8, device=packed.coded.device)
    assert target is not None  # `out` is there if it fits
    Decoding([packed], [target], None if chunks is None else [chunks]).run(checksum)
    return target if out is None or target is out else out.copy_(target)


def decode_elements(packed: Packed, start: int, stop: int, checksum: bool = True) -> torch.Tensor:
    """Elements start .. stop - 1, uint8 [(stop - start) * width]; only their chunks are decoded.

    A row slice of a matrix is such a range. The result is a part of the decoded chunks.
    """
    if not 0 <= start <= stop <= packed.n:
        raise ValueError(f"elements {start} to {stop}, expected a range of 0 to {packed.n}")
    first, last = start >> packed.chunk_log2, -(-stop >> packed.chunk_log2)
    got = decode(packed, chunks=(first, max(first, last)), checksum=checksum)
    offset = (start - (first << packed.chunk_log2)) * packed.width
    return got[offset : offset + (stop - start) * packed.width]


def workspace_size(packs: Sequence[Packed]) -> int:
    """Int64 elements of the workspace of an `Encoding`."""
    segments = sum(len(pack.tables) for pack in packs)
    return 384 * segments + -(-segments // 2) + 1 + sum(pack.chunks for pack in packs)


def _chunk_room(pack: Packed) -> int:
    """`chunk_room` of planes_encode.cu."""
    n = 1 << pack.chunk_log2
    m = n // 2 if pack.layout == NIBBLES else n
    planes = 2 if pack.layout == NIBBLES else pack.width
    return (planes - 1) * m + (m if pack.layout == FLOAT else 2 * m) + ALIGN


_logs: dict[torch.device, torch.Tensor] = {}


def _log_table(device: torch.device) -> torch.Tensor:
    """The logarithms of `rans_ref.normalise` for 12 bits, u32 [4098]; made once."""
    if device not in _logs:
        values: npt.NDArray[np.uint32] = log2_table((1 << 12) + 2).astype(np.uint32)
        _logs[device] = torch.from_numpy(values.view(np.int32)).to(device)
    return _logs[device]


def _check_shape(width: int, layout: int) -> None:
    if not takes(layout, width):
        raise ValueError(
            f"layout {layout} with elements of {width} bytes has no CUDA kernels; use `planes`"
        )


def _check_bytes(array: torch.Tensor, size: int, device: torch.device) -> None:
    if array.dtype != torch.uint8 or array.numel() != size or not array.is_contiguous():
        raise ValueError(f"expected contiguous uint8 [{size}], got {array.dtype} {array.shape}")
    if array.device != device:
        raise ValueError(f"an array is on {array.device}, its pack on {device}")
    if array.data_ptr() % ALIGN:
        raise ValueError("an array begins at no multiple of 16 bytes; clone() it")
