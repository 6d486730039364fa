"""What kind of file is at hand, picture, sound or video, and what is asked of the whole run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from latentpack.codecs import registry
from latentpack.kernels.errors import BitstreamError

if TYPE_CHECKING:
    from latentpack.codecs.codec import Codec, Rate

PICTURE, SOUND, VIDEO = "image", "audio", "video"  # first parts of the names of codecs
AUDIO_COPY, AUDIO_DROP = "copy", "drop"  # what becomes of the sounds of a video, or a codec's name
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
        stream: which of the sounds, or videos, of a file; None is the usual one.
        keep_going: take what can be read of damaged sounds and videos.
        progress: for codecs that say how far they are.
        threads: for codecs that take a number of them.
        start: seconds of a video that are left out before.
        end: seconds of a video at which it ends.
        audio: what becomes of a video's sounds: copied, dropped, or the codec that codes them.
        audio_rate: of those that are coded.
    """

    codec: str | None
    given: dict[str, Any]
    rate: Rate | None
    force: bool
    show_psnr: bool
    keep_metadata: bool
    max_pixels: int
    stream: int | None
    keep_going: bool
    progress: Any
    threads: int | None
    start: float | None = None
    end: float | None = None
    audio: str = AUDIO_COPY
    audio_rate: Rate | None = None
    opened: dict[Any, Codec] = field(default_factory=dict)

    def open(self, usual: str, opener: _Opener, **more: Any) -> Codec:
        """The codec, made once for the same options."""
        name = self.codec or usual
        offered = {"progress": self.progress, "threads": self.threads}
        return _open(self.opened, opener, name, self.given | more, offered)

    @property
    def codes_audio(self) -> bool:
        """Whether a video's sounds are coded."""
        return self.audio not in (AUDIO_COPY, AUDIO_DROP)

    @property
    def sized(self) -> bool:
        """Whether a size is asked for."""
        return self.rate is not None and self.rate.name not in ("quality", "psnr")

    @property
    def looks_ahead(self) -> bool:
        """Whether all of a video must be looked at before its frames are coded."""
        return self.sized or self.codes_audio

    def refuse_for(self, what: str) -> None:
        """Raise ValueError if an option is given that has a meaning for videos only."""
        audio = None if self.audio == AUDIO_COPY else self.audio
        given = {
            "start": self.start,
            "end": self.end,
            "audio": audio,
            "audio-kbps": self.audio_rate,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"it is {what}, for which --{name} has no meaning")


@dataclass(frozen=True)
class DecodeOptions:
    """What is the same for all files that are decoded.

    Attributes:
        format_name: of the files made; None is by their names.
        given: options of the codecs.
        force: replace files.
        start: seconds of a sound or video that are left out before.
        duration: seconds of a sound or video that are decoded.
        bits: of a sound's samples, 0 for floating point.
        threads: for codecs that take a number of them.
        encoder: FFmpeg's name of what codes the picture of a video; None is the format's usual one.
        crf: its quality, "lossless" or a number; None is the encoder's usual one.
    """

    format_name: str | None
    given: dict[str, Any]
    force: bool
    start: float | None
    duration: float | None
    bits: int | None
    threads: int | None
    encoder: str | None = None
    crf: float | str | None = None
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
    if kind in (None, PICTURE):
        from latentpack.datasets import images

        found |= images.suffixes()
    if kind in (None, SOUND):
        from latentpack.datasets import audio_kinds

        found |= audio_kinds.suffixes()
    if kind in (None, VIDEO):
        from latentpack.datasets import video_formats

        found |= video_formats.suffixes()
    return found


def refuse_tensors(path: str) -> None:
    """Raise ValueError for a file whose name says that it holds tensors."""
    if Path(path).suffix.lower() in _TENSOR_SUFFIXES:
        raise ValueError(f"{path} holds tensors; `latentpack pack` packs it")


def kind_of(path: str, file: BinaryIO, codec: str | None) -> str:
    """PICTURE, SOUND or VIDEO, by the codec, the suffix, and else by what is in the file."""
    suffix = Path(path).suffix.lower()
    if codec is not None:
        kind = codec.split("/")[0]
        return kind if kind in (SOUND, VIDEO) else PICTURE
    from latentpack.datasets import audio_kinds, file_streams, images, video_formats

    if suffix in audio_kinds.suffixes():
        return SOUND
    if suffix in images.suffixes():
        return PICTURE
    found = file_streams.streams_in(file)
    if found.video or (suffix in video_formats.suffixes() and not found.sound):
        return VIDEO
    return SOUND if found.sound else PICTURE


def kind_of_lpk(path: str, reader: Any) -> str:
    """PICTURE, SOUND or VIDEO, by the codec that an open .lpk file names.

    Raises:
        ValueError: it holds tensors.
        BitstreamError: the codec is unknown.
    """
    kind = registry.codec_name(reader.codec_id).split("/")[0]
    if kind not in (PICTURE, SOUND, VIDEO):
        raise ValueError(f"{path} holds tensors; `latentpack unpack` unpacks it")
    return kind


def files_of(kind: str) -> Any:
    """The module of this folder that has `encode_file` and `decode_file` for a kind of file."""
    names = {PICTURE: "picture_files", SOUND: "sound_files", VIDEO: "video_files"}
    return importlib.import_module(f"latentpack.scripts.{names[kind]}")


def decoded_suffix(path: str) -> str:
    """Of what a .lpk file becomes where nothing is asked for; files that are none get any."""
    from latentpack.codecs.container import Reader

    try:
        with Path(path).open("rb") as file:
            kind = kind_of_lpk(path, Reader(file))
            return {SOUND: ".wav", VIDEO: ".mkv"}.get(kind, ".png")
    except (ValueError, OSError, BitstreamError):
        return ".png"  # decoding says what is wrong
