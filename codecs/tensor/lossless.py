"""Lossless tensors: every dtype, any shape, bit for bit.

The elements are split into planes of bytes, and each plane of each chunk is coded by the cheapest
of a few modes (`kernels/planes_ref.py` defines the bytes):

    tensor -> bytes -> chunks -> exponents         -> pairs -> rANS, tables shared by chunks
                              -> sign and mantissa -> raw, or rANS where that pays

`mode` is the dial: "fast" packs the exponents of bfloat16 and float32 into 4 bits each (ratio
0.75 and 0.88, close to copying), "tight" codes pairs of exponents (0.66 and 0.83 on weights),
"small" tries several ways with contexts for each array, slowly, and keeps the smallest. "segments"
gives the bytes that a GPU makes in one pass: close to "tight" for weights, with a table for each
of up to 64 parts of the tensor.

Bitstream (a packet is one tensor; its key is the name, or none)
    ========  ======  ==================================================================
    field     bytes   meaning
    ========  ======  ==================================================================
    dtype     1       `dtypes.DTYPES`
    kind      1       0 elements, 1 coded, 2 coded, in the bulk, 3 a repeat
    rank      1       0 to 64; bit 7: the sizes are runs
    sizes     *       varint each; in runs: varint size, u8 times
    rest      *       kind 0: the elements, little-endian, in C order
                      kind 1: varint bytes of the head, head, coded bytes
                      kind 2: head; the bulk is the coded bytes
                      kind 3: which earlier tensor has the same elements
    ========  ======  ==================================================================
The parameters in the header box are empty. FORMAT.md, section 10, is the full description.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch

from ...kernels import memory, planes
from ...kernels.errors import BitstreamError
from ..codec import Bound, Buffer, Codec, Packet, Place, Rate
from ..fields import Cursor, Key, get_varint, put_varint
from . import on_device
from .dtypes import dtype_id, split_of
from .packet import CODED, CODED_BULK, ELEMENTS, REPEAT, Repeat, Start
from .repeats import Repeats

BULK_BYTES = 1 << 16  # coded bytes from which on they go to the bulk
DEFAULT_CHUNK = 1 << planes.MAX_CHUNK_LOG2

MODES = ("fast", "tight", "small", "segments")

Tensors = torch.Tensor | Mapping[str, torch.Tensor]


class Lossless(Codec):
    """Codec 1, `tensor/lossless`.

    Args:
        mode: "fast", "tight", "small" or "segments".
        threads: at most so many; None = one per core. Never changes a byte.
        chunk: elements of a chunk, a power of two from 64 to 65536. Smaller ones can be read
            one by one, but take more bytes and time. A tensor on a GPU is coded there in the way
            "segments" where the mode is that or "tight", with chunks of 8192 if this is the
            default; other modes and dtypes are copied to the CPU.
        device: where decoded tensors shall be; None is the CPU.
        max_bytes: decoding refuses tensors of more bytes; None takes what the packet can
            justify: at most 58 KiB for every byte of it, where all chunks are constant.

    Raises:
        ValueError: an option is outside its range.
    """

    name: ClassVar[str] = "tensor/lossless"

    def __init__(
        self,
        mode: str = "tight",
        threads: int | None = None,
        chunk: int = DEFAULT_CHUNK,
        device: torch.device | str | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Check and keep the options."""
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected {', '.join(MODES)}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, expected 1 or more, or None for all cores")
        legal = [1 << k for k in range(planes.MIN_CHUNK_LOG2, planes.MAX_CHUNK_LOG2 + 1)]
        if chunk not in legal:
            raise ValueError(f"chunk is {chunk}, expected a power of two from 64 to 65536")
        self.mode = mode
        self.threads = threads
        self.chunk_log2 = chunk.bit_length() - 1
        self.device = device
        self.max_bytes = max_bytes

    def header(self, signal: Tensors) -> dict[str, Any]:
        """Return no parameters: a packet says everything about its tensor."""
        return {}

    def bounds(self, signal: Tensors) -> Iterator[Bound]:
        """Yield the most that each packet can take."""
        named = signal.items() if isinstance(signal, Mapping) else [(None, signal)]
        for name, tensor in named:
            _check(tensor)
            yield self._bound(tensor, name)[0]

    def _bound(self, tensor: torch.Tensor, key: str | int | None) -> tuple[Bound, int]:
        """The most that a packet can take, and the size of its body that is likely."""
        split = split_of(tensor.dtype)
        start = len(Start(tensor.dtype, CODED_BULK, tuple(tensor.shape)).put())
        size = tensor.numel() * tensor.dtype.itemsize
        expected, most = planes.head_sizes(
            size // split.width, split.width, split.layout, self.mode, self.chunk_log2
        )
        # What is not in the bulk is below BULK_BYTES, too.
        return Bound(key, start + most + BULK_BYTES, size), start + expected

    def encode(
        self,
        signal: Tensors,
        rate: Rate | None = None,
        reserve: int = 0,
        place: Place | None = None,
    ) -> Iterator[Packet]:
        """Yield a packet per tensor.

        Args:
            signal: a tensor of any dtype, shape, strides and device, or a mapping of names to
                tensors.
            rate: must be None.
            reserve: not used.
            place: gives memory for the coded bytes of large tensors.

        Raises:
            ValueError: not a dense tensor, a quantised one, or a rate is asked for.
        """
        if rate is not None:
            raise ValueError(f"tensor/lossless takes no rate, got {rate}; `mode` is its dial")
        if isinstance(signal, Mapping):
            repeats = Repeats(signal.__getitem__)
            for name, tensor in signal.items():
                _check(tensor)
                found = repeats.find(name, tensor)
                if found is None:
                    yield self.encode_tensor(tensor, name, place)
                else:
                    start = Start(tensor.dtype, REPEAT, tuple(tensor.shape))
                    yield Packet(name, start.put() + Repeat(*found).put())
        else:
            yield self.encode_tensor(signal, None, place)

    def encode_tensor(
        self, tensor: torch.Tensor, key: str | int | None = None, place: Place | None = None
    ) -> Packet:
        """Return the packet of one tensor."""
        _check(tensor)
        shape, dtype = tuple(tensor.shape), tensor.dtype
        split = split_of(dtype)
        if tensor.device.type != "cpu":
            made = on_device.encode(_flat(tensor), split, self.mode, self.chunk_log2)
            if made is not None and len(made[0]) + len(made[1]) < tensor.nbytes:
                return _packet(key, dtype, shape, *made)
        data = _elements(tensor)
        room = None
        if place is not None and len(data) >= BULK_BYTES:
            room = place(*self._bound(tensor, key))

        def code(mode: str, chunk_log2: int) -> tuple[bytes, memoryview]:
            return planes.encode(
                data,
                split.width,
                split.layout,
                mode,
                chunk_log2=chunk_log2,
                out=room,
                threads=self.threads,
            )

        head, coded = code(self.mode, self.chunk_log2)
        if len(head) + len(coded) >= len(data):
            if len(data) < BULK_BYTES:
                return Packet(key, Start(dtype, ELEMENTS, shape).put() + data.tobytes())
            head, coded = code("stored", planes.MAX_CHUNK_LOG2)
        return _packet(key, dtype, shape, head, coded)

    def decode(
        self, header: dict[str, Any], packets: Iterable[Packet], out: Any = None
    ) -> torch.Tensor | dict[str | int, torch.Tensor]:
        """Return the tensor of a packet without a key, or a dict of those with keys.

        Args:
            header: the parameters, none.
            packets: of the tensors that are wanted.
            out: a tensor, or a mapping of tensors, to decode into.

        Raises:
            BitstreamError: a packet is damaged.
            ValueError: `out` does not fit.
        """
        decoded: dict[str | int, torch.Tensor] = {}
        for packet in packets:
            if packet.key is None:
                return self.decode_tensor(packet, out)
            if out is not None and packet.key not in out:
                raise ValueError(f"out has no tensor {packet.key!r}; it must have one of each name")
            target = None if out is None else out[packet.key]
            if self.needs(packet) is None:
                decoded[packet.key] = self.decode_tensor(packet, target)
            else:
                decoded[packet.key] = self._repeated(packet, decoded, target)
        return decoded

    def needs(self, packet: Packet) -> Key:
        """Say which packet must be decoded before this one: that of the same elements."""
        cursor = Cursor(memoryview(packet.body), 0)
        return Repeat.get(cursor).key if Start.get(cursor).kind == REPEAT else None

    def _repeated(
        self,
        packet: Packet,
        decoded: Mapping[str | int, torch.Tensor],
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """The tensor of a packet that says it is another one."""
        cursor = Cursor(memoryview(packet.body), 0)
        start, repeat = Start.get(cursor), Repeat.get(cursor)
        found = decoded.get(repeat.key) if repeat.key is not None else None
        if found is None or (found.dtype, found.shape) != (start.dtype, start.shape):
            raise BitstreamError(
                f"{packet.key!r} is said to be {repeat.key!r}, which does not stand before it "
                "with this dtype and shape"
            )
        if len(packet.bulk):
            raise BitstreamError(f"{len(packet.bulk)} bytes of bulk after a repeat")
        if out is found or (out is None and repeat.shared):
            return found
        target = _target(start, out)
        _elements(target)[:] = _elements(found)  # not every dtype can be cloned
        if out is None:
            return target if self.device is None else target.to(self.device)
        return out if target is out else out.copy_(target)

    def decode_tensor(self, packet: Packet, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the tensor of one packet that needs no other, `out` if that is given."""
        cursor = Cursor(memoryview(packet.body), 0)
        start = Start.get(cursor)
        if start.kind == REPEAT:
            raise BitstreamError("a tensor that is said to be another one stands alone")
        self._check_size(start)
        head, coded = _coded(start, cursor, packet.bulk)
        if start.kind != ELEMENTS:
            there = self._on_device(start, out)
            split = split_of(start.dtype)
            n = start.nbytes // split.width
            if there is not None and on_device.decode(head, coded, n, split, _flat(there)):
                return there
        if start.kind == ELEMENTS:
            target = _target(start, out)
            _elements(target)[:] = coded
        else:
            split = split_of(start.dtype)
            n = start.nbytes // split.width
            decoder = planes.Decoder(head, coded, n, split.width, split.layout)
            target = _target(start, out)
            decoder.decode(_elements(target), threads=self.threads)
        if out is None:
            return target if self.device is None else target.to(self.device)
        return out if target is out else out.copy_(target)

    def decode_rows(self, packet: Packet, first: int, last: int) -> torch.Tensor:
        """Return rows first .. last - 1 of the tensor of one packet that needs no other.

        Raises:
            BitstreamError: the packet is damaged where the rows are.
            ValueError: there are no such rows.
        """
        cursor = Cursor(memoryview(packet.body), 0)
        start = Start.get(cursor)
        if not start.shape:
            raise ValueError("a tensor without dimensions has no rows")
        rows = start.shape[0]
        if not 0 <= first <= last <= rows:
            raise ValueError(f"rows are {first} to {last}, expected a range of 0 to {rows}")
        part = Start(start.dtype, start.kind, (last - first, *start.shape[1:]))
        self._check_size(part)
        head, coded = _coded(start, cursor, packet.bulk)
        target = _new(part)
        row_bytes = start.nbytes // rows if rows else 0
        if start.kind == ELEMENTS:
            _elements(target)[:] = coded[first * row_bytes : last * row_bytes]
        else:
            split = split_of(start.dtype)
            n, row = start.nbytes // split.width, row_bytes // split.width
            decoder = planes.Decoder(head, coded, n, split.width, split.layout)
            decoder.decode(_elements(target), (first * row, last * row), threads=self.threads)
        return target if self.device is None else target.to(self.device)

    def on_device(self, packet: Packet, device: torch.device) -> Any:
        """Bring a packet to a device, coded as it is; None where that has no kernels for it.

        Returns:
            `kernels.planes_cuda.Packed`.

        Raises:
            BitstreamError: the packet is damaged.
        """
        cursor = Cursor(memoryview(packet.body), 0)
        start = Start.get(cursor)
        if start.kind not in (CODED, CODED_BULK):
            return None
        head, coded = _coded(start, cursor, packet.bulk)
        split = split_of(start.dtype)
        return on_device.bring(head, coded, start.nbytes // split.width, split, device)

    def _check_size(self, start: Start) -> None:
        if self.max_bytes is not None and start.nbytes > self.max_bytes:
            raise BitstreamError(
                f"a tensor has {start.nbytes} bytes, the limit max_bytes is {self.max_bytes}"
            )

    def _on_device(self, start: Start, out: torch.Tensor | None) -> torch.Tensor | None:
        """A contiguous tensor on a GPU to decode into; None where the result is for the CPU."""
        if out is not None and not isinstance(out, torch.Tensor):
            return None  # which `_target` says
        if out is not None:
            fits = (out.dtype, out.shape) == (start.dtype, start.shape) and out.is_contiguous()
            return out if fits and out.device.type != "cpu" else None
        if self.device is None or torch.device(self.device).type == "cpu":
            return None
        return torch.empty(start.shape, dtype=start.dtype, device=self.device)

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """Say dtype and shape."""
        start = Start.get(Cursor(memoryview(packet.body), 0))
        return {"dtype": start.dtype, "shape": start.shape}


def _check(tensor: torch.Tensor) -> None:
    """Raise ValueError unless this is a tensor that can be coded."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"expected a torch.Tensor, got {type(tensor).__name__}")
    dtype_id(tensor.dtype)
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise ValueError(
            f"a {tensor.layout} tensor on {tensor.device} cannot be coded; make it dense first"
        )


def _elements(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor's elements in C order; a view where the tensor allows it."""
    _check(tensor)
    elements: memoryview = _flat(tensor).cpu().numpy().data
    return elements


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes as uint8 of one dimension, where the tensor is; a view where it allows it."""
    plain = tensor.detach()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj().reshape(-1))  # of rank 64, too
    return _as_integers(plain.resolve_neg()).contiguous().reshape(-1).view(torch.uint8)


def _packet(
    key: Key, dtype: torch.dtype, shape: tuple[int, ...], head: bytes, coded: Buffer
) -> Packet:
    """The packet of a coded tensor; what is large becomes its bulk."""
    if len(coded) >= BULK_BYTES:
        return Packet(key, Start(dtype, CODED_BULK, shape).put() + head, coded)
    start = Start(dtype, CODED, shape).put() + put_varint(len(head))
    return Packet(key, b"".join((start, head, coded)))


def _as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits as integers: not every dtype can be copied or made contiguous."""
    size = tensor.dtype.itemsize
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size])


def _coded(start: Start, cursor: Cursor, bulk: Buffer) -> tuple[memoryview, Buffer]:
    """Head and coded bytes of a body whose start has been read; elements have no head."""
    rest = cursor.take(cursor.left, "body")
    if start.kind == CODED_BULK:
        return rest, bulk
    if len(bulk):
        raise BitstreamError(f"{len(bulk)} bytes of bulk after a body that holds everything")
    if start.kind == ELEMENTS:
        if len(rest) != start.nbytes:
            raise BitstreamError(f"{len(rest)} bytes of elements, the shape needs {start.nbytes}")
        return rest[:0], rest
    inner = Cursor(rest, 0)
    head = inner.take(get_varint(inner, "length of the head"), "head")
    return head, inner.take(inner.left, "coded bytes")


def _target(start: Start, out: torch.Tensor | None) -> torch.Tensor:
    """A contiguous tensor in memory to decode into: `out` itself where it can be."""
    if out is None:
        return _new(start)
    if not isinstance(out, torch.Tensor) or (out.dtype, out.shape) != (start.dtype, start.shape):
        raise ValueError(f"out must be a {start.dtype} tensor of shape {start.shape}")
    plain = out.device.type == "cpu" and out.is_contiguous()
    if plain and not (out.is_conj() or out.is_neg()):
        return out
    return _new(start)


def _new(start: Start) -> torch.Tensor:
    tensor = torch.empty(start.shape, dtype=start.dtype)
    memory.prefer_large_pages(_elements(tensor))
    return tensor


CODEC = Lossless
