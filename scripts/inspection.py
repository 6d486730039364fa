"""What a packed file holds, and whether every checksum in it is right."""

import io
import math
import mmap
import warnings
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, DamageWarning, Packet
from latentpack.codecs.container import Reader
from latentpack.codecs.outer import OuterReader
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts import video_inspection


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `bytes` in the file, `raw_bytes` when decoded."""

    name: str | int | None
    dtype: str
    shape: list[int]
    bytes: int
    raw_bytes: int


@dataclass
class Report:
    """What `inspect_file` found.

    Attributes:
        codec: its name, or "unknown codec 77".
        picture: [width, height, channels], for pictures.
        sound: channels, sample_rate in Hz and samples to a channel, for sounds.
        video: what video_inspection.look says, for videos.
        fitted: what image/fit says about its tiles; bytes are of all of them.
        levels: of image/tokens, as Tokens.levels_in says; none without the weights.
        base: digest of the model that a delta was made from.
        digest: of the model that the delta is, by which it can be a base itself.
        packets: how many are whole.
        packets_listed: how many the index lists; None where there is no index any more.
        damage: one line for each thing that is wrong.
    """

    path: str
    bytes: int
    codec: str
    weights: str | None
    metadata: dict[str, Any]
    picture: list[int] | None = None
    sound: dict[str, int] | None = None
    video: dict[str, Any] | None = None
    sample_bytes: int = 2
    base: str | None = None
    digest: str | None = None
    tensors: list[TensorInfo] = field(default_factory=list)
    fitted: dict[str, Any] = field(default_factory=dict)
    levels: list[dict[str, Any]] = field(default_factory=list)
    packets: int = 0
    packets_listed: int | None = None
    damage: list[str] = field(default_factory=list)

    @property
    def raw_bytes(self) -> int | None:
        """Bytes of the decoded signal."""
        if self.picture:
            return math.prod(self.picture)
        if self.sound:
            return self.sound["channels"] * self.sound["samples"] * self.sample_bytes
        if self.video:
            return None
        return sum(tensor.raw_bytes for tensor in self.tensors) if self.tensors else None

    @property
    def seconds(self) -> float:
        """Of a sound or a video."""
        if self.video:
            return float(self.video["seconds"])
        return self.sound["samples"] / self.sound["sample_rate"] if self.sound else 0.0

    @property
    def kbps(self) -> float | None:
        """1000 bits of the file per second of its signal; None where there is no second."""
        return self.bytes * 8 / self.seconds / 1000 if self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: blobs are given by their size."""
        shown = {key: value for key, value in vars(self).items() if value is not None}
        shown["metadata"] = {
            key: {"bytes": len(value)} if isinstance(value, bytes) else value
            for key, value in self.metadata.items()
        }
        shown["tensors"] = [vars(tensor) for tensor in self.tensors]
        shown["whole"] = not self.damage
        for name in ("fitted", "levels"):
            if not shown[name]:
                del shown[name]
        del shown["sample_bytes"]
        if self.sound or self.video:
            shown |= {"seconds": self.seconds, "kbps": self.kbps}
        if self.picture:
            shown["bpp"] = self.bytes * 8 / (self.picture[0] * self.picture[1])
        if self.raw_bytes is not None:
            shown["raw_bytes"] = self.raw_bytes
            shown["ratio"] = self.raw_bytes / self.bytes
        return shown


def inspect_file(file: BinaryIO, path: str) -> Report:
    """Read a whole file and check it, the chunks of tensors too.

    Args:
        file: seekable.
        path: its name for the report.

    Raises:
        BitstreamError: not even its header can be read.
    """
    size = file.seek(0, 2)
    reader = _open(file, recover=True)
    weights, base, digest = (_hex(reader.params.get(name)) for name in ("w", "base", "self"))
    report = Report(
        path=path,
        bytes=size,
        codec=registry.CODECS.get(reader.codec_id, f"unknown codec {reader.codec_id}"),
        weights=weights,
        metadata=reader.metadata,
        base=base,
        digest=digest,
    )
    if report.codec.startswith("image/"):
        report.picture = _dimensions(reader.params)
    report.sound = _sound(reader.params) if report.codec.startswith("audio/") else None
    if report.sound and type(reader.params.get("b")) is int:
        report.sample_bytes = -(-reader.params["b"] // 8)
    if report.codec.startswith("video/"):
        report.video = video_inspection.look(reader)
    codec = None
    # A box's checksum leaves out the bulk of tensors; and a fitted picture has more to tell.
    if report.codec.startswith(("tensor/", "audio/")) or report.codec == "image/fit":
        codec = registry.load(reader.codec_id)()
    try:
        for packet in reader.packets():
            _look_at(packet, reader, codec, report)
    except BitstreamError as error:
        _salvage(file, reader, codec, report)
        report.damage.insert(0, str(error))
    if report.codec == "image/tokens":
        report.levels = _levels(reader)
    return report


def _levels(reader: Reader | OuterReader) -> list[dict[str, Any]]:
    """The levels that are whole; none if they can't be read, which is told as damage elsewhere."""
    codec: Any = registry.load(reader.codec_id)
    with warnings.catch_warnings(action="ignore", category=DamageWarning):
        try:
            found: list[dict[str, Any]] = codec(keep_going=True).levels_in(
                reader.params, reader.packets()
            )
        except (ValueError, OSError):  # other weights, or not even one whole level
            return []
    return found


def _open(file: BinaryIO, recover: bool = False) -> Reader | OuterReader:
    """The reader of the outer form that a file has."""
    file.seek(8)
    if file.read(1) != b"{":
        return Reader(file, recover)
    try:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except io.UnsupportedOperation:  # standard input, held in memory
        file.seek(0)
        view = memoryview(file.read())
    return OuterReader(view)


def _hex(value: object) -> str | None:
    return value.hex() if isinstance(value, bytes) else None


def _dimensions(params: dict[str, Any]) -> list[int] | None:
    size = params.get("s")
    whole = isinstance(size, list) and len(size) == 3 and all(type(n) is int for n in size)
    return size if whole else None


def _sound(params: dict[str, Any]) -> dict[str, int] | None:
    channels, rate = params.get("c"), params.get("r")
    if type(channels) is not int or type(rate) is not int or channels < 1 or rate < 1:
        return None
    return {"channels": channels, "sample_rate": rate, "samples": 0}


def _look_at(
    packet: Packet, reader: Reader | OuterReader, codec: Codec | None, report: Report
) -> None:
    """Add a packet whose box is right to the report."""
    if report.video:
        if (problem := video_inspection.add(report.video, reader.params, packet)) is not None:
            report.damage.append(problem)
            return
    elif report.picture and codec is not None:
        _add_tile(packet, reader, codec, report)
    elif report.sound and codec is not None:
        report.sound["samples"] += codec.describe(reader.params, packet)["samples"]
    elif codec is not None:
        try:
            about = codec.describe(reader.params, packet)
            needed = codec.needs(packet)
            if needed is None:
                codec.verify(reader.params, packet)
            elif needed not in [tensor.name for tensor in report.tensors]:
                raise BitstreamError(f"{needed!r}, whose elements it has, is not there")
        except BitstreamError as error:
            report.damage.append(f"{packet.key!r}: {error}")
            return
        shape, dtype = list(about["shape"]), about["dtype"]
        report.tensors.append(
            TensorInfo(
                packet.key,
                str(dtype).removeprefix("torch."),
                shape,
                len(packet.body) + len(packet.bulk),
                math.prod(shape) * dtype.itemsize,
            )
        )
    report.packets += 1


def _add_tile(packet: Packet, reader: Reader | OuterReader, codec: Codec, report: Report) -> None:
    try:
        about = codec.describe(reader.params, packet)
    except BitstreamError as error:
        report.damage.append(f"{packet.key!r}: {error}")
    except ValueError:
        pass  # made with a prior that is not here: nothing is wrong with the file
    else:
        for name, value in about.items():
            added = report.fitted.get(name, 0) if name.endswith("_bytes") else 0
            report.fitted[name] = value + added if name.endswith("_bytes") else value


def _salvage(
    file: BinaryIO, reader: Reader | OuterReader, codec: Codec | None, report: Report
) -> None:
    """Count again, packet by packet, what can be read of a damaged file."""
    report.packets, report.tensors, report.damage = 0, [], []
    if report.sound:
        report.sound["samples"] = 0
    if report.video:
        report.video = video_inspection.look(reader)
    try:
        report.packets_listed = len(_open(file).keys())
    except BitstreamError:
        report.packets_listed = None
    for key in reader.keys():
        try:
            packet = reader.read(key)
        except BitstreamError as error:
            report.damage.append(f"{key!r}: {error}")
        except KeyError:
            continue  # several packets without a key: found only by reading in order
        else:
            _look_at(packet, reader, codec, report)
