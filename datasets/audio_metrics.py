"""How near a decoded sound is to its original.

Signals are float tensors [C, N] in -1..1: C channels, N samples, both of a pair alike. The two must
lie on each other sample by sample: nothing here looks for a delay, but PESQ and ViSQOL, which do so
by themselves.

Spectral distances are those of descript-audiotools, so that published numbers of DAC and its
followers compare, given the same sample rate:

    stft = sum over windows n = 2048, 512:  mean |L(X) - L(X_hat)| + mean |X - X_hat|
    mel  = the same of X M for 150 and 80 mel bands M (Slaney's scale and norm, up to half the rate)

with X the magnitudes of an STFT (Hann window, hop n / 4, centred, reflected at the ends, no norm),
L(X) = log10(max(X^2, 1e-5)), and means over channels, frames and bins. PESQ, STOI and ViSQOL are
those of the packages pesq, pystoi and visqol-python (the bench extra), on the mean of the channels
at the rate that each is defined for; they are None where they don't apply.
"""

import functools
import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import torch
import torchaudio.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .resampling import resample

SI_SDR_OF_EQUALS_DB = 150.0
_SCALES = ((2048, 150), (512, 80))  # window, mel bands
_LEAST_POWER = 1e-5
_LSD_WINDOW = 2048
_PESQ_RATES = {"wb": 16000, "nb": 8000}
_STOI_RATE, _STOI_LEAST_SECONDS = 16000, 0.5
_VISQOL_RATES = {"speech": 16000, "audio": 48000}
_VISQOL_LEAST_SECONDS = 1.0
# Module that must be there -> what to install for it.
_PACKAGES = {
    "pesq": "pesq",
    "pystoi": "pystoi",
    "visqol": "visqol-python",
    "ai_edge_litert": "visqol-python[lattice]",
}


def missing_packages() -> list[str]:
    """What must be installed for PESQ, STOI and ViSQOL, as far as it is not there."""
    return [
        package for module, package in _PACKAGES.items() if not importlib.util.find_spec(module)
    ]


def si_sdr_db(x: Tensor, x_hat: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv:1811.02508).

    The mean of the channels' values, each with its mean removed, at most 150 dB; neither the gain
    nor the sign of `x_hat` matters. A silent channel counts 150 dB where `x_hat` is silent too, and
    -150 dB where it is not.

    >>> x = torch.sin(torch.arange(1000.0))[None]
    >>> si_sdr_db(x, -3 * x)
    150.0
    """
    _check(x, x_hat)
    values = [_si_sdr(*pair) for pair in zip(x.double(), x_hat.double(), strict=True)]
    return math.fsum(values) / len(values)


def _si_sdr(x: Tensor, x_hat: Tensor) -> float:
    x, x_hat = x - x.mean(), x_hat - x_hat.mean()
    energy = x.square().sum()
    target = x * ((x * x_hat).sum() / energy if energy > 0 else energy)
    wanted, unwanted = target.square().sum().item(), (x_hat - target).square().sum().item()
    if unwanted == 0:
        return SI_SDR_OF_EQUALS_DB
    value = 10 * math.log10(wanted / unwanted) if wanted else -math.inf
    return max(-SI_SDR_OF_EQUALS_DB, min(SI_SDR_OF_EQUALS_DB, value))


def stft_distance(x: Tensor, x_hat: Tensor) -> float:
    """Multi-resolution STFT distance, see above; 0 for equals, about 1 for good codecs."""
    _check(x, x_hat)
    return math.fsum(
        _distance(_magnitudes(x, window), _magnitudes(x_hat, window)) for window, _ in _SCALES
    )


def mel_distance(x: Tensor, x_hat: Tensor, sample_rate: int) -> float:
    """Multi-resolution mel distance, see above; 0 for equals, about 1 for good codecs."""
    _check(x, x_hat)
    total = 0.0
    for window, bands in _SCALES:
        filters = _mel_filters(window, bands, sample_rate)
        total += _distance(*(_magnitudes(y, window).mT @ filters for y in (x, x_hat)))
    return total


def log_spectral_distance(x: Tensor, x_hat: Tensor) -> float:
    """The root mean square over bins of the difference of L, mean over frames and channels.

    In units of log10 of power, i.e. 10 dB; L and the STFT as above with the window 2048.
    """
    _check(x, x_hat)
    one, two = (_logarithm(_magnitudes(y, _LSD_WINDOW)) for y in (x, x_hat))
    return float((one - two).square().mean(-2).sqrt().mean())


def _magnitudes(x: Tensor, window: int) -> Tensor:
    """[C, N] -> [C, window / 2 + 1, frames]; what is too short to be reflected is extended by 0."""
    least = window // 2 + 1
    if x.shape[1] < least:
        x = torch.nn.functional.pad(x, (0, least - x.shape[1]))
    hann = torch.hann_window(window)
    return torch.stft(x.float(), window, window // 4, window=hann, return_complex=True).abs()


def _logarithm(magnitudes: Tensor) -> Tensor:
    return magnitudes.square().clamp(min=_LEAST_POWER).log10()


def _distance(one: Tensor, two: Tensor) -> float:
    return float((_logarithm(one) - _logarithm(two)).abs().mean() + (one - two).abs().mean())


@functools.lru_cache(maxsize=16)
def _mel_filters(window: int, bands: int, sample_rate: int) -> Tensor:
    """[window / 2 + 1, bands]; at low rates some of 150 bands hold no bin and stay 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        filters: Tensor = F.melscale_fbanks(
            window // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, "slaney", "slaney"
        )
    return filters


def pesq(x: Tensor, x_hat: Tensor, sample_rate: int, band: str = "wb") -> float | None:
    """Perceptual evaluation of speech quality, MOS-LQO, up to 4.64 (wb) or 4.55 (nb).

    ITU-T P.862.2 at 16 kHz ("wb"), P.862.1 at 8 kHz ("nb"). None for what it finds no speech in,
    and for less than a quarter of a second. It holds some minutes at most: cut what is longer.
    """
    from pesq import BufferTooShortError, NoUtterancesError
    from pesq import pesq as measure

    if band not in _PESQ_RATES:
        raise ValueError(f"band must be one of {', '.join(_PESQ_RATES)}, got {band!r}")
    rate = _PESQ_RATES[band]
    one, two = _mono(x, x_hat, sample_rate, rate)
    if not np.any(two):  # it divides by the level
        two = np.full_like(two, 1e-9)
    try:
        return float(measure(rate, one, two, band))
    except (NoUtterancesError, BufferTooShortError):
        return None


def stoi(x: Tensor, x_hat: Tensor, sample_rate: int, extended: bool = False) -> float | None:
    """Short-time objective intelligibility, 0 to 1 (Taal et al. 2011; extended: Jensen 2016).

    None for silence and for less than half a second of sound that is not silent.
    """
    from pystoi import stoi as measure

    one, two = _mono(x, x_hat, sample_rate, _STOI_RATE)
    if len(one) < _STOI_LEAST_SECONDS * _STOI_RATE or not np.any(one):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames")
        try:
            return float(measure(one, two, _STOI_RATE, extended=extended))
        except RuntimeWarning:
            return None


def visqol(x: Tensor, x_hat: Tensor, sample_rate: int, mode: str) -> float | None:
    """ViSQOL v3 of visqol-python, MOS-LQO from 1 to about 4.7, in mode "speech" or "audio".

    Speech is measured at 16 kHz with the lattice model, the default of Google's program; audio at
    48 kHz. None for less than a second and for silence.
    """
    if mode not in _VISQOL_RATES:
        raise ValueError(f"mode must be one of {', '.join(_VISQOL_RATES)}, got {mode!r}")
    rate = _VISQOL_RATES[mode]
    one, two = _mono(x, x_hat, sample_rate, rate)
    if len(one) < _VISQOL_LEAST_SECONDS * rate or not np.any(one):
        return None
    if not np.any(two):
        two = np.full_like(two, 1e-9)
    return float(_visqol(mode).measure_from_arrays(one, two, rate).moslqo)


@functools.cache
def _visqol(mode: str) -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode=mode, use_lattice_model=mode == "speech")
    return api


def _mono(
    x: Tensor, x_hat: Tensor, sample_rate: int, wanted: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _check(x, x_hat)
    one, two = (
        resample(y.double().mean(0, keepdim=True), sample_rate, wanted)[0].numpy()
        for y in (x, x_hat)
    )
    return one, two


def _check(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape or x.dim() != 2 or x.numel() == 0:
        raise ValueError(
            "signals must be [C, N] of one shape, with a sample at least, got "
            f"{list(x.shape)} and {list(x_hat.shape)}"
        )
