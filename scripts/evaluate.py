"""Command line: latentpack evaluate image --data photos/, evaluate audio --data sounds/ ..."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentpack.scripts.main import main

if TYPE_CHECKING:
    from latentpack.scripts.measuring import Task
    from latentpack.scripts.rate_distortion import Row
    from latentpack.scripts.sound_curves import Row as SoundRow

_QUICK_FILES, _QUICK_EVERY = 4, 2
_ONLY_OF = {
    "audio": ("content", "seconds"),
    "video": ("anchor", "frames", "resize", "gop"),
}
_PICTURE_CODECS = "image/light,jpeg,webp,jpeg2000,avif,hevc"
_SOUND_COLUMNS = (  # head, field, format
    ("kbps payload", "kbps_payload", ".2f"),
    ("kbps file", "kbps_file", ".2f"),
    ("PESQ wb", "pesq_wb", ".2f"),
    ("PESQ nb", "pesq_nb", ".2f"),
    ("STOI", "stoi", ".3f"),
    ("ESTOI", "estoi", ".3f"),
    ("ViSQOL", "visqol", ".2f"),
    ("SI-SDR dB", "si_sdr_db", ".2f"),
    ("mel", "mel", ".3f"),
    ("STFT", "stft", ".3f"),
    ("LSD", "lsd", ".3f"),
    ("encode x", "encode_x_realtime", ".1f"),
    ("decode x", "decode_x_realtime", ".1f"),
)


@dataclass(frozen=True)
class _Asked:
    """The options that all kinds have."""

    data: Path
    codecs: str | None
    limit: int | None
    quick: bool
    jobs: int
    results: Path | None
    plot: Path | None
    log_rate: bool

    @property
    def every(self) -> int:
        """Which steps of a curve are taken."""
        return _QUICK_EVERY if self.quick else 1

    def files(self, suffixes: Any) -> list[Path]:
        """What is measured."""
        from latentpack.scripts.jobs import find

        files = [Path(path) for path, _ in find([str(self.data)], suffixes)]
        return files[: _QUICK_FILES if self.quick else self.limit]


@click.command()
@click.argument("kind", type=click.Choice(["image", "audio", "video"]))
@click.option("--data", required=True, type=click.Path(path_type=Path),
              help="Folder of files, or a pattern in quotes.")  # fmt: skip
@click.option("--codecs", help="Which, separated by commas; options of a codec follow an @.  "
              "[default: ours and the usual peers]")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Take the first N files only.")
@click.option("--quick", is_flag=True, help="Four files, every second point, and no ViSQOL "
              "or MS-SSIM of videos.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1),
              help="Files coded at the same time, with one thread each.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), metavar="FILE",
              help="Keep every result here, and go on from what is here.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the curves.")
@click.option("--log-rate", is_flag=True, help="Draw them over the logarithm of the rate.")
@click.option("--content", type=click.Choice(["speech", "music"]), help="What the sounds are: "
              "chooses the peers and ViSQOL's mode.  [default: speech]")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True),
              help="The most of a sound.  [default: 30]")  # fmt: skip
@click.option("--anchor", help="Of videos: the codec that BD-rates are against.  [default: x265]")
@click.option("--frames", type=click.IntRange(min=1), help="The most of a video.  [default: all]")
@click.option("--resize", metavar="WxH", help="Scale videos to this size first.")
@click.option("--gop", type=click.IntRange(min=1), help="Frames from one key frame of a video to "
              "the next, of all codecs.  [default: 32]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The last line is the result as JSON.")
def evaluate(kind: str, as_json: bool, **given: Any) -> None:
    """Measure codecs on a folder of pictures, sounds or videos, side by side in one run.

    Pictures: rates are whole files. PSNR is over RGB samples and, like MS-SSIM, the mean of the
    pictures' values. BD-rate is the size against JPEG at equal quality: -30 % is a third smaller.
    The peers are set to what PSNR rewards; times are CPU seconds of one thread per megapixel. On
    the 24 pictures of Kodak, stored curves of many codecs stand beside what is measured.

    Sounds: rates are coded packets and whole files. PESQ, STOI and ESTOI at 16 kHz, ViSQOL (all of
    the bench extra), SI-SDR, and the mel and STFT distances of descript-audiotools; speeds are
    times real time of one thread. Peers: opus, opus-voip, mp3, aac, amrnb, vorbis as PyAV has them,
    encodec and dac where transformers has their weights here; opus@12 is one point, opus a curve.

    Videos: rates are whole files with their container, without sound. PSNR of YUV is (6 Y + U + V)
    / 8 and, like PSNR of RGB and MS-SSIM of luma, the mean of the frames' values. BD-rates are
    against --anchor, clip by clip. Peers: x264, x265, svt-av1, each also as x264-ld ... in low
    delay, and vp9, as PyAV has them, with preset= and tune= after an @; one key frame to a group.

    \b
    latentpack evaluate image --data kodak/ --plot rd.png
    latentpack evaluate image --data photos/ --codecs image/light,image/light@weights=mine.lpkw
    latentpack evaluate image --data photos/ --codecs image/fit@preset=best,jpeg,hevc \\
        --results fit.jsonl --jobs 2
    latentpack evaluate audio --data "sounds/speech_*" --plot speech.png
    latentpack evaluate audio --data sounds/ --codecs audio/rvq,audio/rvq@weights=mine.lpkw,opus
    latentpack evaluate audio --data songs/ --content music --json | tail -n 1 > result.json
    latentpack evaluate video --data clips/ --codecs video/lite,x264-ld --anchor x264-ld
    latentpack evaluate video --data clips/ --codecs video/fit@preset=fast,x265,svt-av1@preset=4 \\
        --frames 96 --results fit.jsonl --plot rd.png
    """
    of_kind = {name: given.pop(name) for names in _ONLY_OF.values() for name in names}
    asked = _Asked(**given)
    for owner, names in _ONLY_OF.items():
        if owner != kind and (wrong := [name for name in names if of_kind[name] is not None]):
            raise click.UsageError(f"--{wrong[0]} is for {owner}")
    if asked.plot:
        import matplotlib  # noqa: F401  (missing: better told now than after the measurement)
    options = {name: of_kind[name] for name in _ONLY_OF.get(kind, ())}
    run: Any = {"image": _pictures, "audio": _sounds, "video": _videos}[kind]
    found = run(asked, **options)
    if as_json:
        click.echo(json.dumps(found))


def _videos(
    asked: _Asked, anchor: str | None, frames: int | None, resize: str | None, gop: int | None
) -> dict[str, Any]:
    from latentpack.datasets.video_formats import suffixes
    from latentpack.scripts import video_curves, video_tables
    from latentpack.scripts.measuring import Results, plan
    from latentpack.scripts.video_codecs import GOP, open_codecs

    files = asked.files(suffixes)
    anchor = anchor or video_curves.ANCHOR
    measures = video_curves.Measures(frames, _size(resize), gop or GOP, not asked.quick)
    opened = open_codecs(f"{asked.codecs or video_curves.CODECS},{anchor}", measures.gop)
    if anchor not in {codec.name for codec in opened}:
        raise ValueError(f"{anchor} can't run here; name another --anchor")
    curves = video_curves.curves(opened, measures)
    tasks = plan(curves, files, asked.every)
    results = Results(asked.results, video_curves.Result)
    _follow(video_curves.measure(tasks, results, measures, asked.jobs), len(tasks))
    rows = video_curves.compare(curves, tasks, results, asked.data.name, anchor)
    video_tables.show(rows)
    if asked.plot:
        from latentpack.scripts.video_curves_plot import plot

        plot(rows, asked.plot, asked.log_rate)
        click.echo(f"curves drawn to {asked.plot}")
    return video_curves.as_json(rows)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.UsageError(f"--resize must be WIDTHxHEIGHT, e.g. 640x360, got {text}")
    return int(width), int(height)


def _follow(done: "Iterable[Task]", count: int) -> None:
    """Do all, with a bar on a terminal."""
    import torch
    from rich.console import Console
    from rich.progress import track

    torch.set_num_threads(1)
    console = Console(stderr=True)
    for _ in track(done, "files", count, console=console, transient=True,
                   disable=not console.is_terminal):  # fmt: skip
        pass


def _pictures(asked: _Asked) -> dict[str, Any]:
    from latentpack.datasets.images import suffixes
    from latentpack.scripts import rate_distortion
    from latentpack.scripts.measuring import Results, plan
    from latentpack.scripts.picture_codecs import open_codecs

    files = asked.files(suffixes)
    opened = open_codecs(asked.codecs or _PICTURE_CODECS)
    tasks = plan(opened, files, asked.every)
    results = Results(asked.results, rate_distortion.Result)
    _follow(rate_distortion.measure(tasks, results, asked.jobs), len(tasks))
    rows = rate_distortion.compare(opened, tasks, results, asked.data.name)
    show(rows, len(files))
    if asked.plot:
        from latentpack.scripts.rate_distortion_plot import plot

        plot(rows, asked.plot, asked.log_rate)
        click.echo(f"curves drawn to {asked.plot}")
    return rate_distortion.as_json(rows)


def _sounds(asked: _Asked, content: str | None, seconds: float | None) -> dict[str, Any]:
    from latentpack.datasets.audio_kinds import suffixes
    from latentpack.datasets.audio_metrics import missing_packages
    from latentpack.scripts import sound_curves
    from latentpack.scripts.main import note
    from latentpack.scripts.measuring import Results, plan

    content = content or "speech"
    files = asked.files(suffixes)
    measures = sound_curves.Measures(content, seconds or 30.0, visqol=not asked.quick)
    opened = sound_curves.open_curves(asked.codecs or sound_curves.CONTENTS[content][1], measures)
    if missing := missing_packages():
        note(f"not measured, install latentpack[bench]: {', '.join(missing)}")
    tasks = plan(opened, files, asked.every)
    results = Results(asked.results, sound_curves.Result)
    _follow(sound_curves.measure(tasks, results, measures, asked.jobs), len(tasks))
    rows = sound_curves.compare(opened, tasks, results, asked.data.name)
    show_sounds(rows, content)
    if asked.plot:
        from latentpack.scripts.sound_curves_plot import plot

        plot(rows, asked.plot, asked.log_rate)
        click.echo(f"curves drawn to {asked.plot}")
    return sound_curves.as_json(rows)


def show_sounds(rows: "list[SoundRow]", content: str) -> None:
    """Print the points of all codecs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    case = escape(rows[0].case)  # may be a pattern with brackets
    table = Table(title=f"{case}, {rows[0].n} sounds, {content}: means of the sounds' values")
    table.add_column("codec", overflow="fold")
    for head, _, _ in _SOUND_COLUMNS:
        table.add_column(head, justify="right")
    for row in rows:
        name = row.codec if row.kbps is None else f"{row.codec}@{row.kbps:g}"
        values = [(getattr(row, field), form) for _, field, form in _SOUND_COLUMNS]
        table.add_row(name, *("-" if v is None else format(v, form) for v, form in values))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 150)  # a folded table can't be read
    console.print(table)
    for name, settings in {row.codec: row.settings for row in rows}.items():
        console.print(f"{name}: {settings}", highlight=False)


def show(rows: "list[Row]", pictures: int) -> None:
    """Print the comparison and the curves of pictures."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    best_first = sorted(rows, key=lambda row: row.bd_rate_vs_jpeg or 0.0)
    table = Table(title=f"{rows[0].case}, {pictures} pictures: size at equal quality")
    table.add_column("codec", overflow="fold")
    for column in ("BD-rate PSNR", "BD-rate MS-SSIM", "encode s/Mpx", "decode s/Mpx"):
        table.add_column(column, justify="right")
    for row in best_first:
        middle = row.points[len(row.points) // 2]
        table.add_row(
            f"[dim]{row.codec}[/dim]" if row.stored else row.codec,
            _percent(row.bd_rate_vs_jpeg),
            _percent(row.bd_rate_ms_ssim_vs_jpeg),
            _seconds(middle.encode_s_per_mpx),
            _seconds(middle.decode_s_per_mpx),
        )
    console.print(table)
    if any(row.stored for row in rows):
        console.print("without times: stored curves of the same pictures, measured or published")
    else:
        console.print("only codecs of this run: curves of other pictures can't be compared")
    for row in best_first:
        points = "  ".join(f"{point.bpp:.3f}/{point.psnr_db:.2f}" for point in row.points)
        console.print(f"{row.codec} ({row.settings}), bpp/dB:\n  {points}", highlight=False)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main("evaluate")
