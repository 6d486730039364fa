"""What kind of file is at hand, pictures or sounds, and what is asked of the run over all files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from latentpack.codecs import registry
from latentpack.kernels.errors import BitstreamError

if TYPE_CHECKING:
    from latentpack.codecs.codec import Codec, Rate

PICTURE, SOUND = "image", "audio"  # first parts of the names of codecs
_TENSOR_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".gguf"}
_Opener = Callable[..., "Codec"]


@dataclass(frozen=True)
class EncodeOptions:
    """What is the same for all files that are encoded.

    Attributes:
        codec: its name; None is the usual one for a kind of file.
        given: options of the codec.
        rate: the size or quality asked for.
        force: replace files.
        show_psnr: decode again and measure.
        keep_metadata: store what describes the signal.
        max_pixels: of a picture.
        stream: which of the sounds of a file.
        keep_going: take what can be read of damaged sounds.
        progress: for codecs that say how far they are.
        threads: for codecs that take a number of them.
    """

    codec: str | None
    given: dict[str, Any]
    rate: Rate | None
    force: bool
    show_psnr: bool
    keep_metadata: bool
    max_pixels: int
    stream: int
    keep_going: bool
    progress: Any
    threads: int | None
    opened: dict[Any, Codec] = field(default_factory=dict)

    def open(self, usual: str, opener: _Opener, **more: Any) -> Codec:
        """The codec, made once for the same options."""
        name = self.codec or usual
        offered = {"progress": self.progress, "threads": self.threads}
        return _open(self.opened, opener, name, self.given | more, offered)


@dataclass(frozen=True)
class DecodeOptions:
    """What is the same for all files that are decoded.

    Attributes:
        format_name: of the files made; None is by their names.
        given: options of the codecs.
        force: replace files.
        start: seconds of a sound that are left out before.
        duration: seconds of a sound that are decoded.
        bits: of a sound's samples, 0 for floating point.
        threads: for codecs that take a number of them.
    """

    format_name: str | None
    given: dict[str, Any]
    force: bool
    start: float | None
    duration: float | None
    bits: int | None
    threads: int | None
    opened: dict[Any, Codec] = field(default_factory=dict)

    def open(self, codec: int, opener: _Opener) -> Codec:
        """The codec of an id, made once."""
        return _open(self.opened, opener, codec, self.given, {"threads": self.threads})

    def refuse_for(self, what: str, *names: str) -> None:
        """Raise ValueError if one of these options is given, which have no meaning here."""
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"it holds {what}, for which --{name} has no meaning")


def _open(
    opened: dict[Any, Codec],
    opener: _Opener,
    codec: str | int,
    given: dict[str, Any],
    offered: dict[str, Any],
) -> Codec:
    """The codec with the options given, which it must have, and of those offered what it has."""
    known = registry.parameters(registry.load(codec))
    options = given | {name: value for name, value in offered.items() if name in known}
    key = (codec, *sorted(options.items(), key=lambda item: item[0]))
    if key not in opened:
        opened[key] = opener(codec, **options)
    return opened[key]


def suffixes(codec: str | None) -> set[str]:
    """Of the files that are taken from folders; only those for `codec`, if it is not None."""
    kind = None if codec is None else codec.split("/")[0]
    found: set[str] = set()
    if kind != SOUND:
        from latentpack.datasets import images

        found |= images.suffixes()
    if kind != PICTURE:
        from latentpack.datasets import audio_kinds

        found |= audio_kinds.suffixes()
    return found


def refuse_tensors(path: str) -> None:
    """Raise ValueError for a file whose name says that it holds tensors."""
    if Path(path).suffix.lower() in _TENSOR_SUFFIXES:
        raise ValueError(f"{path} holds tensors; `latentpack pack` packs it")


def kind_of(path: str, file: BinaryIO, codec: str | None) -> str:
    """PICTURE or SOUND, by the codec, the suffix, and else by what is in the file."""
    suffix = Path(path).suffix.lower()
    if codec is not None:
        return SOUND if codec.startswith(SOUND + "/") else PICTURE
    from latentpack.datasets import audio_kinds, images

    if suffix in audio_kinds.suffixes():
        return SOUND
    if suffix in images.suffixes():
        return PICTURE
    # Pictures open as films for FFmpeg, so what has no sound is one, or is nothing.
    return SOUND if audio_kinds.has_sound(file) else PICTURE


def kind_of_lpk(path: str, reader: Any) -> str:
    """PICTURE or SOUND, by the codec that an open .lpk file names.

    Raises:
        ValueError: it holds tensors.
        BitstreamError: the codec is unknown.
    """
    kind = registry.codec_name(reader.codec_id).split("/")[0]
    if kind not in (PICTURE, SOUND):
        raise ValueError(f"{path} holds tensors; `latentpack unpack` unpacks it")
    return kind


def decoded_suffix(path: str) -> str:
    """Of what a .lpk file becomes where nothing is asked for; files that are none get any."""
    from latentpack.codecs.container import Reader

    try:
        with Path(path).open("rb") as file:
            return ".wav" if kind_of_lpk(path, Reader(file)) == SOUND else ".png"
    except (ValueError, OSError, BitstreamError):
        return ".png"  # decoding says what is wrong
