"""Which files may hold sound, what their tags say, and why others hold none."""

from typing import BinaryIO

import av
import av.error

# Tags about the file instead of its sound.
_NO_TAGS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "handler_name", "vendor_id",
    "language", "duration", "creation_time", "itunsmpb", "itunnorm", "bps", "number_of_frames",
    "number_of_bytes", "encoded_by",
}  # fmt: skip
_TAG_CHARACTERS = 4096  # of a tag; more is no text that a person wrote
_SUFFIXES = (
    "wav wave w64 rf64 bwf flac mp3 mp2 mp1 mpga m4a m4b aac ogg oga opus spx aif aiff aifc au snd "
    "caf wma wv tta ape mpc tak ac3 eac3 dts amr awb gsm voc ra mka weba"
)


def suffixes() -> set[str]:
    """The suffixes of files that hold sound and nothing else: {".wav", ".mp3", ...}."""
    return {"." + name for name in _SUFFIXES.split()}


def has_sound(file: BinaryIO) -> bool:
    """Whether FFmpeg finds sound in a seekable file; its position stays."""
    start = file.tell()
    try:
        with av.open(file, "r") as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    finally:
        file.seek(start)


def tags_of(found: dict[str, str]) -> dict[str, str]:
    """Of the metadata of a file those that tell of its sound, with lower-case names."""
    named = {name.lower(): value for name, value in found.items()}
    return {
        name: value.replace("\0", "")
        for name, value in named.items()
        if name.split("-")[0] not in _NO_TAGS and value and len(value) <= _TAG_CHARACTERS
    }


def explain(reason: str, file: BinaryIO, what: str = "sound") -> str:
    """A plainer reason than `reason`, where the bytes show one; reads from the file.

    Args:
        reason: why nothing was found.
        file: in which.
        what: was looked for.
    """
    head = b""
    if file.seekable():
        file.seek(0)
        head = file.read(4096)
        if not head:
            return "the file is empty"
    if head.startswith(b"\x89LPK"):
        return f"no {what} but a latentpack file; `latentpack decode` turns it into one"
    if head and b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return f"no {what} but a text file"
    return reason
