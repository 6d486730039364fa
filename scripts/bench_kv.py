"""python scripts/bench_kv.py [--quick] [--json]: key-value caches beside zipnn and zstd.

Pages: every codec on every cache and page size in one run, interleaved with a copy of the cache
into warm buffers; `encode_vs_memcpy` and `decode_vs_memcpy` are parts of that copy's speed, in CPU
time of one thread (medians). "kv" is `encode_pages` with tables calibrated on other text; the
others code each page (keys and values of all layers) by itself. Tables are not counted: they are
made once for a model.

Contexts: sizes by what a table is for, all with `encode_pages`.

Generation: `PackedCache` beside `DynamicCache`, the same prompt and seed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch

import latentpack
from latentpack.codecs.tensor.kv import calibrate, decode_pages, encode_pages
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.kv_cases import Case, cases, load_model, text
from latentpack.scripts.tensor_peers import Coder, same, zipnn, zstd

Rows = list[dict[str, Any]]
PAGES = (16, 64, 256)
SLOW_FROM = 32 << 20  # bytes from which on the slow mode is left out


def ours(case: Case, page: int) -> Coder:
    """Pages with calibrated tables."""
    tables = calibrate([case.sample])
    data = encode_pages(case.k, case.v, tables, page=page, threads=1)
    out = (torch.empty_like(case.k), torch.empty_like(case.v))

    def decode() -> Any:
        return decode_pages(data, tables, out=out, threads=1)

    for decoded, x in zip(decode(), (case.k, case.v), strict=True):
        same(decoded, x.contiguous())
    return Coder(
        "kv", lambda: encode_pages(case.k, case.v, tables, page=page, threads=1), decode, len(data)
    )


def planes(x: torch.Tensor, mode: str) -> Coder:
    """Latentpack's codec for tensors of any kind."""
    data = bytes(latentpack.encode(x, mode=mode, threads=1))
    x_hat = torch.empty_like(x)
    return Coder(
        mode,
        lambda: latentpack.encode(x, mode=mode, threads=1),
        lambda: latentpack.decode(data, out=x_hat, threads=1),
        len(data),
    )


def page_by_page(case: Case, page: int) -> Iterator[Coder]:
    """The others: every page is a tensor of its own."""
    pages = [
        torch.stack([case.k[:, at : at + page], case.v[:, at : at + page]])
        for at in range(0, case.k.shape[1], page)
    ]
    makers: list[Callable[[torch.Tensor], list[Coder]]] = [
        lambda x: [planes(x, "tight")],
        lambda x: list(zipnn(x, 1)),
        lambda x: list(zstd(x)),
    ]
    if case.k.nbytes < SLOW_FROM:
        makers.insert(1, lambda x: [planes(x, "small")])
    for maker in makers:
        for coders in zip(*(maker(x) for x in pages), strict=True):
            yield together(list(coders))


def together(coders: list[Coder]) -> Coder:
    """All pages, one after another."""

    def all_of(name: str) -> Callable[[], None]:
        calls = [getattr(coder, name) for coder in coders]

        def run() -> None:
            for call in calls:
                call()

        return run

    size = sum(coder.size for coder in coders)
    return Coder(coders[0].name, all_of("encode"), all_of("decode"), size, all_of("prepare"))


def pages_of(case: Case, page: int, rounds: int) -> Rows:
    """All codecs on one cache and page size."""
    coders = [ours(case, page), *page_by_page(case, page)]
    out = (torch.zeros_like(case.k), torch.zeros_like(case.v))
    calls: dict[str, Callable[[], object]] = {
        "memcpy": lambda: (out[0].copy_(case.k), out[1].copy_(case.v))
    }
    for coder in coders:
        calls |= {f"{coder.name} encode": coder.encode, f"{coder.name} decode": coder.decode}
    prepare = {f"{coder.name} encode": coder.prepare for coder in coders}
    times = interleaved(calls, rounds, prepare=prepare)
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    nbytes = case.k.nbytes + case.v.nbytes
    return [
        {
            "codec": coder.name,
            "cache": case.name,
            "dtype": str(case.k.dtype).removeprefix("torch."),
            "page": page,
            "ratio": coder.size / nbytes,
            "encode_vs_memcpy": typical["memcpy"] / typical[f"{coder.name} encode"],
            "decode_vs_memcpy": typical["memcpy"] / typical[f"{coder.name} decode"],
            "encode_gb_s": nbytes / typical[f"{coder.name} encode"] / 1e9,
            "decode_gb_s": nbytes / typical[f"{coder.name} decode"] / 1e9,
        }
        for coder in coders
    ]


def contexts(case: Case) -> dict[str, Any]:
    """Ratios of one cache by what has a table of its own."""
    nbytes = case.k.nbytes + case.v.nbytes

    def size(classes: int, where: tuple[Any, ...] = (...,)) -> int:
        k, v = case.k[where], case.v[where]
        sample = tuple(x[where] for x in case.sample)
        return len(encode_pages(k, v, calibrate([(sample[0], sample[1])], classes), page=256))

    layers, heads = range(case.k.shape[0]), range(case.k.shape[2])
    layer_sizes = [size(1, (slice(i, i + 1),)) for i in layers]
    head_sizes = [
        size(1, (slice(i, i + 1), slice(None), slice(j, j + 1))) for i in layers for j in heads
    ]
    return {
        "cache": case.name,
        "dtype": str(case.k.dtype).removeprefix("torch."),
        "one_table": size(1) / nbytes,
        "per_layer": sum(layer_sizes) / nbytes,
        "per_head": sum(head_sizes) / nbytes,
        **{f"{n}_classes_of_channels": size(n) / nbytes for n in (4, 16, 32, 64, 255)},
    }


def generation(name: str, model: Any, ids: torch.Tensor, tokens: int) -> Rows:
    """Greedy and sampled, with a plain and a packed cache."""
    from transformers import DynamicCache

    rows = []
    for way, options in {"greedy": {"do_sample": False}, "top 50": {"do_sample": True}}.items():
        packed = latentpack.PackedCache(model.config)
        results = {}
        for kind, cache in {"plain": DynamicCache(config=model.config), "packed": packed}.items():
            torch.manual_seed(0)
            began = time.perf_counter()
            out = model.generate(
                ids,
                past_key_values=cache,
                max_new_tokens=tokens,
                pad_token_id=0,
                eos_token_id=None,
                **options,
            )
            results[kind] = (out, tokens * len(ids) / (time.perf_counter() - began))
        memory = packed.memory()
        packed.pack()
        rows.append(
            {
                "model": name,
                "dtype": str(model.dtype).removeprefix("torch."),
                "way": way,
                "context": results["plain"][0].shape[1],
                "identical": str(torch.equal(results["plain"][0], results["packed"][0])),
                "plain_mb": memory.plain / 1e6,
                "held_mb": memory.held / 1e6,
                "of_which_buffer": memory.buffer / 1e6,
                "waiting_mb": packed.memory().held / 1e6,
                "plain_tokens_s": results["plain"][1],
                "packed_tokens_s": results["packed"][1],
            }
        )
    return rows


def models(context: int) -> Iterator[tuple[str, Any, torch.Tensor]]:
    """The trained model, and a larger one of random weights with a longer context."""
    for dtype in (torch.bfloat16, torch.float32):
        model = load_model(dtype)
        if model is None:
            return
        yield "gutenberg3M", model, text(900)[None]
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=16,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=8192,
    )
    large: Any = LlamaForCausalLM(config)
    ids = torch.randint(0, 2048, (1, context))
    yield "random, 16 layers", large.bfloat16().eval(), ids


@click.command()
@click.option("--quick", is_flag=True, help="One page size, shorter caches: about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Compare pages of key-value caches with peers and a copy; generate with packed caches."""
    torch.set_num_threads(1)
    rows: Rows = []
    by_context: Rows = []
    for case in cases(1024 if quick else 4096):
        for page in (64,) if quick else PAGES:
            rows += pages_of(case, page, 1 if quick else 3)
        by_context.append(contexts(case))
    show("Pages of key-value caches, parts of the speed of a copy", rows, False)
    show("Ratio by what has a table", by_context, False)
    generated: Rows = []
    for name, model, ids in models(1000 if quick else 4000):
        generated += generation(name, model, ids, 20 if quick else 100)
    show("Generation", generated, as_json, pages=rows, contexts=by_context)


if __name__ == "__main__":
    main()
