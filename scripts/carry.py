"""latentpack carry film.lpk -o film.mp4, and back."""

from pathlib import Path
from typing import Any, BinaryIO

import click

_SIGNATURE = b"\x89LPK"


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to make.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def carry(source: Path, output: Path | None, force: bool) -> None:
    """Put a .lpk file of a video into an .mp4 file whose sounds any player plays, or take it out.

    The .mp4 file holds the copied sounds as tracks of their own and all else in a track of data,
    which players pass over. What is taken out is the same .lpk file, byte for byte.

    \b
    latentpack carry film.lpk -o film.mp4
    latentpack carry film.mp4 -o film.lpk
    """
    from latentpack.codecs.output import create

    with source.open("rb") as file:
        wrapping = file.read(len(_SIGNATURE)) == _SIGNATURE
        target = output or source.with_suffix(".mp4" if wrapping else ".lpk")
        if target.suffix.lower() == ".lpk" and wrapping:
            raise ValueError(f"{source} is a .lpk file already; name an .mp4 file with -o")
        file.seek(0)
        with create(target, force) as made:
            if wrapping:
                tracks, carried = wrap(file, made)
                what = f"{carried} of {tracks} tracks playable"
            else:
                what = f"{unwrap(source, made)} packets"
    click.echo(f"{source} -> {target}: {target.stat().st_size:,} bytes, {what}")


def wrap(source: BinaryIO, target: BinaryIO) -> tuple[int, int]:
    """Put a .lpk file into an .mp4 file; returns how many tracks it has, and how many play.

    Raises:
        ValueError: it is no video.
    """
    from latentpack.codecs import registry
    from latentpack.codecs.container import Reader
    from latentpack.codecs.video import carrier
    from latentpack.codecs.video.gops import describe_gop
    from latentpack.codecs.video.tracks import get_part, track_of
    from latentpack.datasets.carrier_files import CarrierWriter
    from latentpack.scripts.videos import time_base

    reader = Reader(source)
    name = registry.codec_name(reader.codec_id)
    if not name.startswith("video/"):
        raise ValueError(f"it holds {name}; only videos are carried")
    tracks = _tracks(reader.metadata)
    pieces: list[Any] = []
    end = 0
    with CarrierWriter(target, time_base(reader.metadata), tracks) as writer:
        start = carrier.put_start(reader, writer.carried)
        for packet in reader.packets():
            track = track_of(packet.key)
            carried = track in writer.carried
            pieces.append(carrier.piece_of(packet, carried))
            if track is not None:
                for part in get_part(packet.body, track) if carried else ():
                    writer.write_packet(part)  # type: ignore[arg-type]  # of the same fields
                continue
            times = describe_gop(reader.params, packet)
            if start:
                writer.write(start, times["start"])
                start = b""
            writer.write(carrier.put_sample(pieces), times["start"])
            pieces, end = [], times["end"]
        for sample in (start, carrier.put_sample(pieces)):
            if sample:
                writer.write(sample, end)
        return len(tracks), len(writer.carried)


def unwrap(source: Path, target: BinaryIO) -> int:
    """Take the .lpk file out of an .mp4 file; returns how many packets it has.

    Raises:
        ValueError: there is none, or a program has changed the tracks.
    """
    from latentpack.codecs.container import Writer
    from latentpack.codecs.video import carrier
    from latentpack.codecs.video.tracks import track_of
    from latentpack.datasets.carrier_files import CarrierReader

    files = CarrierReader(source)
    samples = files.samples()
    reader, carried = carrier.get_start(next(samples, b""))
    streams = {track: files.packets(number) for number, track in enumerate(carried)}
    count = 0
    with Writer(target, reader.codec_id, reader.params, reader.metadata) as writer:
        for sample in samples:
            for piece in carrier.get_sample(sample):
                found = streams.get(track_of(piece.key), iter(()))  # type: ignore[arg-type]
                writer.write(carrier.packet_of(piece, found))
                count += 1
    return count


def _tracks(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    found = metadata.get("tracks")
    if not isinstance(found, list):
        return []
    return [track if isinstance(track, dict) else {} for track in found]
