"""Sound codecs by the names that `compare` takes: ours with options, and peers at a rate.

audio/rvq                    a codec of the registry as it comes
audio/rvq@kbps=3,effort=9    at a rate, and with an option
audio/lossless
opus@12                      a peer (datasets/audio_peers.py) at 12 kbit/s
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Reader
from latentpack.datasets.audio_peers import PEERS
from latentpack.datasets.audio_samples import from_integers, to_integers
from latentpack.scripts import sounds
from latentpack.scripts.codec_options import read_options, split_names
from latentpack.scripts.main import note


@dataclass(frozen=True)
class SoundCodec:
    """A sound codec that can be listened to.

    Attributes:
        name: as it was asked for, with its options.
        settings: in words.
        ours: it is one of latentpack's.
        encode: (float32 [C, N] in -1..1, sample rate in Hz, bits of a sample: 16 or 24) -> the
            whole file.
        decode: (the whole file, sample rate that was encoded) -> float32 [C', N'] at that rate.
    """

    name: str
    settings: str
    ours: bool
    encode: Callable[[Tensor, int, int], bytes]
    decode: Callable[[bytes, int], Tensor]


def known_names() -> list[str]:
    """All names, without options; a peer may be missing."""
    return [*(name for name in registry.CODECS.values() if name.startswith("audio/")), *PEERS]


def open_codecs(text: str) -> list[SoundCodec]:
    """All codecs of a list of names; says on stderr which peers are left out.

    Raises:
        ValueError: a name or option is unknown, or nothing is left.
    """
    names = split_names(text, known_names())
    found = []
    for name in names:
        bare, _, options = name.partition("@")
        if bare not in known_names():
            raise ValueError(f"codec {bare!r} is unknown; there are {', '.join(known_names())}")
        codec = _peer(name, bare, options) if bare in PEERS else _ours(name, bare, options)
        missing = PEERS[bare].missing() if bare in PEERS else None
        if missing:
            note(f"{name} is left out: it needs {missing}")
        else:
            found.append(codec)
    if not found:
        raise ValueError(f"none of {', '.join(names)} can run here")
    return found


def _ours(name: str, bare: str, texts: str) -> SoundCodec:
    parts = texts.split(",")
    rates = [part.removeprefix("kbps=") for part in parts if part.startswith("kbps=")]
    options = read_options(",".join(part for part in parts if not part.startswith("kbps=")))
    rate = Rate(kbps=_number(name, rates[0])) if rates else None
    known = registry.parameters(registry.load(bare))
    for option in options.keys() - known:
        raise ValueError(f"{bare} has no option {option!r}; it has {', '.join(sorted(known))}")
    exact = sounds.takes_integers(bare)

    def encode(x: Tensor, sample_rate: int, bits: int) -> bytes:
        given = {"sample_rate": sample_rate} | ({"bits": bits} if exact else {}) | options
        if exact:
            bits = given["bits"]
            x = to_integers(x, torch.int16 if bits <= 16 else torch.int32, bits)
        file = io.BytesIO()
        sounds.write_sound(file, sounds.open_codec(bare, **given), iter([x]), rate)
        return file.getvalue()

    def decode(data: bytes, sample_rate: int) -> Tensor:
        reader = Reader(data)
        codec = sounds.open_codec(reader.codec_id, weights=options.get("weights"))
        x = torch.cat(list(sounds.sound_blocks(reader, codec)), 1)
        return x if x.is_floating_point() else from_integers(x, reader.params["b"])

    return SoundCodec(name, f"latentpack {name}", True, encode, decode)


def _peer(name: str, bare: str, kbps: str) -> SoundCodec:
    coder = PEERS[bare]
    rate = _number(name, kbps)
    return SoundCodec(
        name,
        f"{coder.settings}, {rate:g} kbit/s",
        False,
        encode=lambda x, sample_rate, _: coder.encode(x, sample_rate, rate),
        decode=coder.decode,
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: the rate must be a number of kbit/s, got {text!r}") from None
