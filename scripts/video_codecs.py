"""Video codecs by the names that `compare` and `evaluate` take: ours with options, and peers.

video/lite                       a codec of the registry as it comes
video/fit@preset=fast,effort=3   with two options
x264                             a peer (datasets/video_peers.py)
x264@preset=veryslow,tune=psnr   with its own options
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.rate_control import find_position
from latentpack.codecs.video.frames import Frame, VideoFormat
from latentpack.datasets.video_metrics import Meter
from latentpack.datasets.video_peers import PEERS, Coded, VideoCoder
from latentpack.scripts import videos
from latentpack.scripts.codec_options import read_options, split_names
from latentpack.scripts.main import note
from latentpack.scripts.video_clips import Clip

GOP = 32  # frames, where none is asked for
# The qualities of a curve; codecs that take minutes for a clip have fewer.
_QUALITIES: tuple[float, ...] = (10, 26, 42, 58, 74, 90)
_QUALITIES_OF: dict[str, tuple[float, ...]] = {
    "video/fit": (20, 40, 60, 80),
    "video/inr": (20, 40, 60, 80),
}
_PROBE = VideoFormat(16, 16)


@dataclass(frozen=True)
class VideoCodec:
    """A video codec that can be measured.

    Attributes:
        name: as it was asked for, with its options.
        settings: in words; other settings or weights give other words.
        ours: it is one of latentpack's.
        steps: of a curve, from small files to large ones.
        encode: (clip, its frames, step) -> the file; the frames are given apart so that the time
            it takes to read them can be told from coding.
        meet: (clip, rate) -> the file that comes nearest to the rate.
        decode: (file, clip it was made of) -> planes of each frame, in order.
    """

    name: str
    settings: str
    ours: bool
    steps: tuple[float, ...]
    encode: Callable[[Clip, Iterable[Frame], float], Coded]
    meet: Callable[[Clip, Rate], Coded]
    decode: Callable[[bytes, Clip], Iterator[tuple[Tensor, ...]]]


def known_names() -> list[str]:
    """All names, without options; a peer may be missing."""
    return [*(name for name in registry.CODECS.values() if name.startswith("video/")), *PEERS]


def open_codecs(text: str, gop: int = GOP) -> list[VideoCodec]:
    """All codecs of a list of names; says on stderr which peers are left out.

    Args:
        text: the names.
        gop: frames of a group of pictures, of all codecs whose options say nothing else.

    Raises:
        ValueError: a name or option is unknown, or nothing is left.
    """
    names = split_names(text, known_names())
    found = []
    for name in names:
        codec = open_by_name(name, gop)
        bare = name.partition("@")[0]
        missing = PEERS[bare].missing() if bare in PEERS else None
        if missing:
            note(f"{name} is left out: it needs {missing}")
        else:
            found.append(codec)
    if not found:
        raise ValueError(f"none of {', '.join(names)} can run here")
    return found


def open_by_name(name: str, gop: int = GOP) -> VideoCodec:
    """One codec of `known_names`, with its options."""
    bare, _, options = name.partition("@")
    if bare in PEERS:
        return _peer(PEERS[bare].with_options(dict(_pairs(options))), gop)
    if bare not in known_names():
        raise ValueError(f"codec {bare!r} is unknown; there are {', '.join(known_names())}")
    return _ours(name, bare, {"gop": gop} | read_options(options))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"option {part!r} has no value; write {name}=..., e.g. preset=medium")
        yield name.strip(), value.strip()


def _ours(name: str, bare: str, options: dict[str, Any]) -> VideoCodec:
    codec = videos.open_codec(bare, **options)

    def code(clip: Clip, frames: Iterable[Frame], rate: Rate) -> Coded:
        length = None if rate.name == "quality" else clip.length
        file, beside = io.BytesIO(), videos.Beside({"video": clip.info})
        videos.write_video(file, codec, clip.format, frames, beside, rate, length)
        data = file.getvalue()
        packets = (len(packet.body) + len(packet.bulk) for packet in Reader(data).packets())
        return Coded(data, "lpk", sum(packets))

    def decode(data: bytes, clip: Clip) -> Iterator[tuple[Tensor, ...]]:
        reader = Reader(data)
        for frame in codec.decode_frames(reader.params, reader.packets()):
            yield frame.planes

    return VideoCodec(
        name,
        f"latentpack {name}, GoP {codec.gop}{_weights(codec)}",
        ours=True,
        steps=_QUALITIES_OF.get(bare, _QUALITIES),
        encode=lambda clip, frames, step: code(clip, frames, Rate(quality=step)),
        meet=lambda clip, rate: code(clip, clip, rate),
        decode=decode,
    )


def _weights(codec: Any) -> str:
    digest = codec.header(_PROBE).get("w")
    return f", weights {digest.hex()}" if isinstance(digest, bytes) else ""


def _peer(coder: VideoCoder, gop: int) -> VideoCodec:
    def encode(clip: Clip, frames: Iterable[Frame], step: float) -> Coded:
        return coder.encode(frames, clip.shape(gop), step)

    def decode(data: bytes, clip: Clip) -> Iterator[tuple[Tensor, ...]]:
        return map(clip.like, coder.decode(data, clip.shape(gop)))

    return VideoCodec(
        coder.name,
        f"{coder.about}, GoP {gop}",
        ours=False,
        steps=coder.steps,
        encode=encode,
        meet=lambda clip, rate: _meet(coder, encode, decode, clip, rate),
        decode=decode,
    )


def _meet(
    coder: VideoCoder,
    encode: Callable[[Clip, Iterable[Frame], float], Coded],
    decode: Callable[[bytes, Clip], Iterator[tuple[Tensor, ...]]],
    clip: Clip,
    rate: Rate,
) -> Coded:
    """The file that comes nearest to a rate, by bisection over the rate factor."""
    last = len(coder.dial) - 1
    if rate.name == "quality":
        return encode(clip, clip, coder.dial[round(min(rate.value, 100) / 100 * last)])
    files: dict[int, Coded] = {}

    def measure(position: int) -> float:
        files[position] = coded = encode(clip, clip, coder.dial[position])
        if rate.name != "psnr":
            return len(coded.data)
        meter = Meter(clip.colours, ms_ssim=False)
        for frame, planes in zip(clip, decode(coded.data, clip), strict=True):
            meter.add(frame.planes, planes)
        return meter.clip().psnr_yuv

    target = rate.value if rate.name == "psnr" else bytes_asked(clip, rate)
    found = find_position(measure, last, target, ceiling=rate.name == "max_bytes")
    if found is None:
        smallest = min(len(coded.data) for coded in files.values())
        raise ValueError(f"its smallest file of this clip takes {smallest} bytes")
    return files[found]


def bytes_asked(clip: Clip, rate: Rate) -> float:
    """The size that a rate asks for, in bytes of the whole file.

    Raises:
        ValueError: it is a rate of another kind.
    """
    if rate.name == "kbps":
        return rate.value * 125 * (clip.length.seconds or 0.0)
    if rate.name == "bpp":
        return rate.value * clip.pixels * clip.length.frames / 8
    if rate.name == "max_bytes":
        return rate.value
    raise ValueError(f"videos take no {rate.name} here; they take kbps, bpp, max_bytes or psnr")
