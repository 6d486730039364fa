"""A packet of `audio/lossless`: which channels are coded, and what goes before their bytes.

The body; varints are those of the container, zigzag(v) = 2v for v >= 0, else -2v - 1:

    size  meaning
    1     kind: 0 raw, 1 coded
    v     varint, samples n of each channel, at least 1
    4     low half of XXH3-64 of the samples [channel, n], i32 little-endian
    rest  raw: the samples [channel, n], little-endian, in as few bytes as the sound's bits need

    coded:
    1     effort
    ...   for each channel a form, u8, and
            0 constant  varint zigzag(value)
            1 copy      u8, number of an earlier channel
            2 plain     u8 partner, u8 shift, varint zigzag(low), varint high - low: the samples
                        without the `shift` low bits that are 0 in all, and their range
            3 list      u8 partner, varint size, deflated list (zlib): varint zigzag(lowest value),
                        then each further value less the one before less 1 as varints; the samples
                        are numbers in the list, 0 being the value nearest to 0
          a partner is another channel of form 2 or 3, or the channel itself: then it has none
    rest  the channels of forms 2 and 3 (`kernels/sounds_ref.py`)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...kernels import sounds
from ...kernels.errors import BitstreamError
from ...kernels.sounds import Samples
from ..fields import Cursor, get_signed, get_varint, put_signed, put_varint

MAX_SAMPLES = 1 << 24  # of a packet, all channels together
RAW, CODED = 0, 1
CONSTANT, COPY, PLAIN, LIST = range(4)
_MOST_VALUES = 1 << 16  # in a list
_RELATED = 0.05  # correlation from which a partner pays
_COMPARED = 1 << 16  # samples that are looked at for partners

Values = NDArray[np.int64]


@dataclass
class Form:
    """How a channel is told.

    Attributes:
        form: CONSTANT, COPY, PLAIN or LIST.
        value: CONSTANT: the value; COPY: the channel.
        partner: number of another channel, or its own.
        shift: PLAIN: low bits that are left out.
        low: the least number that is coded.
        high: the largest.
        values: LIST: all values, ascending.
    """

    form: int
    value: int = 0
    partner: int = 0
    shift: int = 0
    low: int = 0
    high: int = 0
    values: Values | None = None

    @property
    def coded(self) -> bool:
        """Whether the kernel codes the channel."""
        return self.form in (PLAIN, LIST)


class Head(NamedTuple):
    """What stands before the samples.

    Attributes:
        kind: RAW or CODED.
        length: samples of each channel.
        checksum: of all.
    """

    kind: int
    length: int
    checksum: bytes


def encode(samples: Samples, bits: int, effort: int) -> bytes:
    """The body of a packet with samples int32 [channels, n], n >= 1, each of so many bits."""
    samples = np.ascontiguousarray(samples)
    head = put_varint(samples.shape[1]) + _checksum(samples)
    forms = [_form(samples, channel) for channel in range(len(samples))]
    _choose_partners(samples, forms)
    told = b"".join(map(_write_form, forms))
    coded = bytes([effort]) + told + _code(samples, forms, effort)
    width = -(-bits // 8)
    if len(coded) < samples.size * width:
        return bytes([CODED]) + head + coded
    little = samples.astype("<i4").view(np.uint8).reshape(-1, 4)
    return bytes([RAW]) + head + little[:, :width].tobytes()


def read_head(cursor: Cursor, channels: int) -> Head:
    """What a packet states first."""
    kind = cursor.take(1, "kind of a packet")[0]
    if kind not in (RAW, CODED):
        raise cursor.error("kind of a packet", f"is {kind}, legal are 0 and 1")
    length = get_varint(cursor, "samples of a packet")
    if not 1 <= length <= MAX_SAMPLES // channels:
        raise cursor.error(
            "samples of a packet", f"are {length}, legal are 1 to {MAX_SAMPLES // channels}"
        )
    return Head(kind, length, bytes(cursor.take(4, "checksum of a packet")))


def decode(body: bytes, channels: int, bits: int) -> Samples:
    """The mirror of `encode`.

    Raises:
        BitstreamError: the body is damaged, or was made by a machine that computes otherwise.
    """
    cursor = Cursor(memoryview(body), 0)
    head = read_head(cursor, channels)
    read = _read_raw if head.kind == RAW else _read_coded
    samples = read(cursor, channels, head.length, bits)
    if _checksum(samples) != head.checksum:
        raise BitstreamError("the samples of a packet do not have the checksum that it states")
    return samples


def _checksum(samples: Samples) -> bytes:
    little = np.ascontiguousarray(samples, "<i4")
    return (xxhash.xxh3_64_intdigest(little.data) & 0xFFFFFFFF).to_bytes(4, "little")


def _read_raw(cursor: Cursor, channels: int, length: int, bits: int) -> Samples:
    width = -(-bits // 8)
    if cursor.left != channels * length * width:
        raise cursor.error(
            "raw samples", f"{channels} x {length} of {width} bytes do not fill {cursor.left}"
        )
    little = np.zeros((channels * length, 4), np.uint8)
    little[:, 4 - width :] = np.frombuffer(cursor.data, np.uint8, offset=cursor.position).reshape(
        -1, width
    )
    samples = little.view("<i4").reshape(channels, length) >> 8 * (4 - width)
    return samples.astype(np.int32)


def _read_coded(cursor: Cursor, channels: int, length: int, bits: int) -> Samples:
    effort = cursor.take(1, "effort")[0]
    if effort > sounds.MAX_EFFORT:
        raise cursor.error("effort", f"is {effort}, legal are 0 to {sounds.MAX_EFFORT}")
    forms = [_read_form(cursor, channel, channels, bits) for channel in range(channels)]
    for channel, form in enumerate(forms):
        if form.coded and not forms[form.partner].coded:
            raise cursor.error("partner", f"of channel {channel} is {form.partner}, not coded")
    samples = np.zeros((channels, length), np.int32)
    turns = _turns(forms)
    if turns:
        rest = cursor.take(cursor.left, "samples")
        coded = sounds.decode(rest, _kernel_channels(forms, turns), length, effort)
        for channel, row in zip(turns, coded, strict=True):
            samples[channel] = _denumbered(row, forms[channel])
    elif cursor.left:
        raise cursor.error("packet", f"{cursor.left} bytes follow the channels")
    for channel, form in enumerate(forms):
        if form.form == CONSTANT:
            samples[channel] = form.value
        elif form.form == COPY:
            samples[channel] = samples[form.value]
    return samples


# Channels.


def _form(samples: Samples, channel: int) -> Form:
    row = samples[channel]
    low, high = int(row.min()), int(row.max())
    if low == high:
        return Form(CONSTANT, low)
    for earlier in range(channel):
        if np.array_equal(row, samples[earlier]):
            return Form(COPY, earlier)
    values = _values(row, low, high)
    if values is not None:
        nearest = int(np.argmin(np.abs(values)))
        return Form(
            LIST, partner=channel, low=-nearest, high=len(values) - 1 - nearest, values=values
        )
    used = int(np.bitwise_or.reduce(row))
    shift = (used & -used).bit_length() - 1
    return Form(PLAIN, partner=channel, shift=shift, low=low >> shift, high=high >> shift)


def _values(row: Samples, low: int, high: int) -> Values | None:
    """The values of a channel where telling them saves more than it takes."""
    span = high - low + 1
    used = int(np.bitwise_or.reduce(row))
    step = used & -used
    if len(np.unique(row[:_COMPARED])) * 2 > span // step:
        return None
    found, counts = np.unique(row, return_counts=True)
    values = found.astype(np.int64)
    if len(values) > _MOST_VALUES:
        return None
    # By where the samples are: rare loud ones leave gaps, too, which save nothing.
    gaps = np.diff(values) // step
    saved_bits = float((counts[:-1] * np.log2(gaps)).sum())
    told_bits = 8 * len(_deflated(values))
    return values if saved_bits > max(4 * told_bits, row.size / 2) else None


def _deflated(values: Values) -> bytes:
    gaps = b"".join(put_varint(int(gap)) for gap in np.diff(values) - 1)
    return zlib.compress(put_signed(int(values[0])) + gaps, 9)


def _choose_partners(samples: Samples, forms: list[Form]) -> None:
    """Give each coded channel the one most like it, best one that is coded before."""
    coded = [channel for channel, form in enumerate(forms) if form.coded]
    start = max(0, (samples.shape[1] - _COMPARED) // 2)
    if len(coded) < 2 or samples.shape[1] < 64:
        return
    parts = np.diff(samples[coded, start : start + _COMPARED].astype(np.float64), 2)
    norms = np.sqrt((parts * parts).sum(1)) + 1e-9
    alike = np.abs(parts @ parts.T) / norms[:, None] / norms
    np.fill_diagonal(alike, 0)
    for i, channel in enumerate(coded):
        before = alike[i, :i]
        choice = before if before.size and before.max() >= _RELATED else alike[i]
        if choice.max() >= _RELATED:
            forms[channel].partner = coded[int(np.argmax(choice))]


def _turns(forms: list[Form]) -> list[int]:
    """Numbers of the channels that are coded."""
    return [channel for channel, form in enumerate(forms) if form.coded]


def _kernel_channels(forms: list[Form], turns: list[int]) -> list[sounds.Channel]:
    return [
        sounds.Channel(forms[i].low, forms[i].high, turns.index(forms[i].partner)) for i in turns
    ]


def _code(samples: Samples, forms: list[Form], effort: int) -> bytes:
    turns = _turns(forms)
    if not turns:
        return b""
    numbers = np.stack([_numbered(samples[i], forms[i]) for i in turns])
    return sounds.encode(numbers, _kernel_channels(forms, turns), effort)


def _numbered(row: Samples, form: Form) -> Samples:
    if form.values is None:
        return row >> form.shift
    return (np.searchsorted(form.values, row) + form.low).astype(np.int32)


def _denumbered(row: Samples, form: Form) -> Samples:
    if form.values is None:
        return row << form.shift
    samples: Samples = form.values[row - form.low].astype(np.int32)
    return samples


def _write_form(form: Form) -> bytes:
    if form.form == CONSTANT:
        return bytes([CONSTANT]) + put_signed(form.value)
    if form.form == COPY:
        return bytes([COPY, form.value])
    if form.values is None:
        bounds = put_signed(form.low) + put_varint(form.high - form.low)
        return bytes([PLAIN, form.partner, form.shift]) + bounds
    deflated = _deflated(form.values)
    return bytes([LIST, form.partner]) + put_varint(len(deflated)) + deflated


def _read_form(cursor: Cursor, channel: int, channels: int, bits: int) -> Form:
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    form = cursor.take(1, "form of a channel")[0]
    if form == CONSTANT:
        value = get_signed(cursor, "constant")
        if not lowest <= value <= highest:
            raise cursor.error("constant", f"is {value}, not of {bits} bits")
        return Form(CONSTANT, value)
    number = cursor.take(1, "number of a channel")[0]
    if form == COPY:
        if number >= channel:
            raise cursor.error("copied channel", f"is {number}, not before {channel}")
        return Form(COPY, number)
    if form not in (PLAIN, LIST) or number >= channels:
        raise cursor.error("form and partner", f"are {form} and {number}")
    if form == LIST:
        values = _read_values(cursor)
        if not lowest <= values[0] <= values[-1] <= highest:
            raise cursor.error("values", f"{values[0]} to {values[-1]} are not of {bits} bits")
        nearest = int(np.argmin(np.abs(values)))
        high = len(values) - 1 - nearest
        return Form(LIST, partner=number, low=-nearest, high=high, values=values)
    shift = cursor.take(1, "shift")[0]
    low = get_signed(cursor, "low")
    high = low + get_varint(cursor, "range")
    if shift > 31 or not lowest <= low << shift <= high << shift <= highest:
        raise cursor.error("range", f"{low} to {high} shifted by {shift} is not of {bits} bits")
    return Form(PLAIN, partner=number, shift=shift, low=low, high=high)


def _read_values(cursor: Cursor) -> Values:
    deflated = cursor.take(get_varint(cursor, "size of a list"), "list")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(deflated, 6 * _MOST_VALUES)
    except zlib.error as error:
        raise cursor.error("list", f"is damaged: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise cursor.error("list", "is cut short, too long, or followed by other bytes")
    inner = Cursor(memoryview(plain), 0)
    values = [get_signed(inner, "lowest value")]
    while inner.left:
        values.append(values[-1] + get_varint(inner, "gap of values") + 1)
        if len(values) > _MOST_VALUES or values[-1] >= 1 << 31:
            raise cursor.error("list", f"value {len(values)} is {values[-1]}")
    if len(values) < 2 or values[0] < -(1 << 31):
        raise cursor.error("list", f"of {len(values)} values from {values[0]}")
    return np.array(values, np.int64)
