"""What there is to say of a packed video, GoP by GoP, without decoding it."""

from __future__ import annotations

from typing import Any

from latentpack.codecs import registry
from latentpack.codecs.codec import Packet
from latentpack.kernels.errors import BitstreamError


def look(reader: Any) -> dict[str, Any]:
    """The start of a report on an open file: format and time base, nothing counted yet.

    Raises:
        BitstreamError: header or metadata are damaged.
    """
    from latentpack.codecs.video.frames import VideoFormat
    from latentpack.scripts.videos import time_base

    codec: Any = registry.load(reader.codec_id)
    format = codec.read_format(reader.params)
    base = time_base(reader.metadata)
    return {
        "width": format.width,
        "height": format.height,
        "bits": format.bits,
        "colours": format.colours,
        "tensor": type(format) is not VideoFormat,
        "time_base": [base.numerator, base.denominator],
        "gop": reader.params.get("g"),
        "frames": 0,
        "gops": 0,
        "picture_bytes": 0,
        "track_bytes": 0,
        "seconds": 0.0,
    }


def add(video: dict[str, Any], header: dict[str, Any], packet: Packet) -> str | None:
    """Count a packet; returns what is wrong with it, None for nothing."""
    from latentpack.codecs.video.gops import describe_gop
    from latentpack.codecs.video.tracks import get_part, track_of

    track = track_of(packet.key)
    try:
        if track is not None:
            get_part(packet.body, track)
            video["track_bytes"] += len(packet.body)
            return None
        said = describe_gop(header, packet)
    except BitstreamError as error:
        return f"{packet.key!r}: {error}"
    video["gops"] += 1
    video["frames"] += said["frames"]
    video["picture_bytes"] += len(packet.body)
    numerator, denominator = video["time_base"]
    video["seconds"] += (said["end"] - said["start"]) * numerator / denominator
    return None


def lines(video: dict[str, Any]) -> str:
    """The video in words."""
    plural = "" if video["frames"] == 1 else "s"
    rate = f", {video['frames'] / video['seconds']:.2f} fps" if video["seconds"] else ""
    kind = f"{video['bits']} bits, {'grey' if video['colours'] == 1 else '4:2:0'}"
    if video["tensor"]:
        kind = f"a tensor of {video['colours']} channels"
    return (
        f"{video['width']}x{video['height']}, {kind}, {video['frames']} "
        f"frame{plural} in {video['gops']} GoPs of at most {video['gop']}, "
        f"{video['seconds']:.2f} s{rate}"
    )


def tracks(metadata: dict[str, Any]) -> list[str]:
    """The tracks beside it in words, one line each."""
    found = metadata.get("tracks")
    texts = []
    for track in found if isinstance(found, list) else []:
        if not isinstance(track, dict):
            continue
        codec = track.get("codec")
        if "coded" in track:
            codec = registry.CODECS.get(track["coded"], track["coded"])
        parts = [str(track.get("type")), str(codec)]
        if "sample_rate" in track:
            parts.append(f"{track['sample_rate']} Hz {track.get('layout', '')}".strip())
        tags = track.get("tags")
        if isinstance(tags, dict) and "language" in tags:
            parts.append(str(tags["language"]))
        texts.append(", ".join(parts))
    return texts
