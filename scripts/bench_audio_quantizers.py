"""python scripts/bench_audio_quantizers.py --data DIR [--quick] [--json]: quantizers of speech.

DIR is a folder of speech, a file or more for each speaker, named SPEAKER-anything. A small codec
(the networks of `audio/rvq`, 0.4 M parameters) is trained without a quantizer first. Each case
starts from that: its codebooks start on latents and are trained on those alone for some updates,
then with encoder and decoder on the sound. Every eighth speaker is left out and tested on, whole
files. `kbps` is counted from the codes; `mel` and SI-SDR as in datasets/audio_metrics.py, means
over the files. `usage` is the share of codes that the test speakers use, `perplexity` 2 to the
entropy of a code over the codebook's size; of several codes the mean. All are means over seeds,
`mel_spread` is the largest mel distance of a seed less the smallest. `claim` is what the paper
says, and `here` whether these numbers show it; a difference that the seeds spread over is none.

With --work the trained start and each finished case are kept in that folder, and a run goes on
where the last one ended.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from latentpack.codecs.audio.rvq_losses import (
    loudness_scale,
    mel_loss,
    stft_loss,
    waveform_loss,
)
from latentpack.codecs.audio.rvq_model import RvqModel, Size
from latentpack.codecs.quantizers.usage import count_codes
from latentpack.datasets.audio_crops import find_sounds, read_mono
from latentpack.datasets.audio_metrics import mel_distance, si_sdr_db, stoi
from latentpack.scripts.audio_quantizers import CASES, CLAIMS, DIM, FRAMES, Case, Coding
from latentpack.scripts.bench import show
from latentpack.scripts.bench_quantizers import judge, use_of

SIZE = Size(
    dim=96, hidden=288, encoder=2, decoder=3, latent=DIM, n_q=1, codebook_size=1
)  # its own quantizer is not used
BATCH = 4
CROP = 64 * SIZE.frame  # samples, 1.28 s
LATENTS = 128  # frames of a stretch of latents
_WEIGHTS = {"commitment_loss": 0.25, "codebook_loss": 1.0, "consistency_loss": 0.05}


@dataclass(frozen=True)
class Steps:
    """How long is trained.

    Attributes:
        codec: updates of the codec alone.
        pool: stretches of latents that start the codebooks.
        latents: updates of a case on latents.
        together: updates of a case with the codec.
    """

    codec: int = 400
    pool: int = 64
    latents: int = 150
    together: int = 40


QUICK = Steps(codec=30, pool=16, latents=10, together=3)


class Codec(nn.Module):
    """The networks, with latents of unit variance between them."""

    mean: Tensor  # float [1, DIM, 1]
    spread: Tensor  # float []

    def __init__(self) -> None:
        """Draw the networks."""
        super().__init__()
        self.networks = RvqModel(SIZE)
        self.register_buffer("mean", torch.zeros(1, DIM, 1))
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def standardise(self, waves: list[Tensor]) -> None:
        """Measure the latents of sounds."""
        self.mean.zero_(), self.spread.fill_(1.0)
        latents = self.stretches(waves)
        self.mean.copy_(latents.mean((0, 2), keepdim=True))
        self.spread.copy_((latents - self.mean).square().mean().sqrt())

    def encode(self, x: Tensor) -> Tensor:
        """[B, N] -> latents [B, DIM, N / SIZE.frame]."""
        return (self.networks.analyse(x)[0] - self.mean) / self.spread

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> [B, N - SIZE.hop]: the last samples come with what follows."""
        return self.networks.synthesise(latents * self.spread + self.mean)[0][:, SIZE.hop :]

    @torch.no_grad()
    def stretches(self, waves: list[Tensor]) -> Tensor:
        """All whole stretches of latents of sounds, [count, DIM, LATENTS]."""
        size = LATENTS * SIZE.frame
        parts = [part for wave in waves for part in wave.split(size) if len(part) == size]
        return torch.cat([self.encode(x) for x in torch.stack(parts).split(32)])


def speech(folder: Path) -> tuple[list[Tensor], list[Tensor]]:
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
    unit, least = FRAMES * SIZE.frame, LATENTS * SIZE.frame
    train, test = (
        [x[: len(x) // unit * unit] for x in found if len(x) >= least]
        for found in ([read_mono(f, SIZE.sample_rate) for f in part] for part in files)
    )
    if not train or not test:
        seconds = least / SIZE.sample_rate
        raise click.UsageError(f"{folder} holds no files of {seconds} s or more of some speakers")
    return train, test


def _speaker(file: Path) -> str:
    return file.stem.split("-")[0]


def crops(waves: list[Tensor]) -> Tensor:
    """A batch of random stretches, [BATCH, CROP]."""
    chosen = torch.randint(len(waves), (BATCH,)).tolist()
    starts = [int(torch.randint(len(waves[i]) - CROP + 1, ())) for i in chosen]
    return torch.stack([waves[i][s : s + CROP] for i, s in zip(chosen, starts, strict=True)])


def distance(x: Tensor, x_hat: Tensor) -> Tensor:
    """What the networks are trained on, [B, N] each."""
    scale, rate = loudness_scale(x), SIZE.sample_rate
    x, x_hat = x * scale, x_hat * scale
    return mel_loss(x, x_hat, rate) + stft_loss(x, x_hat, rate) + 0.5 * waveform_loss(x, x_hat)


def optimise(parameters: list[nn.Parameter], steps: int, rate: float) -> Any:
    """A function that takes an update down a loss; the rate falls to nothing."""
    optimizer = torch.optim.Adam(parameters, rate, (0.9, 0.98))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()

    return update


@dataclass(frozen=True)
class Start:
    """Where all cases start.

    Attributes:
        codec: state of a Codec that was trained without a quantizer.
        latents: float [count, DIM, LATENTS], its latents of all sounds.
        early: the same from a codec that has learned nothing.
    """

    codec: dict[str, Tensor]
    latents: Tensor
    early: Tensor


def trained(waves: list[Tensor], steps: int) -> Codec:
    """The networks without a quantizer."""
    torch.manual_seed(0)
    codec = Codec()
    update = optimise(list(codec.parameters()), steps, 2e-3)
    for _ in range(steps):
        x = crops(waves)
        update(distance(x[:, : -SIZE.hop], codec.decode(codec.encode(x))))
    codec.standardise(waves)
    return codec


def prepare(folder: Path | None, waves: list[Tensor], steps: int) -> Start:
    """Train the codec, or take it and its latents from the folder if they are there."""
    file = folder / "start.pt" if folder else None
    if file and file.exists():
        return Start(**torch.load(file, weights_only=True))
    torch.manual_seed(0)
    young = Codec()
    young.standardise(waves)
    codec = trained(waves, steps)
    start = Start(codec.state_dict(), codec.stretches(waves), young.stretches(waves))
    if file:
        torch.save(vars(start), file)
    return start


def measure(
    case: Case, start: Start, waves: list[Tensor], test: list[Tensor], seed: int, steps: Steps
) -> dict[str, float]:
    """Train one case with one seed, and test it."""
    torch.manual_seed(seed)
    codec, coding = Codec(), case.make()
    codec.load_state_dict(start.codec)
    weights = {**_WEIGHTS, "entropy_loss": case.entropy}

    def penalty(losses: dict[str, Tensor]) -> Tensor:
        return sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))

    latents = start.latents
    with torch.no_grad():
        first = start.early if case.early else latents
        coding(first[torch.randperm(len(first))[: steps.pool]])
    own = list(coding.parameters())
    update = optimise(own, steps.latents, 2e-3) if own else None
    for _ in range(steps.latents):
        y = latents[torch.randint(len(latents), (BATCH,))]
        out = coding(y)
        if update:
            update((out.x_hat - y).square().mean() + penalty(out.losses))
    update = optimise([*codec.parameters(), *own], steps.together, 5e-4)
    for _ in range(steps.together):
        x = crops(waves)
        out = coding(codec.encode(x))
        update(distance(x[:, : -SIZE.hop], codec.decode(out.x_hat)) + penalty(out.losses))
    return _test(codec, coding.eval(), test)


@torch.inference_mode()
def _test(codec: Codec, coding: Coding, test: list[Tensor]) -> dict[str, float]:
    scores, bits = [], 0.0
    sizes = [size for scale in coding.quantizer.codebook_sizes for size in scale]
    counts = [torch.zeros(size, dtype=torch.int64) for size in sizes]
    for wave in test:
        codes = coding.encode(codec.encode(wave[None]))
        x_hat = codec.decode(coding.decode(codes))
        each = [scale[:, i : i + 1] for scale in codes for i in range(scale.shape[1])]
        bits += sum(math.log2(k) * c.numel() for k, c in zip(sizes, each, strict=True))
        counts = [n + count_codes(c, [len(n)])[0] for n, c in zip(counts, each, strict=True)]
        scores.append(_score(wave[None, : -SIZE.hop], x_hat))
    seconds = sum(map(len, test)) / SIZE.sample_rate
    means = {key: statistics.mean(score[key] for score in scores) for key in scores[0]}
    return {"kbps": bits / seconds / 1000} | means | use_of(counts)


def _score(x: Tensor, x_hat: Tensor) -> dict[str, float]:
    rate = SIZE.sample_rate
    return {
        "mel": mel_distance(x, x_hat, rate),
        "si_sdr_db": si_sdr_db(x, x_hat),
        "stoi": stoi(x, x_hat, rate) or 0.0,  # of silence: None
    }


def row(name: str, results: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the seeds."""
    means = {key: statistics.mean(result[key] for result in results) for key in results[0]}
    reached = [result["mel"] for result in results]
    return {"quantizer": name, **means, "mel_spread": max(reached) - min(reached)}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of speech.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), help="Folder to keep results in.")
@click.option("--quick", is_flag=True, help="One seed, few updates, few sounds: about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(data: Path | None, seeds: int, work: Path | None, quick: bool, as_json: bool) -> None:
    """Compare quantizers of speech at equal bits with what their papers claim."""
    if data is None:
        raise click.UsageError("needs --data DIR: speech, files named SPEAKER-anything")
    torch.set_num_threads(1)
    waves, test = speech(data)
    seeds, steps = (1, QUICK) if quick else (seeds, Steps())
    if quick:
        waves, test = waves[:20], test[:2]
    if work:
        work = work / "-".join(str(n) for n in dataclasses.astuple(steps))
        work.mkdir(parents=True, exist_ok=True)
    start = prepare(work, waves, steps.codec)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for seed, name in itertools.product(range(seeds), CASES):
        file = work / f"{name}, seed {seed}.json" if work else None
        if file and file.exists():
            results[name].append(json.loads(file.read_text()))
            continue
        results[name].append(measure(CASES[name], start, waves, test, seed, steps))
        if file:
            file.write_text(json.dumps(results[name][-1]))
    rows = {name: row(name, found) for name, found in results.items()}
    judge(rows, CLAIMS)
    length = f"{steps.codec} updates without, {steps.latents} + {steps.together} with a quantizer"
    show(f"Quantizers of speech, {seeds} seeds, {length}", rows.values(), as_json)


if __name__ == "__main__":
    main()
