"""Command line: latentpack info photo.lpk."""

import json
from typing import Any

import click

from latentpack.scripts import video_inspection
from latentpack.scripts.inspection import Report, inspect_file
from latentpack.scripts.jobs import find, source_file
from latentpack.scripts.main import EXIT_ERROR, describe, main

KINDS = {1: "grey", 2: "grey + alpha", 3: "RGB", 4: "RGB + alpha"}
_SHOWN_TENSORS = 20


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE.lpk...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file and line.")
@click.option("--all", "show_all", is_flag=True, help="List every tensor, not the first 20.")
def info(sources: tuple[str, ...], as_json: bool, show_all: bool) -> None:
    """Say what is inside packed files, .lpk or .safetensors, and check every checksum.

    Shows codec, size, dimensions, bits per pixel and what the file keeps beside the samples; for
    sounds duration, sample rate, channels and kbit/s; for videos frames, tracks and their bytes;
    for tensors names, dtypes, shapes and the ratio. A damaged file is told with what can still be
    read of it, and the exit code is 2.

    \b
    latentpack info photo.lpk
    latentpack info model.lpk --all
    latentpack info packed/ --json
    """
    found = find(sources, lambda: {".lpk"})
    bad = 0
    for path, _ in found:
        try:
            with source_file(path) as file:
                report = inspect_file(file, path)
        except (ValueError, OSError) as error:
            message = describe(error)
            click.echo(
                f"latentpack: {message if path in message else f'{path}: {message}'}", err=True
            )
            bad += 1
            continue
        if report.damage:
            click.echo(f"latentpack: {path} is damaged: {report.damage[0]}", err=True)
            bad += 1
        click.echo(
            json.dumps(report.as_dict(), default=_plain) if as_json else text(report, show_all)
        )
    if len(found) > 1 and bad:
        click.echo(
            f"latentpack: {bad} of {len(found)} files are damaged or can't be read", err=True
        )
    if bad:
        click.get_current_context().exit(EXIT_ERROR)


def text(report: Report, show_all: bool = False) -> str:
    """A report as lines."""
    lines = [
        f"{report.path}: {'DAMAGED' if report.damage else 'whole'}",
        _line("codec", report.codec),
        _line("size", _size(report)),
    ]
    if report.picture:
        width, height, channels = report.picture
        lines.append(_line("picture", f"{width}x{height}, {KINDS.get(channels, channels)}"))
    if report.sound:
        lines.append(_line("sound", _sound(report)))
    if report.video:
        lines += [_line("video", video_inspection.lines(report.video))]
        lines += [_line("track", text) for text in video_inspection.tracks(report.metadata)]
    if report.weights:
        lines.append(_line("weights", report.weights))
    if report.fitted:
        lines.append(_line("fitted", _fitted(report.fitted)))
    for number, level in enumerate(report.levels):
        lines.append(_line(f"level {number}", _level(level)))
    if report.base and report.digest:
        lines += [_line("base", report.base), _line("digest", report.digest)]
    lines += [
        _line("source" if key == "video" else key, _shown(value))
        for key, value in report.metadata.items()
        if key != "tracks" or not report.video
    ]
    lines += _tensor_lines(report, show_all)
    of = "" if report.packets_listed is None else f" of {report.packets_listed}"
    state = "can be read" if report.damage else "every checksum is right"
    lines.append(_line("packets", f"{report.packets}{of}, {state}"))
    return "\n".join(lines + [_line("damage", text) for text in report.damage])


def _line(name: str, value: Any) -> str:
    return f"  {name:<9} {value}"


def _size(report: Report) -> str:
    size = f"{report.bytes:,} bytes"
    if report.picture:
        size += f", {report.bytes * 8 / (report.picture[0] * report.picture[1]):.3f} bpp"
    if report.kbps is not None:
        size += f", {report.kbps:.2f} kbps"
    if report.video:
        picture, tracks = report.video["picture_bytes"], report.video["track_bytes"]
        size += f", picture {picture:,}, tracks {tracks:,}"
    if report.raw_bytes is not None:
        size += f", {report.bytes / max(report.raw_bytes, 1):.2%} of {report.raw_bytes:,}"
    return size


def _sound(report: Report) -> str:
    rate, channels = (report.sound or {})["sample_rate"], (report.sound or {})["channels"]
    plural = "s" if channels > 1 else ""
    return f"{report.seconds:.2f} s at {rate} Hz, {channels} channel{plural}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        return "; ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return str(value)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _fitted(about: dict[str, Any]) -> str:
    parts = [f"preset {about['preset']}", f"lmbda {about['lmbda']:.4g}"]
    for name in ("network", "latent", "alpha"):
        if about[f"{name}_bytes"]:
            parts.append(f"{name}s {about[f'{name}_bytes']:,} bytes".replace("alphas", "alpha"))
    return ", ".join(parts)


def _level(level: dict[str, Any]) -> str:
    rows, columns = level["codes"]
    return (
        f"{rows}x{columns} codes in {level['bytes']:,} bytes, {level['bits_per_code']:.2f} bits "
        f"each; {level['used']} of {level['codebook_size']} used, "
        f"perplexity {level['perplexity']:.0f}"
    )


def _tensor_lines(report: Report, show_all: bool) -> list[str]:
    tensors = report.tensors if show_all else report.tensors[:_SHOWN_TENSORS]
    lines = [
        f"    {tensor.name if tensor.name is not None else '(no name)'}  {tensor.dtype} "
        f"{tensor.shape}  {tensor.bytes:,} of {tensor.raw_bytes:,} bytes "
        f"({tensor.bytes / max(tensor.raw_bytes, 1):.3f})"
        for tensor in tensors
    ]
    if report.tensors:
        lines.insert(0, _line("tensors", len(report.tensors)))
    if len(tensors) < len(report.tensors):
        lines.append(f"    ... and {len(report.tensors) - len(tensors)} more; --all lists them")
    return lines


if __name__ == "__main__":
    main("info")
