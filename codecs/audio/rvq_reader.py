"""Packets of `audio/rvq` to samples: the order of packets, gaps, and parts of a sound."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..codec import DamageWarning, Packet
from ..fields import Cursor, get_varint
from ..transforms.resample import reach
from .rvq_blocks import ROWS
from .rvq_decoder import SoundDecoder
from .rvq_networks import Networks
from .rvq_packets import Body, Coder, get_body
from .rvq_timing import Timing

Piece = tuple[int, Tensor]  # number of the first sample, and samples [C, n]


class PacketReader:
    """Decodes the packets of one sound."""

    def __init__(self, networks: Networks, timing: Timing, channels: int, keep_going: bool) -> None:
        """Take what the header says.

        Args:
            networks: that the codes are for.
            timing: of the packets.
            channels: of the sound.
            keep_going: conceal what is damaged or missing, with a DamageWarning.
        """
        self.channels = channels
        self._networks, self._timing, self._keep_going = networks, timing, keep_going
        size = networks.size
        self._coder = Coder(size.codebook_size, size.n_q, networks.prior)

    def read(self, packets: Iterable[Packet], skip: int = 0) -> Iterator[Piece]:
        """Decode packets that follow each other.

        Args:
            packets: the first of which may have any number.
            skip: the first code frame that is decoded; those before it are not looked at.

        Raises:
            BitstreamError: a packet is damaged or missing, and not keep_going.
        """
        number = skip // self._timing.group  # of the packet that comes next
        decoder = SoundDecoder(self._networks, self._timing.sample_rate, self.channels, skip)
        begun = self._keep_going or skip > 0  # else the packets may be any part of a sound
        total = self._timing.start(number)  # samples before that packet
        for packet in self._whole(packets):
            key = packet.key
            if type(key) is not int or key < number:
                raise BitstreamError(f"packet {key!r} is out of order, expected {number}")
            if key > number and begun:
                self._damage(BitstreamError(f"packet {number} is missing"))
                yield self._conceal(decoder, key * self._timing.group)
            elif key > number:
                decoder = self._start(key * self._timing.group)
            if key > number:
                number, total = key, self._timing.start(key)
            first = decoder.next
            samples, x = self._decode(decoder, packet, total)
            begun, number, total = True, number + 1, total + samples
            yield first, x[:, : max(0, total - first)]
        ends = self._timing.frames(total) if begun else 0
        for first, x in (self._conceal(decoder, ends), (decoder.next, decoder.finish())):
            yield first, x[:, : max(0, total - first)]

    def read_range(self, read: Callable[[int], Packet], start: int, stop: int) -> Iterator[Piece]:
        """What `read` gives of the whole sound, as far as samples start to stop need it.

        Args:
            read: gives the packet of a number, KeyError behind the last one.
            start: sample.
            stop: sample.
        """
        timing, size = self._timing, self._networks.size
        wide = -(-reach(size.sample_rate, timing.sample_rate) // size.frame)
        before = self._networks.memory + 2 * wide + 1  # frames; 2: of the resampler's own samples
        skip = max(0, timing.frame_at(start) - before) // ROWS * ROWS
        last = (timing.frame_at(stop) + wide + 1) // timing.group

        def packets() -> Iterator[Packet]:
            for number in range(skip // timing.group, last + 1):
                try:
                    yield read(number)
                except KeyError:
                    return
                except BitstreamError as error:
                    self._damage(error)

        return self.read(packets(), skip)

    def codes(self, packets: Iterable[Packet]) -> Tensor:
        """The codes of packets from the first on, int64 [C, n_q, T]; -1 where there is none."""
        total, parts = 0, []
        for number, packet in enumerate(packets):
            if packet.key != number:
                raise BitstreamError(f"packet {packet.key!r} is out of order, expected {number}")
            body = self._parse(packet, total)
            total += body.samples
            part = torch.full((self.channels, self._coder.n_q, body.frames), -1)
            for row, codes in zip(part, body.codes, strict=True):
                if codes is not None:
                    row[: len(codes)] = codes
            parts.append(part)
        return torch.cat([torch.zeros(self.channels, self._coder.n_q, 0).long(), *parts], 2)

    def _parse(self, packet: Packet, total: int) -> Body:
        number = cast(int, packet.key)
        return get_body(
            packet.body,
            self.channels,
            self._coder,
            lambda samples: self._timing.frames_of(number, samples, total),
        )

    def _start(self, frame: int) -> SoundDecoder:
        return SoundDecoder(self._networks, self._timing.sample_rate, self.channels, frame)

    def _stated(self, packet: Packet, total: int) -> tuple[int, int]:
        """Samples and code frames that a damaged packet seems to stand for."""
        number, timing = cast(int, packet.key), self._timing
        try:
            samples = get_varint(Cursor(memoryview(packet.body), 0))
            return samples, timing.frames_of(number, samples, total)
        except BitstreamError:
            return timing.start(number + 1) - total, timing.group

    def _whole(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """The packets up to the first that can't be read."""
        left = iter(packets)
        while True:
            try:
                packet = next(left)
            except StopIteration:
                return
            except BitstreamError as error:
                self._damage(error)
                return
            yield packet

    def _damage(self, error: BitstreamError) -> None:
        """Raise an error, or warn of it."""
        if not self._keep_going:
            raise error
        warnings.warn(f"{error}; what is lost is concealed", DamageWarning, stacklevel=3)

    def _conceal(self, decoder: SoundDecoder, end: int) -> Piece:
        """Go on up to a code frame."""
        first = decoder.next
        return first, decoder.conceal(max(0, end - decoder.frames))

    def _decode(self, decoder: SoundDecoder, packet: Packet, total: int) -> tuple[int, Tensor]:
        """One packet behind `total` samples: how many it stands for, and what they complete."""
        number, timing = cast(int, packet.key), self._timing
        try:
            body = self._parse(packet, total)
        except BitstreamError as error:
            self._damage(error)
            samples, frames = self._stated(packet, total)
            return samples, self._conceal(decoder, number * timing.group + frames)[1]
        early = max(0, decoder.frames - number * timing.group)  # frames that are not wanted
        if early >= body.frames:
            return body.samples, torch.zeros(self.channels, 0)
        codes = [None if part is None else part[:, early:] for part in body.codes]
        return body.samples, decoder.push(codes, body.joint, body.frames - early)
