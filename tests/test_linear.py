"""Layers with packed weights: the same results, bit for bit, in less memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import latentpack
from latentpack.codecs.fields import Cursor
from latentpack.codecs.tensor import linear, on_device
from latentpack.codecs.tensor.linear import PackedEmbedding, PackedLinear, PackedWeight
from latentpack.codecs.tensor.lossless import Lossless, _coded
from latentpack.codecs.tensor.packet import Start
from latentpack.kernels import cuda, planes_cuda
from latentpack.kernels.planes import FLOAT
from latentpack.tests import cuda_on_cpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Model(nn.Module):
    """Embedding, a block with a residual, a head that is tied to the embedding."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(300, 64)
        self.block = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64, bias=False))
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 300, bias=False)
        self.head.weight = self.embed.weight
        self.to(dtype)

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.norm(x + self.block(x)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_bit_identical(dtype):
    plain = Model(dtype)
    packed = latentpack.pack_module(copy.deepcopy(plain))
    assert isinstance(packed.block[0], PackedLinear) and isinstance(packed.embed, PackedEmbedding)
    assert packed.head.packed is packed.embed.packed  # tied
    now, before = linear.packed_memory(packed)
    plain_size = sum(p.nbytes for p in plain.parameters())
    assert before == plain_size and now < 0.92 * plain_size
    for ids in (
        torch.tensor([[1, 2, 299], [1, 1, 0]]),
        torch.arange(300),
        torch.zeros(2, 0).long(),
    ):
        assert torch.equal(packed(ids), plain(ids))
    again = latentpack.unpack_module(packed)
    assert again.head.weight is again.embed.weight
    for name, tensor in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_gradients_are_those_of_the_plain_layer():
    plain = nn.Linear(128, 96)
    packed = PackedLinear.from_linear(copy.deepcopy(plain))
    x = torch.randn(5, 7, 128, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(5, 7, 96)
    (plain(x) * weight).sum().backward()
    (packed(y) * weight).sum().backward()
    assert torch.allclose(x.grad, y.grad) and torch.allclose(plain.bias.grad, packed.bias.grad)
    assert torch.equal(packed.weight, plain.weight) and not packed.weight.requires_grad
    assert "packed to 0.8" in repr(packed)


def test_a_state_dict_travels():
    source = latentpack.pack_module(Model())
    target = latentpack.pack_module(Model())
    with torch.no_grad():
        other = latentpack.pack_module(Model().apply(lambda m: m))
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    assert target.load_state_dict(state).missing_keys == []
    empty = PackedLinear(PackedWeight())
    with pytest.raises(RuntimeError, match="no weight has been packed"):
        empty(torch.zeros(1, 64))
    empty.load_state_dict({"packed.packed": state["block.2.packed.packed"]})
    assert torch.equal(empty.weight, other.block[2].weight)
    state["block.2.packed.packed"][300] ^= 1
    with pytest.raises(latentpack.BitstreamError):
        empty.load_state_dict({"packed.packed": state["block.2.packed.packed"]})
        empty(torch.zeros(1, 256))


def test_small_and_other_layers_stay():
    module = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(8, 8, 3), nn.Embedding(9, 2))
    assert latentpack.pack_module(module) is module
    assert [type(m) for m in module] == [nn.Linear, nn.Conv1d, nn.Embedding]
    alone = latentpack.pack_module(nn.Linear(100, 100), min_bytes=1)
    assert isinstance(alone, PackedLinear)
    twice = nn.Linear(100, 100)
    shared = latentpack.pack_module(nn.Sequential(twice, twice))
    assert shared[0] is shared[1] and isinstance(shared[0], PackedLinear)


def test_only_the_rows_that_are_asked_for(monkeypatch):
    layer = latentpack.pack_module(nn.Embedding(2000, 64))
    whole = layer.weight
    monkeypatch.setattr(PackedWeight, "decode", None)  # would fail
    ids = torch.tensor([[5, 1999, 5], [0, 7, 1000]])
    assert torch.equal(layer(ids), F.embedding(ids, whole))


def test_to_other_dtypes_and_devices_leaves_the_bits():
    layer = PackedLinear.from_linear(nn.Linear(128, 64).bfloat16())
    before = layer.weight
    assert torch.equal(layer.float().weight, before) and layer.weight.dtype == torch.bfloat16
    assert torch.equal(copy.deepcopy(layer).weight, before)


def test_a_device_multiplies_what_is_packed(monkeypatch):
    monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    plain = nn.Linear(256, 96).bfloat16()
    layer = PackedLinear.from_linear(plain)
    layer.packed._there = None
    monkeypatch.setattr(on_device, "kernels_for", lambda device: planes_cuda)
    monkeypatch.setattr(linear, "kernels_for", lambda device: planes_cuda)
    layer.packed._move(torch.device("cpu"))
    assert layer.packed._there is not None
    assert torch.equal(layer.weight, plain.weight)
    monkeypatch.setattr(PackedWeight, "decode", None)  # the weight must not be decoded
    x = torch.randn(2, 3, 256).bfloat16()
    assert torch.allclose(layer(x).float(), plain(x).float(), atol=0.02, rtol=0.02)


def test_a_small_language_model():
    transformers = pytest.importorskip("transformers", reason="no transformers")
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    plain = transformers.LlamaForCausalLM(config).eval()
    packed = latentpack.pack_module(copy.deepcopy(plain))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(packed(ids).logits, plain(ids).logits)
    tokens = [m.generate(ids[:, :5], max_new_tokens=8, do_sample=False) for m in (plain, packed)]
    assert torch.equal(*tokens)


def test_what_packing_would_not_help_stays():
    class Reader(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.table = weight

    shared, noise = nn.Linear(128, 128), nn.Linear(128, 128)
    with torch.no_grad():
        noise.weight.view(torch.int32).random_(-(1 << 31), (1 << 31) - 1)
    module = nn.ModuleList([shared, noise, Reader(shared.weight)])
    latentpack.pack_module(module)
    assert module[0] is shared and module[1] is noise


def test_a_state_dict_of_another_shape():
    first, second = (PackedLinear.from_linear(nn.Linear(64, n, bias=False)) for n in (64, 65))
    with pytest.raises(ValueError, match=r"\(64, 64\), the module is of .*\(65, 64\)"):
        second.load_state_dict(first.state_dict())


def test_streams_that_the_fused_kernel_does_not_take_are_seen():
    def brought(weight, mode):
        packet = Lossless(mode, chunk=4096).encode_tensor(weight)
        cursor = Cursor(memoryview(packet.body), 0)
        head, coded = _coded(Start.get(cursor), cursor, packet.bulk)
        return planes_cuda.Packed.from_host(head, bytes(coded), 8192, 2, FLOAT, "cpu")

    torch.manual_seed(0)
    few = torch.randint(1, 9, (8192,)).mul(0.125).bfloat16()  # mantissas that pay
    assert on_device.only_first_coded(brought(few, "segments"))
    assert not on_device.only_first_coded(brought(few, "tight"))
