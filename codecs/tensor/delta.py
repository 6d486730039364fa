"""Tensors as differences from a base that both sides have: fine-tunes, steps of a training.

    new, base -> distance in units in the last place -> token, raw bits
                 base's exponent -> table row ----------> rANS

A step of an optimiser has about one size, so how many units in the last place a weight moves
follows from its exponent, which the base knows: with a table for each exponent (or run of
exponents) deltas take 25 to 35 % less than the order-0 entropy of the distances. Integers are
subtracted or XORed, whichever costs less. `kernels/delta_ref.py` defines the coded bytes.

Bitstream (a packet is one tensor; its key is the name, or none)
    ========  ======  ==================================================================
    field     bytes   meaning
    ========  ======  ==================================================================
    how       1       0 lossless, 1 unchanged, 2 delta
    rest      *       how 0: body and bulk of tensor/lossless
    dtype ... *       how 1, 2: as in tensor/lossless: dtype, kind, shape. Kind is 0 for
                      how 1, and 1 (coded) or 2 (coded bytes in the bulk) for how 2
    base      8       digest of the base's tensor of the same name (`digest.tensor_digest`)
    coded     *       kind 1: varint bytes of the head, head, coded bytes
                      kind 2: head; the bulk is the coded bytes
    ========  ======  ==================================================================
Parameters in the header box: `base` and `self`, the digests of base and new model.
FORMAT.md, section 13, is the full description.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch

from ...kernels import delta
from ...kernels.errors import BitstreamError
from ..codec import Codec, Packet, Rate
from ..fields import Cursor, Key, put_varint
from .digest import Tensors, digest, join_digests, tensor_digest
from .dtypes import delta_field
from .lossless import BULK_BYTES, Lossless, _coded, _elements, _target
from .packet import CODED, CODED_BULK, ELEMENTS, Start

LOSSLESS, UNCHANGED, DELTA = 0, 1, 2
DIGEST_BYTES = 8
# A delta of more than one part in so many is compared with the tensor without its base.
DOUBTFUL = 4
# It must be smaller by one part in so many: without a base a tensor is read faster.
GAIN = 64


class Delta(Codec):
    """Codec 3, `tensor/delta`.

    Args:
        base: a tensor, or a mapping of names to tensors (`latentpack.open` gives one), to which
            the new ones are compared, or were. It is read, never changed.
        mode: of tensors that are stored without the base: "fast", "tight" or "small".
        threads: at most so many; None = one per core. Never changes a byte.
        device: where decoded tensors shall be; None is the CPU.
        max_bytes: decoding refuses tensors of more bytes.

    Raises:
        ValueError: an option is outside its range.
    """

    name: ClassVar[str] = "tensor/delta"

    def __init__(
        self,
        base: Tensors | None = None,
        mode: str = "tight",
        threads: int | None = None,
        device: torch.device | str | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Check and keep the options."""
        self._lossless = Lossless(mode, threads, device=device, max_bytes=max_bytes)
        if base is not None and not isinstance(base, (torch.Tensor, Mapping)):
            raise ValueError(f"base is a {type(base).__name__}, expected a tensor or a mapping")
        self._base: Mapping[Any, torch.Tensor] | None = (
            {None: base} if isinstance(base, torch.Tensor) else base
        )
        self._digests: dict[Key, bytes] = {}
        self.threads = threads
        self.device = device
        self.max_bytes = max_bytes

    def header(self, signal: Tensors) -> dict[str, Any]:
        """Return the digests of the base and of what is coded."""
        return {"base": self._base_digest(), "self": digest(signal)}

    def encode(
        self, signal: Tensors, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """Yield a packet per tensor.

        Args:
            signal: a tensor, or a mapping of names to tensors, as the base is.
            rate: must be None.
            reserve: not used.

        Raises:
            ValueError: not a dense tensor, a quantised one, no base, or a rate is asked for.
        """
        if rate is not None:
            raise ValueError(f"tensor/delta takes no rate, got {rate}")
        named = signal.items() if isinstance(signal, Mapping) else [(None, signal)]
        for name, tensor in named:
            yield self.encode_tensor(tensor, name)

    def encode_tensor(self, tensor: torch.Tensor, key: Key = None) -> Packet:
        """Return the packet of one tensor."""
        base = self._need_base().get(key)
        if base is None or (base.dtype, base.shape) != (tensor.dtype, tensor.shape):
            return self._without_base(tensor, key)
        new, old, field = _elements(tensor), _elements(base), delta_field(tensor.dtype)
        measured = delta.measure(
            new, old, field.width, field.operations, field.shift, field.bits, threads=self.threads
        )
        shape = tuple(tensor.shape)
        if not measured.changed:
            start = Start(tensor.dtype, ELEMENTS, shape).put() + self._digest(key, base)
            return Packet(key, bytes([UNCHANGED]) + start)
        head, coded = delta.encode(measured, new, old, threads=self.threads)
        kind = CODED_BULK if len(coded) >= BULK_BYTES else CODED
        start = bytes([DELTA]) + Start(tensor.dtype, kind, shape).put() + self._digest(key, base)
        if kind == CODED_BULK:
            packet = Packet(key, start + head, coded)
        else:
            packet = Packet(key, b"".join((start, put_varint(len(head)), head, coded)))
        if DOUBTFUL * _size(packet) <= len(new):
            return packet
        alone = self._without_base(tensor, key)
        return packet if GAIN * _size(packet) < (GAIN - 1) * _size(alone) else alone

    def _without_base(self, tensor: torch.Tensor, key: Key) -> Packet:
        packet = self._lossless.encode_tensor(tensor, key)
        return Packet(key, bytes([LOSSLESS]) + packet.body, packet.bulk)

    def decode(
        self, header: dict[str, Any], packets: Iterable[Packet], out: Any = None
    ) -> torch.Tensor | dict[str | int, torch.Tensor]:
        """Return the tensor of a packet without a key, or a dict of those with keys.

        Args:
            header: `base` and `self`.
            packets: of the tensors that are wanted.
            out: a tensor, or a mapping of tensors, to decode into. It may be the base, which
                then becomes the new model; after an error it may be neither.

        Raises:
            BitstreamError: a packet is damaged.
            ValueError: the base is missing or another one, or `out` does not fit.
        """
        decoded: dict[str | int, torch.Tensor] = {}
        for packet in packets:
            if packet.key is None:
                return self.decode_tensor(header, packet, out)
            if out is not None and packet.key not in out:
                raise ValueError(f"out has no tensor {packet.key!r}; it must have one of each name")
            target = None if out is None else out[packet.key]
            decoded[packet.key] = self.decode_tensor(header, packet, target)
        return decoded

    def decode_tensor(
        self, header: dict[str, Any], packet: Packet, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the tensor of one packet, which is `out` if that is given."""
        cursor = Cursor(memoryview(packet.body), 0)
        how, start, stated = _start(cursor)
        if how == LOSSLESS:
            return self._lossless.decode_tensor(_lossless_part(packet), out)
        if self.max_bytes is not None and start.nbytes > self.max_bytes:
            raise BitstreamError(
                f"a tensor has {start.nbytes} bytes, the limit max_bytes is {self.max_bytes}"
            )
        base = self._base_of(header, packet.key, start, stated)
        if how == UNCHANGED:
            if cursor.left or len(packet.bulk):
                raise cursor.error("unchanged tensor", "bytes follow")
            target = _target(start, out)
            if target is not base:
                _elements(target)[:] = _elements(base)
        else:
            decoder = _decoder(start, cursor, packet)
            target = _target(start, out)
            decoder.decode(_elements(base), _elements(target), threads=self.threads)
        if out is None:
            return target if self.device is None else target.to(self.device)
        return out if target is out else out.copy_(target)

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """Say dtype and shape; the base is not needed."""
        how, start, _ = _start(Cursor(memoryview(packet.body), 0))
        if how == LOSSLESS:
            return self._lossless.describe(header, _lossless_part(packet))
        return {"dtype": start.dtype, "shape": start.shape}

    def verify(self, header: dict[str, Any], packet: Packet) -> None:
        """Compare the checksums; the base is not needed."""
        cursor = Cursor(memoryview(packet.body), 0)
        how, start, _ = _start(cursor)
        if how == LOSSLESS:
            self._lossless.decode_tensor(_lossless_part(packet))
        elif how == DELTA:
            _decoder(start, cursor, packet).check()

    def _need_base(self) -> Mapping[Any, torch.Tensor]:
        if self._base is None:
            raise ValueError("tensor/delta needs a base; give the old tensors as base=")
        return self._base

    def _digest(self, key: Key, base: torch.Tensor) -> bytes:
        if key not in self._digests:
            self._digests[key] = tensor_digest(base)
        return self._digests[key]

    def _base_digest(self) -> bytes:
        base = self._need_base()
        return join_digests({name: self._digest(name, base[name]) for name in base})

    def _base_of(
        self, header: dict[str, Any], key: Key, start: Start, stated: bytes
    ) -> torch.Tensor:
        """The base's tensor, if it is the one that the delta was made from."""
        wanted = header.get("base")
        whole = wanted.hex() if isinstance(wanted, bytes) else "unknown"
        if self._base is None:
            raise ValueError(f"this is a delta; give the base with digest {whole} as base=")
        base = self._base.get(key)
        if base is None:
            raise ValueError(
                f"the base has no tensor {key!r}; the delta needs the base with digest {whole}, "
                f"this one has {self._base_digest().hex()}"
            )
        found = tensor_digest(base)
        if found != stated or (base.dtype, tuple(base.shape)) != (start.dtype, start.shape):
            raise ValueError(
                f"tensor {key!r} of the base has digest {found.hex()}, the delta was made from "
                f"{stated.hex()}; it needs the base with digest {whole}, this one has "
                f"{self._base_digest().hex()}"
            )
        return base


def _start(cursor: Cursor) -> tuple[int, Start, bytes]:
    """How a tensor is stored, and what is said before it is; of a lossless one only the first."""
    how = cursor.take(1, "how")[0]
    if how == LOSSLESS:
        return how, Start(torch.uint8, ELEMENTS, ()), b""
    if how > DELTA:
        raise cursor.error("how", f"is {how}, expected 0 to {DELTA}")
    start = Start.get(cursor)
    if start.kind not in ((ELEMENTS,) if how == UNCHANGED else (CODED, CODED_BULK)):
        raise cursor.error("kind", f"is {start.kind}, which does not go with how {how}")
    return how, start, bytes(cursor.take(DIGEST_BYTES, "digest"))


def _decoder(start: Start, cursor: Cursor, packet: Packet) -> delta.Decoder:
    head, coded = _coded(start, cursor, packet.bulk)
    field = delta_field(start.dtype)
    n = start.nbytes // field.width
    return delta.Decoder(head, coded, n, field.width, field.shift, field.bits)


def _lossless_part(packet: Packet) -> Packet:
    return Packet(packet.key, packet.body[1:], packet.bulk)


def _size(packet: Packet) -> int:
    return len(packet.body) + len(packet.bulk)


CODEC = Delta
