"""`audio/rvq`: sounds as codes of residual vector quantizers, in files and streams.

Networks: `rvq_model.py` (drawing and papers).

    samples -> model's rate -> [mid and side] -> causal encoder -> beam search over the codebooks
            -> 50 frames of up to n_q codes each second -> prior -> packets

A packet is `packet_seconds` of all channels; its key is its number. Packets parse by themselves;
the decoder's networks run on from one to the next, `Rvq.decode_range` starts them early enough.

Bitstream of a packet (FORMAT.md, section 20.2):

    size  meaning
    1-9   varint: samples that the packet stands for
    1     only with two channels: 0 as they are, 1 mid and side
    1     for each coded channel: bits 0-6 codebooks k, 0 is silence; bit 7: coded with the prior
    ...   for each coded channel with k > 0: varint size (not for the last), codes

Parameters in the header: "r" = sample rate, "c" = channels, "g" = code frames to a packet, "w" =
digest of the weights (8 bytes). The small streams of `stream_encoder` are in `rvq_stream.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..codec import Codec, Packet, Rate
from ..transforms.resample import LEAST_RATE, MOST_RATE
from .rvq_channels import stages_of
from .rvq_encoder import Group, SoundEncoder
from .rvq_networks import CODEC as NAME
from .rvq_networks import Networks, choose, find, load
from .rvq_packets import Body, Coder, describe
from .rvq_rate import Budget, pace_of, rest_of, stages_of_quality
from .rvq_reader import PacketReader
from .rvq_stream import StreamDecoder, StreamEncoder, StreamHeader, stages_for
from .rvq_timing import Timing
from .rvq_tokens import decode_batch, encode_batch
from .sound import MOST_CHANNELS, to_float

_MOST_GROUP = 1024  # code frames to a packet
_MOST_BEAM = 32


class Rvq(Codec):
    """Sounds [C, N] of any sample rate: floats (full scale -1 to 1), or int16 or int32.

    Decoded sounds are float32 with the same rate, channels and length. Takes Rate kbps, ratio and
    max_bytes (the file is no larger, where one codebook allows it), and quality (0 to 100: from one
    codebook to all); without a rate all codebooks are used.
    """

    name = NAME

    def __init__(
        self,
        sample_rate: int | None = None,
        weights: str | Path | None = None,
        n_q: int | None = None,
        prior: bool = True,
        packet_seconds: float = 2.56,
        joint: bool | None = None,
        effort: int = 4,
        keep_going: bool = False,
    ) -> None:
        """Choose weights and options.

        Args:
            sample_rate: of the sounds, in Hz; None is that of the weights.
            weights: a weights file or the name of a shipped one; None is what suits the rate.
            n_q: the most codebooks; None is all.
            prior: code the codes with the prior of the weights, if these have one.
            packet_seconds: how much a packet holds, rounded to code frames.
            joint: code stereo as mid and side; None is what suits each packet.
            effort: rows of codes that the search keeps; 1 is the greedy choice.
            keep_going: conceal packets that are damaged or missing, with a DamageWarning.

        Raises:
            ValueError: an option is out of its range.
        """
        if sample_rate is not None and not LEAST_RATE <= sample_rate <= MOST_RATE:
            legal = f"{LEAST_RATE} to {MOST_RATE}"
            raise ValueError(f"sample_rate is {sample_rate} Hz, expected {legal}")
        if n_q is not None and n_q < 1:
            raise ValueError(f"n_q is {n_q}, expected 1 or more")
        if not packet_seconds > 0:
            raise ValueError(f"packet_seconds is {packet_seconds}, expected more than 0")
        if not 1 <= effort <= _MOST_BEAM:
            raise ValueError(f"effort is {effort}, expected 1 to {_MOST_BEAM}")
        self.path = choose(weights, sample_rate)
        self._rate, self._most, self._packet_seconds = sample_rate, n_q, packet_seconds
        self._use_prior, self._joint, self._beam = prior, joint, effort
        self._keep_going = keep_going

    @property
    def networks(self) -> Networks:
        """What is in the weights file, loaded at first use."""
        return load(self.path)

    @property
    def sample_rate(self) -> int:
        """Of the sounds that go in, and of those that `decode_tokens` gives, in Hz."""
        return self._rate or self.networks.size.sample_rate

    @property
    def frame_rate(self) -> float:
        """Code frames to a second."""
        return self.networks.size.frame_rate

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many codes each codebook has, of those that are used."""
        return (self.networks.size.codebook_size,) * self.n_q

    @property
    def n_q(self) -> int:
        """Codebooks that are used at most."""
        return min(self._most or self.networks.size.n_q, self.networks.size.n_q)

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec; of the sound only the channels matter."""
        if signal.ndim != 2 or not 1 <= signal.shape[0] <= MOST_CHANNELS:
            to_float(signal, self.name)  # says what is wrong
        group = self._timing().group
        return {
            "r": self.sample_rate,
            "c": signal.shape[0],
            "g": group,
            "w": self.networks.digest,
        }

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec.

        Raises:
            ValueError: no such sound or rate; or max_bytes is less than one codebook takes.
        """
        to_float(signal[:, :0], self.name)
        self._plan(rate, signal.element_size() * len(signal), reserve, signal.shape[1], len(signal))
        return self._encode([signal], rate, reserve, signal.shape[1])

    def encode_blocks(
        self, blocks: Iterable[Tensor], rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """`encode` of a sound that comes in pieces [C, n]; memory does not grow with its length."""
        return self._encode(blocks, rate, reserve, None)

    def _encode(
        self, blocks: Iterable[Tensor], rate: Rate | None, reserve: int, samples: int | None
    ) -> Iterator[Packet]:
        encoder: SoundEncoder | None = None
        make: Callable[[Group], bytes] | None = None
        for block in blocks:
            x = to_float(block, self.name)
            if encoder is None or make is None:
                encoder = self._encoder(len(x))
                original = block.element_size() * len(x)
                make = self._plan(rate, original, reserve, samples, len(x))
            for piece in torch.split(x, self._timing().start(1) or 1, 1):
                for group in encoder.push(piece):
                    yield Packet(group.number, make(group))
        if encoder is not None and make is not None:
            for group in encoder.finish():
                yield Packet(group.number, make(group))

    def _encoder(self, channels: int) -> SoundEncoder:
        return SoundEncoder(
            self.networks, self._timing(), channels, self._joint, self.n_q, self._beam
        )

    def _timing(self) -> Timing:
        frames = round(self._packet_seconds * self.frame_rate)
        return Timing(self.sample_rate, self.networks.size, min(max(1, frames), _MOST_GROUP))

    def _plan(
        self, rate: Rate | None, original: int, reserve: int, samples: int | None, channels: int
    ) -> Callable[[Group], bytes]:
        """What makes the body of a packet; ValueError for a rate that can't be."""
        networks, timing, n_q = self.networks, self._timing(), self.n_q
        coder = Coder(networks.size.codebook_size, n_q, networks.prior if self._use_prior else None)

        def body(group: Group, base: int) -> bytes:
            codes = group.codes(stages_of(base, group.fewer, n_q))
            return Body(group.samples, group.joint, codes, 0).put(coder)

        if rate is None or rate.name == "quality":
            base = n_q if rate is None else stages_of_quality(rate.value, n_q)
            return lambda group: body(group, base)
        pace = pace_of(rate, timing, samples, original, self.name)
        budget = Budget(pace, reserve, samples, rest_of(timing, coder, channels, samples))

        def chosen(group: Group) -> bytes:
            most = n_q + max(group.fewer)
            data = budget.choose(group.number, group.samples, most, lambda base: body(group, base))
            if rate.name == "max_bytes" and budget.exceeded:
                raise ValueError(
                    f"max_bytes {rate.value:.0f} is out of reach: with one codebook the file takes "
                    f"up to {budget.exceeded} bytes; make the sound shorter"
                )
            return data

        return chosen

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec.

        Raises:
            ValueError: the stream was made with weights that are not at hand.
        """
        channels = parse_header(header)[1]
        pieces = list(self.decode_blocks(header, packets))
        return torch.cat([torch.zeros(channels, 0), *pieces], 1)

    def decode_blocks(self, header: dict[str, Any], packets: Iterable[Packet]) -> Iterator[Tensor]:
        """`decode` in pieces [C, n], about one for each packet; memory does not grow with them.

        Packets may start behind the first, and end before the last. Then what the networks need of
        those before and behind is missing; `decode_range` sees to that.
        """
        return (samples for _, samples in self._reader(header).read(packets))

    def decode_range(
        self, header: dict[str, Any], read: Callable[[int], Packet], start: int, stop: int
    ) -> Tensor:
        """Samples start to stop of a sound, the same as in the whole of it.

        Args:
            header: of the file.
            read: gives the packet of a number, and raises KeyError behind the last one, as
                `Reader.read` does.
            start: sample.
            stop: sample; where the sound is shorter, it ends there.

        Returns:
            float32 [C, stop - start], or what there is of it.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"start {start} and stop {stop} must be 0 or more, and in order")
        reader = self._reader(header)
        pieces = [torch.zeros(reader.channels, 0)]
        for first, samples in reader.read_range(read, start, stop):
            pieces.append(samples[:, max(0, start - first) : max(0, stop - first)])
        return torch.cat(pieces, 1)

    def _reader(self, header: dict[str, Any]) -> PacketReader:
        sample_rate, channels, group = parse_header(header)
        networks = find(header.get("w"), self.path)
        timing = Timing(sample_rate, networks.size, group)
        return PacketReader(networks, timing, channels, self._keep_going)

    def parse(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """The codes in a file, int64 [C, n_q, T] of all coded channels; needs no networks to run.

        Where a channel has fewer codebooks, or is silent, it says -1.

        Raises:
            BitstreamError: as `decode`. ValueError: the weights are not at hand.
        """
        return self._reader(header).codes(packets)

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """See Codec: samples, and codebooks of each coded channel."""
        return describe(packet.body, parse_header(header)[1])

    def encode_tokens(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A batch of sounds of one channel as codes.

        Args:
            wav: [B, N] or [B, 1, N] at `sample_rate`, kinds of numbers as for `encode`.
            lengths: samples of each item, int64 [B]; None is N. What is behind does not matter.

        Returns:
            Codes, int64 [B, n_q, T], code q below codebook_sizes[q]: those that `encode` writes.
            Behind `token_lengths(lengths)` frames of an item they are 0.

        Raises:
            ValueError: a wrong shape, dtype, length or value.
        """
        timing = self._timing()
        return encode_batch(self.networks, timing, self.n_q, self._beam, wav, lengths)

    def token_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of codes that sounds of so many samples have, int64 [B]."""
        return torch.tensor([self._timing().frames(int(n)) for n in lengths])

    def decode_tokens(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mirror of `encode_tokens`.

        Args:
            codes: int64 [B, k, T], of the first k of all codebooks.
            lengths: samples of each item, int64 [B]; None is as many as T frames can stand for.

        Returns:
            Float32 [B, N] at `sample_rate`; behind its length an item is 0.

        Raises:
            ValueError: a wrong shape, a code outside its codebook, or more samples than frames.
        """
        return decode_batch(self.networks, self._timing(), codes, lengths)

    def stream_encoder(self, channels: int = 1, kbps: float | None = None) -> StreamEncoder:
        """An encoder for sounds on their way: small frames of a constant size, without the prior.

        Args:
            channels: of the sound, which is at `sample_rate`. Two are coded as mid and side,
                unless the option `joint` is False.
            kbps: at most so much; None uses `n_q` codebooks for each channel.

        Raises:
            ValueError: no codebook fits into the rate, or no sound has so many channels.
        """
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"channels is {channels}, expected 1 to {MOST_CHANNELS}")
        joint = channels == 2 and self._joint is not False
        stages = (self.n_q,) * channels
        if kbps is not None:
            coder = Coder(self.networks.size.codebook_size, self.n_q, None)
            stages = stages_for(kbps * 125 / self.frame_rate, channels, joint, coder)
        header = StreamHeader(self.networks.digest, self.sample_rate, joint, stages)
        return StreamEncoder(self.networks, header, self._beam)

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for what a `stream_encoder` gives."""
        return StreamDecoder(lambda digest: find(digest, self.path))


CODEC = Rvq


def parse_header(header: dict[str, Any]) -> tuple[int, int, int]:
    """Sample rate, channels, and code frames to a packet.

    Raises:
        BitstreamError: one of them is missing or illegal.
    """
    found = []
    legal = {"r": (LEAST_RATE, MOST_RATE), "c": (1, MOST_CHANNELS), "g": (1, _MOST_GROUP)}
    for name, (least, most) in legal.items():
        value = header.get(name)
        if type(value) is not int or not least <= value <= most:
            raise BitstreamError(f"header field {name} is {value!r}, expected {least} to {most}")
        found.append(value)
    sample_rate, channels, group = found
    return sample_rate, channels, group
