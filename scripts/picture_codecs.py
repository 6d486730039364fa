"""Picture codecs by the names that `compare` and `evaluate` take: ours with options, and peers.

image/light                      a codec of the registry as it comes
image/light@effort=9             with an option
image/fit@preset=best,effort=3   with two
avif                             a peer (datasets/picture_peers.py)
"""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.rate_control import find_position
from latentpack.datasets.metrics import psnr_db
from latentpack.datasets.picture_peers import PEERS, PictureCoder
from latentpack.scripts.codec_options import read_options, split_names
from latentpack.scripts.main import note
from latentpack.scripts.pictures import bytes_asked, decode_picture, encode_picture, open_codec

# (step, steps in all, bits per pixel, PSNR in dB) while a picture is fitted
Progress = Callable[[int, int, float, float], None]
# The qualities of a curve. None is a codec that has no rate to choose: its curve is one point.
_QUALITIES: tuple[float | None, ...] = (0, 10, 22, 35, 48, 60, 72, 86, 100)
_QUALITIES_OF: dict[str, tuple[float | None, ...]] = {
    "image/fit": (10, 30, 50, 70, 90),  # minutes a point
    "image/lossless": (None,),
    "image/tokens": (0, 25, 50, 75),  # its levels
    "image/compressai": (None,),
}


@dataclass(frozen=True)
class PictureCodec:
    """A picture codec that can be measured.

    Attributes:
        name: as it was asked for, with its options.
        settings: in words; other settings or weights give other words.
        ours: it is one of latentpack's.
        steps: of a curve, from small files to large ones.
        encode: (uint8 [C, H, W], step) -> the whole file.
        meet: (uint8 [C, H, W], rate) -> the whole file that comes nearest to the rate.
        decode: the whole file -> uint8 [C', H, W]; see `alike`.
    """

    name: str
    settings: str
    ours: bool
    steps: tuple[float | None, ...]
    encode: Callable[[Tensor, float | None], bytes]
    meet: Callable[[Tensor, Rate], bytes]
    decode: Callable[[bytes], Tensor]


def known_names() -> list[str]:
    """All names, without options; a peer may be missing."""
    return [*(name for name in registry.CODECS.values() if name.startswith("image/")), *PEERS]


def open_codecs(text: str, progress: Progress | None = None) -> list[PictureCodec]:
    """All codecs of a list of names; says on stderr which peers are left out.

    Args:
        text: the names.
        progress: is told how codecs go on that take long.

    Raises:
        ValueError: a name or option is unknown, or nothing is left.
    """
    names = split_names(text, known_names())
    for name in names:
        _check(name)
    found = []
    for name in names:
        missing = PEERS[name].missing() if name in PEERS else None
        if missing:
            note(f"{name} is left out: it needs {missing}")
        else:
            found.append(open_by_name(name, progress))
    if not found:
        raise ValueError(f"none of {', '.join(names)} can run here")
    return found


def _check(name: str) -> None:
    bare, at, _ = name.partition("@")
    if bare not in known_names():
        raise ValueError(f"codec {bare!r} is unknown; there are {', '.join(known_names())}")
    if at and bare in PEERS:
        raise ValueError(f"{bare} takes no options; it is set to: {PEERS[bare].settings}")


def open_by_name(name: str, progress: Progress | None = None) -> PictureCodec:
    """One codec of `known_names`, with its options."""
    if name in PEERS:
        return _peer(PEERS[name])
    bare, _, texts = name.partition("@")
    options = read_options(texts)
    if progress and "progress" in registry.parameters(registry.load(bare)):
        options["progress"] = progress
    steps = _QUALITIES_OF.get(bare, _QUALITIES)
    if None in steps and glob.has_magic(str(options.get("weights", ""))):
        return _family(
            name, [open_codec(bare, **options | {"weights": w}) for w in _files(options)]
        )
    codec = open_codec(bare, **options)
    return PictureCodec(
        name,
        f"latentpack {name}{_weights(codec)}",
        ours=True,
        steps=steps,
        encode=lambda x, step: encode_picture(
            codec, x, None if step is None else Rate(quality=step)
        ),
        meet=lambda x, rate: encode_picture(codec, x, None if None in steps else rate),
        decode=lambda data: decode_picture(data, codec)[0],
    )


def _files(options: dict[str, Any]) -> list[str]:
    pattern = str(options["weights"])
    found = sorted(glob.glob(pattern))  # noqa: PTH207 (Path.glob: no absolute patterns)
    if not found:
        raise ValueError(f"{pattern}: no file matches")
    return found


def _family(name: str, codecs: list[Codec]) -> PictureCodec:
    """A codec whose weights have one rate each, as one: a step for each file of weights."""

    def encode(x: Tensor, step: float | None) -> bytes:
        assert step is not None
        return encode_picture(codecs[int(step)], x)

    def decode(data: bytes) -> Tensor:
        made_with = Reader(data).params["w"]
        codec = next(codec for codec in codecs if _digest(codec) == made_with)
        return decode_picture(data, codec)[0]

    return PictureCodec(
        name,
        f"latentpack {name}{''.join(map(_weights, codecs))}",
        ours=True,
        steps=tuple(range(len(codecs))),
        encode=encode,
        meet=lambda x, rate: _meet(x, rate, range(len(codecs)), encode, decode),
        decode=decode,
    )


def _digest(codec: Codec) -> Any:
    return codec.header(torch.zeros(3, 8, 8, dtype=torch.uint8)).get("w")


def _weights(codec: Codec) -> str:
    digest = _digest(codec)
    return f", weights {digest.hex()}" if isinstance(digest, bytes) else ""


def _peer(coder: PictureCoder) -> PictureCodec:
    def encode(x: Tensor, step: float | None) -> bytes:
        assert step is not None
        return coder.encode(for_peer(x, coder.alpha), step)

    return PictureCodec(
        coder.name,
        coder.settings,
        ours=False,
        steps=coder.steps,
        encode=encode,
        meet=lambda x, rate: _meet(x, rate, coder.dial, encode, coder.decode),
        decode=coder.decode,
    )


def _meet(
    x: Tensor,
    rate: Rate,
    dial: Sequence[float],
    encode: Callable[[Tensor, float | None], bytes],
    decode: Callable[[bytes], Tensor],
) -> bytes:
    """The file that comes nearest to a rate, by bisection over a setting that moves the size."""
    last = len(dial) - 1
    if rate.name == "quality":
        return encode(x, dial[round(min(rate.value, 100) / 100 * last)])
    files: dict[int, bytes] = {}

    def measure(position: int) -> float:
        files[position] = encode(x, dial[position])
        if rate.name == "psnr":
            return psnr_db(*visible(x, decode(files[position])))
        return len(files[position])

    target = rate.value if rate.name == "psnr" else bytes_asked(rate, x)
    assert target is not None
    found = find_position(measure, last, target, ceiling=rate.name == "max_bytes")
    if found is None:
        smallest = min(len(file) for file in files.values())
        raise ValueError(f"its smallest file of this picture takes {smallest} bytes")
    return files[found]


def for_peer(x: Tensor, alpha: bool) -> Tensor:
    """Grey repeated to RGB; alpha kept only where it can be, and where there is one."""
    rgb = colours(x)
    return torch.cat([rgb, x[-1:]]) if alpha and x.shape[0] in (2, 4) else rgb


def visible(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """What quality is measured on: colours of two pictures, as far as the first lets them show.

    Codecs may change colours below what is transparent, and some leave transparency out.
    """
    pair = colours(x), colours(x_hat)
    if x.shape[0] not in (2, 4):
        return pair
    alpha = x[-1:].int()
    one, two = ((y * alpha + 127).div(255, rounding_mode="floor").byte() for y in pair)
    return one, two


def colours(x: Tensor) -> Tensor:
    """The colours of a picture, uint8 [3, H, W]: grey is repeated, alpha left out."""
    return (x[:-1] if x.shape[0] in (2, 4) else x).expand(3, -1, -1).contiguous()
