"""Layers whose weights stay packed in memory, without loss, and are decoded when they are used.

On the CPU a weight is decoded into a scratch that all layers share: the memory is that of the
packed weights and of the largest weight. On a CUDA device up to 8 vectors at a time are multiplied
with a bfloat16 weight without decoding it to memory (`kernels.matvec`), more by decoding first.

The weights are frozen; gradients flow to the input and the bias.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...kernels import memory
from .. import api
from ..codec import Packet
from ..container import Reader
from . import on_device
from .lossless import Lossless
from .on_device import kernels_for

# What CUDA's fused product takes; the CPU reads rows of it, too.
MODE, CHUNK = "segments", 8192
MIN_BYTES = 1 << 14  # of a weight: below, a layer is left as it is
FEW_ROWS = 32  # of an embedding: so many are decoded one by one

_scratch = threading.local()


class PackedWeight(nn.Module):
    """A tensor that stays packed: a buffer that holds a .lpk file.

    The buffer stays in host memory; on a CUDA device, the coded bytes are there besides, in the
    form that its kernels read.

    Args:
        weight: the tensor; None makes room for one that `load_state_dict` brings.
        mode: of codec tensor/lossless.
        chunk: elements of a chunk.
    """

    packed: torch.Tensor

    def __init__(
        self, weight: torch.Tensor | None = None, mode: str = MODE, chunk: int = CHUNK
    ) -> None:
        """Pack the tensor."""
        super().__init__()
        data = b"" if weight is None else api.encode(weight.detach(), mode=mode, chunk=chunk)
        held = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
        self.register_buffer("packed", held.to(torch.uint8))
        self._open()
        if weight is not None:
            self._move(weight.device)

    def _open(self) -> None:
        """Read what the packed bytes say of themselves."""
        self._device: torch.device = torch.device("cpu")
        self._there: Any = None  # planes_cuda.Packed
        self._fused = False
        self._packet: Packet | None = None
        if self.packed.numel():
            reader = Reader(self.packed.numpy().data)
            self._packet = next(reader.packets())
            about = Lossless().describe({}, self._packet)
            self.dtype: torch.dtype = about["dtype"]
            self.shape: tuple[int, ...] = about["shape"]

    def _move(self, device: torch.device) -> None:
        self._device, self._there = device, None
        kernels = kernels_for(device)
        if kernels is not None and self._packet is not None:
            self._there = Lossless().on_device(self._packet, device)
        self._fused = self._there is not None and on_device.only_first_coded(self._there)
        if self._there is not None and kernels is not None:  # damage is found here, once
            kernels.decode(self._there)
            self._there.check()

    def _apply(self, fn: Any, recurse: bool = True) -> PackedWeight:
        """Follow `.to(device)`; the packed bytes themselves stay where they are."""
        self._move(fn(torch.empty(0, dtype=torch.uint8, device=self._device)).device)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take packed bytes of any size."""
        found = state_dict.get(f"{prefix}packed")
        if found is not None:
            before = None if self._packet is None else (self.dtype, self.shape)
            self.packed = found.detach().cpu().clone()
            device = self._device
            self._open()
            if before is not None and before != (self.dtype, self.shape):
                raise ValueError(
                    f"{prefix}packed holds {self.dtype} {self.shape}, the module is of {before}"
                )
            self._move(device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def decode(self, scratch: bool = False) -> torch.Tensor:
        """The tensor, bit for bit.

        Args:
            scratch: decode into memory that the next such call of the thread uses again.
        """
        packet = self._whole()
        kernels = kernels_for(self._device)
        if self._there is not None and kernels is not None:  # neither copied nor parsed again
            decoded: torch.Tensor = kernels.decode(self._there, checksum=False)
            return decoded.view(self.dtype).view(self.shape)
        codec = Lossless(device=None if self._device.type == "cpu" else self._device)
        if not scratch or self._device.type != "cpu":
            return codec.decode_tensor(packet)
        return codec.decode_tensor(packet, _scratch_of(self.shape, self.dtype))

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Rows first .. last - 1 of the tensor."""
        codec = Lossless(device=None if self._device.type == "cpu" else self._device)
        return codec.decode_rows(self._whole(), first, last)

    def multiply(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`F.linear(x, weight, bias)`, fused where the device has a kernel for it."""
        from ...kernels import matvec

        vectors = x.reshape(-1, x.shape[-1])
        fused = self._fused and 1 <= len(vectors) <= matvec.MAX_BATCH
        if fused and self.dtype == x.dtype == torch.bfloat16:
            y = matvec.multiply(self._there, self.shape[0], vectors.contiguous(), bias)
            return y.view(*x.shape[:-1], self.shape[0])
        return F.linear(x, self.decode(scratch=True), bias)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form."""
        return self.packed.numel()

    @property
    def plain_nbytes(self) -> int:
        """Bytes of the tensor when it is not packed."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def _whole(self) -> Packet:
        if self._packet is None:
            raise RuntimeError("no weight has been packed or loaded here yet")
        return self._packet


class _Linear(torch.autograd.Function):
    """Decodes again in the backward pass instead of keeping the weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, packed: Any) -> torch.Tensor:
        """Multiply."""
        ctx.packed, ctx.has_bias = packed, bias is not None
        result: torch.Tensor = packed.multiply(x, bias)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """Give the gradients of x and the bias."""
        (grad,) = grads
        grad_x = grad @ ctx.packed.decode(scratch=True) if ctx.needs_input_grad[0] else None
        grad_bias = None
        if ctx.has_bias and ctx.needs_input_grad[1]:
            grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0)
        return grad_x, grad_bias, None


class PackedLinear(nn.Module):
    """`nn.Linear` with a weight that stays packed.

    Args:
        packed: the weight [out_features, in_features].
        bias: as of the layer; None = none.
    """

    def __init__(self, packed: PackedWeight, bias: nn.Parameter | None = None) -> None:
        """Keep both."""
        super().__init__()
        self.packed = packed
        self.bias = bias

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> PackedLinear:
        """Pack the weight of a layer; options are those of `PackedWeight`."""
        return cls(PackedWeight(linear.weight, **options), linear.bias)

    @property
    def weight(self) -> torch.Tensor:
        """The weight, decoded anew each time."""
        return self.packed.decode()

    @property
    def in_features(self) -> int:
        """Size of the input."""
        return self.packed.shape[1]

    @property
    def out_features(self) -> int:
        """Size of the output."""
        return self.packed.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply [..., in_features] with the weight."""
        return _Linear.apply(x, self.bias, self.packed)  # type: ignore[no-any-return,no-untyped-call]

    def extra_repr(self) -> str:
        """Show sizes and ratio."""
        return f"{_shown(self.packed)}, bias={self.bias is not None}"


class PackedEmbedding(nn.Module):
    """`nn.Embedding` with a weight that stays packed; only the rows that are asked for decode.

    Args:
        packed: the weight [num_embeddings, embedding_dim].
        padding_idx: kept for those who ask; the weight is frozen anyway.
    """

    def __init__(self, packed: PackedWeight, padding_idx: int | None = None) -> None:
        """Keep both."""
        super().__init__()
        self.packed = packed
        self.padding_idx = padding_idx

    @property
    def weight(self) -> torch.Tensor:
        """The weight, decoded anew each time."""
        return self.packed.decode()

    @property
    def num_embeddings(self) -> int:
        """Number of rows."""
        return self.packed.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Size of a row."""
        return self.packed.shape[1]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids, [..., embedding_dim]."""
        wanted, inverse = torch.unique(ids, return_inverse=True)
        if len(wanted) > FEW_ROWS:
            return F.embedding(ids, self.packed.decode(scratch=True))
        if len(wanted) == 0:
            rows = self.packed.rows(0, 0)
        else:
            rows = torch.cat([self.packed.rows(i, i + 1) for i in wanted.tolist()])
        return F.embedding(inverse, rows)

    def extra_repr(self) -> str:
        """Show sizes and ratio."""
        return _shown(self.packed)


def pack_module(module: nn.Module, min_bytes: int = MIN_BYTES, **options: Any) -> nn.Module:
    """Replace the linear and embedding layers of a module by packed ones, in place.

    Tied weights are packed once and stay tied. Layers stay plain whose weight is used by another
    kind of layer, too, or gets no smaller.

    Args:
        module: any; a layer itself is returned packed.
        min_bytes: layers with smaller weights stay as they are.
        options: of `PackedWeight`: mode, chunk.

    Returns:
        The module.
    """
    made: dict[torch.Tensor, PackedWeight | None] = {}  # tensors are keys by identity
    holders = [m for _, m in module.named_modules(remove_duplicate=False)]
    ours = Counter(m.weight for m in holders if _suits(m))
    users = Counter(p for _, p in module.named_parameters(remove_duplicate=False))

    def packed(weight: torch.Tensor) -> PackedWeight | None:
        if weight not in made:
            pack = PackedWeight(weight, **options)
            made[weight] = pack if pack.nbytes < weight.nbytes else None
        return made[weight]

    def replace(layer: nn.Module) -> nn.Module:
        weight = layer.weight if _suits(layer) else None
        if not isinstance(weight, nn.Parameter) or weight.nbytes < min_bytes:
            return layer
        pack = packed(weight) if users[weight] == ours[weight] else None
        if pack is None:
            return layer
        if isinstance(layer, nn.Linear):
            return PackedLinear(pack, layer.bias)
        return PackedEmbedding(pack, layer.padding_idx)  # type: ignore[arg-type]

    return _replaced(module, replace)


def _suits(layer: nn.Module) -> bool:
    embedding = type(layer) is nn.Embedding and layer.max_norm is None
    return embedding or type(layer) is nn.Linear


def unpack_module(module: nn.Module) -> nn.Module:
    """Undo `pack_module`, in place: plain layers with the same weights, tied as they were."""
    made: dict[PackedWeight, nn.Parameter] = {}

    def weight(packed: PackedWeight) -> nn.Parameter:
        if packed not in made:
            made[packed] = nn.Parameter(packed.decode())
        return made[packed]

    def replace(layer: nn.Module) -> nn.Module:
        if isinstance(layer, PackedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            plain.weight = weight(layer.packed)
            plain.register_parameter("bias", layer.bias)
            return plain
        if isinstance(layer, PackedEmbedding):
            rows, size = layer.packed.shape
            table = nn.Embedding(rows, size, layer.padding_idx, device="meta")
            table.weight = weight(layer.packed)
            return table
        return layer

    return _replaced(module, replace)


def packed_memory(module: nn.Module) -> tuple[int, int]:
    """Bytes of a module's parameters and buffers as they are, and if nothing were packed."""
    packs = {id(m): m for m in module.modules() if isinstance(m, PackedWeight)}
    held = {id(t): t for t in (*module.parameters(), *module.buffers())}
    now = sum(tensor.nbytes for tensor in held.values())
    return now, now + sum(pack.plain_nbytes - pack.nbytes for pack in packs.values())


def _replaced(module: nn.Module, replace: Any) -> nn.Module:
    """Replace the layers of a module, each once; layers that are there twice stay one."""
    done: dict[nn.Module, nn.Module] = {}

    def once(layer: nn.Module) -> nn.Module:
        if layer not in done:
            done[layer] = replace(layer)
            if done[layer] is layer:
                for name, child in list(layer._modules.items()):
                    if child is not None and not isinstance(child, PackedWeight):
                        layer._modules[name] = once(child)
        return done[layer]

    return once(module)


def _scratch_of(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    size = torch.Size(shape).numel() * dtype.itemsize
    held: torch.Tensor | None = getattr(_scratch, "held", None)
    if held is None or held.numel() < size:
        held = _scratch.held = torch.frombuffer(memory.room(max(size, 1)), dtype=torch.uint8)
    return held[:size].view(dtype).view(shape)


def _shown(packed: PackedWeight) -> str:
    ratio = packed.nbytes / max(packed.plain_nbytes, 1)
    return f"{list(packed.shape)}, {packed.dtype}, packed to {ratio:.3f}"
