"""Key-value caches to measure with: of real models where they are there, and long made ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
MODEL = WEIGHTS / "gutenberg3M"
CONTEXT = 1024
TOKENS = 4 * CONTEXT  # of a real cache: four sequences, one after another
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Case(NamedTuple):
    """A cache, and another of the same model on other text to calibrate with.

    Each tensor is [layers, tokens, kv_heads, head_dim].
    """

    name: str
    k: torch.Tensor
    v: torch.Tensor
    sample: tuple[torch.Tensor, torch.Tensor]


def cases(tokens: int) -> Iterator[Case]:
    """Every cache in every dtype; `tokens` are those of the long ones."""
    yield from _with_fp8(trained(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32))
    yield from dumped()
    yield from _with_fp8(made(dtype, tokens) for dtype in (torch.bfloat16, torch.float16))


def _with_fp8(made: Iterator[Case | None]) -> Iterator[Case]:
    """The caches, and the first of them rounded to fp8, as engines store it with scale 1."""
    first = True
    for case in made:
        if case is None:
            return
        yield case
        for dtype in FP8 if first else ():
            k, v, *sample = (x.to(dtype) for x in (case.k, case.v, *case.sample))
            yield Case(case.name, k, v, (sample[0], sample[1]))
        first = False


def load_model(dtype: torch.dtype) -> Any:
    """The trained model of the data folder; None where it or transformers is not there."""
    if not MODEL.is_dir():
        print(f"no trained model: {MODEL} is not there, its rows are skipped", file=sys.stderr)
        return None
    try:
        from transformers import LlamaForCausalLM
    except ImportError as error:
        print(f"no transformers ({error}): the rows of models are skipped", file=sys.stderr)
        return None
    model: Any = LlamaForCausalLM.from_pretrained(MODEL, dtype=dtype)
    return model.eval()


def text(count: int) -> torch.Tensor:
    """So many tokens of the validation text of the trained model."""
    from sentencepiece import SentencePieceProcessor

    tokens = SentencePieceProcessor(model_file=str(MODEL / "tok2048.model")).encode(
        (MODEL / "valid.txt").read_text()[: 8 * count]
    )
    return torch.tensor(tokens[:count])


def trained(dtype: torch.dtype) -> Case | None:
    """What the model holds (keys after RoPE) of four sequences; the sample is of four others."""
    model = load_model(dtype)
    if model is None:
        return None
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(text(2 * TOKENS).view(-1, CONTEXT), past_key_values=cache)
    k, v = (torch.stack([pair[i].transpose(1, 2).flatten(0, 1) for pair in cache]) for i in (0, 1))
    return Case("gutenberg3M", k[:, TOKENS:], v[:, TOKENS:], (k[:, :TOKENS], v[:, :TOKENS]))


def dumped() -> Iterator[Case]:
    """A cache that was dumped with keys before RoPE: one sequence, the sample is the other."""
    path = WEIGHTS / "kv_dumps" / "stories260K_kv_prerope_fp16.npz"
    if not path.is_file():
        print(f"no dumped cache: {path} is not there, its rows are skipped", file=sys.stderr)
        return
    with np.load(path) as dump:
        k, v = (torch.from_numpy(dump[name]) for name in "kv")
    yield Case("stories260K, before RoPE", k[:, 1], v[:, 1], (k[:, 0], v[:, 0]))


def made(dtype: torch.dtype, tokens: int, layers: int = 8) -> Case:
    """A long cache of the shape of an 8B model's (8 kv_heads of 128), eight of its layers.

    Each channel has a scale exp(N(0, 0.5)) and a mean of half its scale times N(0, 1); in keys
    one channel in 32 is eight times larger, as outliers are. Tokens are an AR(1) process of
    coefficient 0.7 around the mean, and keys are rotated as RoPE does (theta 500,000).
    """
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    total = tokens + min(tokens, 1024)
    angle = torch.arange(total)[:, None] / 500_000 ** (torch.arange(64) / 64)
    cos, sin = angle.cos().repeat(1, 2)[:, None], angle.sin().repeat(1, 2)[:, None]
    tensors = []
    for keys in (True, False):
        x = torch.empty(layers, total, 8, 128, dtype=dtype)
        for layer in x:
            scale = torch.exp(0.5 * randn(8, 128))
            if keys:
                scale.view(-1)[::32] *= 8
            process = _autoregressive(randn(total, 8, 128), 0.7) + 0.5 * randn(8, 128)
            process *= scale
            if keys:
                a, b = process.chunk(2, dim=-1)
                process = process * cos + torch.cat([-b, a], dim=-1) * sin
            layer.copy_(process)
        tensors.append(x)
    k, v = tensors
    return Case("made, 8B shape", k[:, :tokens], v[:, :tokens], (k[:, tokens:], v[:, tokens:]))


def _autoregressive(noise: torch.Tensor, coefficient: float) -> torch.Tensor:
    """x[t] = c x[t - 1] + sqrt(1 - c**2) noise[t], over the first dimension, in doubling steps."""
    x: torch.Tensor = noise * math.sqrt(1 - coefficient**2)
    step, factor = 1, coefficient
    while factor > 1e-6:
        x[step:] += factor * x[:-step].clone()
        step, factor = 2 * step, factor * factor
    return x
