"""PackedCache: the tokens of a plain cache, from fewer bytes; batches, beams, crops, pages."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import latentpack

transformers = pytest.importorskip(
    "transformers", reason="no transformers: pip install latentpack[transformers]"
)

from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig  # noqa: E402

from latentpack.codecs.tensor.kv import calibrate  # noqa: E402
from latentpack.codecs.tensor.kv_cache import PackedCache  # noqa: E402
from latentpack.codecs.tensor.kv_layer import PackedLayer  # noqa: E402

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "gutenberg3M"
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
CONFIG = LlamaConfig(**SMALL)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads for so little work wait for each other where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG).eval()


def prompt(batch=2, tokens=50):
    return torch.randint(0, 61, (batch, tokens), generator=torch.Generator().manual_seed(3))


def generated(model, cache, ids=None, tokens=40, **options):
    torch.manual_seed(1)
    options = {"pad_token_id": 0, "eos_token_id": None, "do_sample": False, **options}
    ids = prompt() if ids is None else ids
    return model.generate(ids, past_key_values=cache, max_new_tokens=tokens, **options)


def packed(model, **options):
    return PackedCache(model.config, **{"window": 8, "page": 16, **options})


def tensors(cache):
    return [(k.clone(), v.clone()) for k, v, *_ in cache]


def assert_same_cache(a, b):
    for (k, v), (k_hat, v_hat) in zip(tensors(a), tensors(b), strict=True):
        assert torch.equal(k, k_hat)
        assert torch.equal(v, v_hat)


def filled(model, cache, ids):
    with torch.no_grad():
        for part in ids.split(30, dim=1):
            model(part, past_key_values=cache)
    return cache


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True},
        {"do_sample": True, "num_return_sequences": 2},
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_identical_tokens(model, options, dtype):
    ours = copy.deepcopy(model).to(dtype)
    cache = packed(ours)
    assert torch.equal(
        generated(ours, cache, **options), generated(ours, DynamicCache(config=CONFIG), **options)
    )
    assert all(len(row) >= 4 for layer in cache.packed for row in layer.pages)
    assert cache.tables.dtype == dtype


@pytest.mark.parametrize("window", [0, 1, 16, 300])
@pytest.mark.parametrize("page", [1, 7, 64])
def test_identical_caches(model, window, page):
    ids = prompt(tokens=100)
    plain = filled(model, DynamicCache(config=CONFIG), ids)
    tables = calibrate([(torch.stack([k[0].transpose(0, 1) for k, _ in tensors(plain)]),) * 2])
    for given in (None, tables):
        cache = filled(model, packed(model, tables=given, window=window, page=page), ids)
        assert_same_cache(cache, plain)
        assert cache.get_seq_length() == 100
        assert cache.get_seq_length(2) == 100
        cache.pack()
        assert_same_cache(cache, plain)


def test_assisted_generation(model):
    """The assistant's wrong guesses are cropped away."""
    torch.manual_seed(5)
    assistant = LlamaForCausalLM(LlamaConfig(**{**SMALL, "num_hidden_layers": 1})).eval()
    ids = prompt(batch=1)
    expected = generated(model, DynamicCache(config=CONFIG), ids, assistant_model=assistant)
    assert torch.equal(generated(model, packed(model), ids, assistant_model=assistant), expected)


@pytest.mark.parametrize("remove", [0, 1, 7, 8, 9, 24, 25, 40, 55, 59, 60])
def test_crop(model, remove):
    ids = prompt(tokens=60)
    plain, cache = (filled(model, c, ids) for c in (DynamicCache(config=CONFIG), packed(model)))
    plain.crop(-remove)
    cache.crop(-remove)
    assert cache.get_seq_length() == 60 - remove
    for layer, other in zip(cache.layers, plain.layers, strict=True):
        if layer.pages:
            assert torch.equal(layer.read()[0], other.keys)
    more = prompt(tokens=20)
    assert_same_cache(filled(model, cache, more), filled(model, plain, more))
    with pytest.raises(ValueError, match="positive"):
        cache.crop(5)


def test_batches(model):
    ids = prompt(tokens=60)
    plain, cache = (filled(model, c, ids) for c in (DynamicCache(config=CONFIG), packed(model)))
    for change in (
        lambda c: c.batch_repeat_interleave(2),
        lambda c: c.reorder_cache(torch.tensor([3, 0, 0, 2])),
        lambda c: c.batch_select_indices(torch.tensor([1, 2, 3])),
        lambda c: c.batch_select_indices(torch.tensor([True, False, True])),
    ):
        change(plain)
        change(cache)
        assert_same_cache(cache, plain)
    assert_same_cache(filled(model, cache, ids), filled(model, plain, ids))


def test_reset_and_copies(model):
    ids = prompt(tokens=60)
    cache = filled(model, packed(model), ids)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.tables == cache.tables
        assert_same_cache(other, cache)
    assert_same_cache(filled(model, other, ids[:, :9]), filled(model, cache, ids[:, :9]))
    cache.reset()
    assert cache.get_seq_length() == 0
    assert cache.tables is not None
    assert_same_cache(filled(model, cache, ids), filled(model, DynamicCache(config=CONFIG), ids))


def test_inference_mode_and_outside(model):
    ids = prompt(tokens=92)
    cache = packed(model)
    with torch.inference_mode():
        filled(model, cache, ids[:, :90])
        assert cache.memory().buffer
    filled(model, cache, ids[:, 90:])
    assert_same_cache(cache, filled(model, DynamicCache(config=CONFIG), ids))


def test_memory(model):
    cache = packed(model)
    assert cache.memory() == (0, 0, 0, 0, 0)
    filled(model, cache, prompt(tokens=250))
    memory = cache.memory()
    token = 2 * 2 * 8 * 4 * 3 * 2  # k and v, heads, dim, bytes, layers, batch
    assert memory.plain == 250 * token
    window = 250 - cache.packed[0].packed_tokens
    assert 8 <= window < 8 + 16
    assert memory.window == window * token
    assert memory.held == memory.packed + memory.window + memory.buffer
    assert memory.packed < 0.95 * (memory.plain - memory.window)
    assert memory.buffer >= memory.plain / 3
    cache.pack()
    assert cache.memory().buffer == 0
    assert cache.memory().held < 0.95 * memory.plain


def test_beams_share_their_pages(model):
    cache = filled(model, packed(model), prompt(tokens=100))
    alone = cache.memory().packed
    cache.batch_repeat_interleave(5)
    assert cache.memory().packed == alone


def test_sliding_windows_stay_plain():
    config = MistralConfig(**SMALL, sliding_window=20)
    with pytest.raises(ValueError, match="no layer of this model"):
        PackedCache(config)
    mixed = transformers.Gemma2Config(
        **{**SMALL, "num_hidden_layers": 4},
        sliding_window=20,
        layer_types=["full_attention", "sliding_attention"] * 2,
    )
    torch.manual_seed(0)
    gemma = transformers.Gemma2ForCausalLM(mixed).eval()
    cache = packed(gemma)
    assert [isinstance(layer, PackedLayer) for layer in cache.layers] == [True, False, True, False]
    assert torch.equal(generated(gemma, cache), generated(gemma, DynamicCache(config=mixed)))
    assert cache.memory().other > 0
    assert cache.packed[1].pages
    with pytest.raises(ValueError, match="layers that are not packed"):
        PackedCache.from_pages(mixed, [], cache.tables)


def test_refusals(model):
    for options in ({"window": -1}, {"page": 0}, {"page": 5000}):
        with pytest.raises(ValueError, match="expected 0 or more"):
            PackedCache(CONFIG, **options)
    with pytest.raises(RuntimeError, match="no_grad"):
        model(prompt(), past_key_values=packed(model))
    wrong = calibrate([torch.randn(3, 20, 2, 8)])
    with pytest.raises(ValueError, match="does not fit KVTables"):
        filled(model, packed(model, tables=wrong), prompt())
    shared = transformers.Gemma3nTextConfig(num_hidden_layers=4, num_kv_shared_layers=2)
    shared.layer_types = ["full_attention"] * 4
    with pytest.raises(ValueError, match="use a DynamicCache"):
        PackedCache(shared)


def test_pages_of_a_conversation(model, tmp_path):
    """Turn one, to disk, turn two elsewhere: the tokens of one long conversation."""
    ids = prompt(tokens=70)
    cache = filled(model, packed(model), ids)
    store = latentpack.KVStore(tmp_path)
    store.put_tables(cache.tables)
    for row in range(2):
        store.put(f"user {row}", cache.to_pages(row))
    digest = store.info("user 0").digest
    again = PackedCache.from_pages(
        CONFIG,
        [store.get("user 0"), store.get("user 1")],
        store.tables(digest),
        window=8,
        page=16,
    )
    assert_same_cache(again, cache)
    more = torch.cat([ids, prompt(tokens=5)], dim=1)
    expected = generated(model, cache, more)
    assert torch.equal(generated(model, again, more), expected)
    with pytest.raises(RuntimeError, match="no tokens yet"):
        packed(model).to_pages()
    with pytest.raises(ValueError, match="expected one, of all layers"):
        PackedCache.from_pages(CONFIG, [], cache.tables)


@pytest.mark.skipif(not MODEL.is_dir(), reason=f"{MODEL} is not there")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_trained_model(dtype):
    trained = LlamaForCausalLM.from_pretrained(MODEL, dtype=dtype).eval()
    ids = torch.randint(3, 2048, (1, 300), generator=torch.Generator().manual_seed(0))
    for options in ({}, {"do_sample": True, "top_k": 50}):
        cache = PackedCache(trained.config, window=64)
        plain = generated(trained, DynamicCache(config=trained.config), ids, 60, **options)
        assert torch.equal(generated(trained, cache, ids, 60, **options), plain)
        cache.pack()
        memory = cache.memory()
        assert memory.held < memory.plain * (0.87 if dtype == torch.float32 else 0.72)
