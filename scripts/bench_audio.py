"""python scripts/bench_audio.py [FOLDER] [--quick] [--json]: audio/rvq beside speech codecs.

Whole files, the mean over the sounds of a folder; speeds are times real time of one thread, the
fastest of some rounds in which all codecs take turns; latency is what a stream in small packets is
late by: a frame and what is looked ahead. PESQ and STOI need latentpack[bench].
"""

from pathlib import Path
from typing import Any

import click
import torch

from latentpack.codecs.audio.rvq import Rvq
from latentpack.datasets.audio_kinds import suffixes
from latentpack.scripts.bench import show
from latentpack.scripts.jobs import find
from latentpack.scripts.measuring import Results, plan
from latentpack.scripts.sound_curves import Measures, Result, Row, compare, measure, open_curves

SAMPLES = Path(__file__).parents[1] / "datasets" / "samples"
_OURS = (1.5, 3, 6)  # kbit/s
_PEERS = "opus-voip@6,opus-voip@8,opus-voip@12,amrnb@4.75,mp3@24,aac@24"
# Milliseconds of a frame and of what is looked ahead: RFC 6716 (20 + 6.5), 3GPP TS 26.071 (20 + 5).
# Files of MP3 and AAC are no streams for talking.
_LATENCIES = {"opus-voip": 26.5, "amrnb": 25.0}


def latency_ms(name: str, weights: str | None) -> float | None:
    """By how much a stream of a codec is late; None of those that make none."""
    if name.startswith("audio/rvq"):
        stream = Rvq(weights=weights).stream_encoder()
        return 1000 * stream.latency / Rvq(weights=weights).sample_rate
    return _LATENCIES.get(name.partition("@")[0])


def row_of(rounds: list[Row], weights: str | None) -> dict[str, Any]:
    """A row of the table from the same row of every round."""
    first = rounds[0]
    return {
        "codec": first.codec.partition(",")[0],
        "case": first.case,
        "kbps_file": first.kbps_file,
        "kbps_payload": first.kbps_payload,
        "pesq_wb": first.pesq_wb,
        "stoi": first.stoi,
        "encode_x_realtime": max(row.encode_x_realtime for row in rounds),
        "decode_x_realtime": max(row.decode_x_realtime for row in rounds),
        "latency_ms": latency_ms(first.codec, weights),
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=SAMPLES)
@click.option("--weights", help="Of audio/rvq; the default are those that ship.")
@click.option("--quick", is_flag=True, help="Two sounds, five seconds of each, one round.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(folder: Path, weights: str | None, quick: bool, as_json: bool) -> None:
    """Measure all codecs in one run."""
    torch.set_num_threads(1)
    files = [Path(path) for path, _ in find([str(folder)], suffixes)][: 2 if quick else None]
    measures = Measures("speech", 5.0 if quick else 30.0, visqol=False)
    own = f",weights={weights}" if weights else ""
    names = ",".join(f"audio/rvq@kbps={kbps:g}{own}" for kbps in _OURS)
    curves = open_curves(f"{names},{_PEERS}", measures)
    rounds = []
    for _ in range(1 if quick else 3):
        results = Results(None, Result)
        tasks = plan(curves, files)
        list(measure(tasks, results, measures))
        rounds.append(compare(curves, tasks, results, folder.name))
    rows = [row_of(list(same), weights) for same in zip(*rounds, strict=True)]
    show(f"sound codecs, {len(files)} files, one thread", rows, as_json)


if __name__ == "__main__":
    main()
