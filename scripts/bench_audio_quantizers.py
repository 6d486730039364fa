"""python scripts/bench_audio_quantizers.py --data DIR [--quick] [--json]: quantizers of speech.

DIR is a folder of speech, a file or more for each speaker, named SPEAKER-anything. The encoder and
the decoder of `audio/rvq` stay as they are (--weights, else those that ship): each case learns to
quantise the same latents between them, of seven speakers in eight, for the same number of updates,
and is tested on the eighth, on whole files. `kbps` is counted from the codes; `snr_db` is that of
the latents, `mel`, SI-SDR and STOI are of the sound (datasets/audio_metrics.py), means over the
files. `usage` is the share of codes that occur in a quarter of the training, `perplexity` 2 to the
entropy of a code over the codebook's size; of several codes to a frame the mean. All are means over
seeds, `mel_spread` is the largest mel distance less the smallest. `claim` is what the paper says,
and `here` whether these numbers show it; a mel distance that the seeds spread over is none. What a
paper owes to training the networks together with the quantizer can't be seen here.

With --work each finished case is kept in that folder, and a run goes on where the last one ended.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from latentpack.codecs import weight_files
from latentpack.codecs.audio.rvq_frozen import SHIPPED, load_networks
from latentpack.codecs.audio.rvq_model import RvqModel
from latentpack.codecs.quantizers.usage import count_codes
from latentpack.datasets.audio_crops import find_sounds, read_mono
from latentpack.datasets.audio_metrics import mel_distance, si_sdr_db, stoi
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.audio_quantizers import CASES, CLAIMS, DIM, FRAMES, Case, Coding
from latentpack.scripts.bench import show
from latentpack.scripts.bench_quantizers import judge, use_of

BATCH, LENGTH = 4, 128  # stretches of latents of an update, and their frames
Pair = tuple[Tensor, Tensor]
_WEIGHTS = {"commitment_loss": 0.25, "codebook_loss": 1.0}


@dataclass(frozen=True)
class Steps:
    """How long is trained.

    Attributes:
        pool: stretches that start the codebooks.
        updates: of a case.
    """

    pool: int = 48
    updates: int = 400


QUICK = Steps(pool=8, updates=10)


class Latents:
    """An encoder and a decoder that stay as they are, and latents of unit variance between."""

    def __init__(self, networks: RvqModel, waves: list[Tensor]) -> None:
        """Measure the latents of sounds, and cut them into `train` [count, DIM, LENGTH]."""
        self.networks, self.size = networks.eval(), networks.size
        self._mean, self._spread = torch.zeros(1, DIM, 1), torch.ones(())
        latents = torch.cat([self._stretches(wave) for wave in waves])
        self._mean = latents.mean((0, 2), keepdim=True)
        self._spread = (latents - self._mean).square().mean().sqrt()
        self.train = (latents - self._mean) / self._spread

    def _stretches(self, wave: Tensor) -> Tensor:
        frames = len(wave) // self.size.frame // LENGTH * LENGTH
        return torch.stack(torch.split(self.encode(wave)[0, :, :frames], LENGTH, 1))

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """[N] -> latents [1, DIM, N / frame]."""
        return (self.networks.analyse(wave[None])[0] - self._mean) / self._spread

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> [1, N - hop]: the last samples come with what follows."""
        x_hat = self.networks.synthesise(latents * self._spread + self._mean)[0]
        return x_hat[:, self.size.hop :]


def speech(folder: Path, sample_rate: int, frame: int) -> tuple[list[Tensor], list[Tensor]]:
    """Sounds for training and for testing, of different speakers, float [N]."""
    try:
        sounds = find_sounds([folder])
    except (ValueError, OSError) as error:
        raise click.UsageError(f"{error}; expected speech, files named SPEAKER-anything") from error
    sounds.sort(key=_speaker)
    speakers = [list(found) for _, found in itertools.groupby(sounds, _speaker)]
    if len(speakers) < 8:
        raise click.UsageError(f"{folder} holds {len(speakers)} speakers, expected 8 or more")
    files = [
        [f for i, found in enumerate(speakers) if i % 8 for f in found],
        [found[0] for found in speakers[::8]],
    ]
    unit, least = FRAMES * frame, LENGTH * frame
    train, test = (
        [x[: len(x) // unit * unit] for x in found if len(x) >= least]
        for found in ([read_mono(f, sample_rate) for f in part] for part in files)
    )
    if not train or not test:
        seconds = least / sample_rate
        raise click.UsageError(f"{folder} holds no files of {seconds} s or more of some speakers")
    return train, test


def _speaker(file: Path) -> str:
    return file.stem.split("-")[0]


def networks_of(file: Path) -> RvqModel:
    """The networks of a weights file."""
    try:
        networks, _ = load_networks(weight_files.read(file, "audio/rvq"))
    except (BitstreamError, OSError, ValueError) as error:
        raise click.UsageError(f"--weights {file}: {error}") from error
    if networks.size.latent != DIM:
        raise click.UsageError(
            f"--weights {file} has latents of {networks.size.latent} channels, expected {DIM}"
        )
    return networks


def measure(
    case: Case, latents: Latents, young: Latents, test: list[Pair], seed: int, steps: Steps
) -> dict[str, float]:
    """Train one case with one seed, and test it.

    Args:
        case: what to train.
        latents: on what.
        young: those of an encoder that has learned nothing, for cases that start early.
        test: sounds, float [N], and their latents.
        seed: of the codebooks and the order of stretches.
        steps: how long.
    """
    torch.manual_seed(seed)
    coding = case.make()
    weights = {**_WEIGHTS, "entropy_loss": case.entropy}
    first = (young if case.early else latents).train
    with torch.no_grad():
        coding(first[torch.randperm(len(first))[: steps.pool]])
    parameters = list(coding.parameters())
    if parameters:
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps.updates)
    for _ in range(steps.updates):
        y = latents.train[torch.randint(len(latents.train), (BATCH,))]
        out = coding(y)
        if parameters:
            loss = (out.x_hat - y).square().mean()
            loss = loss + sum(weights.get(name, 0.0) * part for name, part in out.losses.items())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _test(latents, coding.eval(), test)


@torch.no_grad()
def _test(latents: Latents, coding: Coding, test: list[Pair]) -> dict[str, float]:
    scores, bits, rate = [], 0.0, latents.size.sample_rate
    sizes = coding.quantizer.codebook_sizes
    for wave, y in test:
        codes = coding.encode(y)
        y_hat = coding.decode(codes)
        bits += sum(c.shape[2] * math.log2(math.prod(k)) for k, c in zip(sizes, codes, strict=True))
        x, x_hat = wave[None, : -latents.size.hop], latents.decode(y_hat)
        scores.append(
            {
                "snr_db": float(10 * (y.square().mean() / (y - y_hat).square().mean()).log10()),
                "mel": mel_distance(x, x_hat, rate),
                "si_sdr_db": si_sdr_db(x, x_hat),
                "stoi": stoi(x, x_hat, rate) or 0.0,  # of silence: None
            }
        )
    means = {key: statistics.mean(score[key] for score in scores) for key in scores[0]}
    seen = coding.encode(latents.train[::4])
    framed = [(c, k) for c, k in zip(seen, sizes, strict=True) if c.shape[2] > 1]
    counts = [n for c, k in framed for n in count_codes(c, k)]
    seconds = sum(len(wave) for wave, _ in test) / rate
    return {"kbps": bits / seconds / 1000} | means | use_of(counts)


def row(name: str, results: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the seeds."""
    means = {key: statistics.mean(result[key] for result in results) for key in results[0]}
    reached = [result["mel"] for result in results]
    return {"quantizer": name, **means, "mel_spread": max(reached) - min(reached)}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of speech.")
@click.option("--weights", type=click.Path(path_type=Path), default=SHIPPED["speech"])
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), help="Folder to keep results in.")
@click.option("--quick", is_flag=True, help="One seed, few updates, few sounds: about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(
    data: Path | None, weights: Path, seeds: int, work: Path | None, quick: bool, as_json: bool
) -> None:
    """Compare quantizers of speech at equal bits with what their papers claim."""
    if data is None:
        raise click.UsageError("needs --data DIR: speech, files named SPEAKER-anything")
    torch.set_num_threads(1)
    networks = networks_of(weights)
    waves, test = speech(data, networks.size.sample_rate, networks.size.frame)
    seeds, steps = (1, QUICK) if quick else (seeds, Steps())
    if quick:
        waves, test = waves[:20], test[:2]
    torch.manual_seed(0)
    latents, young = Latents(networks, waves), Latents(RvqModel(networks.size), waves[:20])
    if work:
        work.mkdir(parents=True, exist_ok=True)
    pairs = [(wave, latents.encode(wave)) for wave in test]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for seed, name in itertools.product(range(seeds), CASES):
        file = work / f"{name}, {steps.updates} updates, seed {seed}.json" if work else None
        if file and file.exists():
            results[name].append(json.loads(file.read_text()))
            continue
        results[name].append(measure(CASES[name], latents, young, pairs, seed, steps))
        if file:
            file.write_text(json.dumps(results[name][-1]))
    rows = {name: row(name, found) for name, found in results.items()}
    judge(rows, CLAIMS)
    show(f"Quantizers of speech, {seeds} seeds of {steps.updates} updates", rows.values(), as_json)


if __name__ == "__main__":
    main()
