"""Layers that give the same integers on every machine: the portable parse path.

Entropy parameters that come out of floating-point networks differ between machines in the last
bit, and one table index off by one ruins a stream (Balle et al., "Integer Networks for Data
Compression with Latent-Variable Models", ICLR 2019). Here weights and activations are int8,
sums int32, and requantisation is fixed point: no float, so nothing to disagree on.

`QuantConv2d` is the training form (fake quantisation with straight-through gradients);
`freeze` turns it into an `IntegerConv2d`, which is what a codec stores and runs.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION_STEP = 1 / 16  # one unit of an int8 activation, and of the fixed-point output
_BLOCK = 512  # 127 * 127 * 512 < 2**24: float32 sums of a block are exact in any order


def round_ste(x: Tensor) -> Tensor:
    """Round to nearest; the gradient passes straight through."""
    return x + (x.round() - x).detach()


def int_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Exact integer matrix product, int8 [M, K] @ int8 [K, N] -> int32 [M, N].

    Entries must lie in [-127, 127]. Float32 products over blocks of K whose sums stay below
    2**24 are exact whatever the order of summation. `torch._int_mm` is ten times as fast, but wrong
    on CPUs without VNNI, where oneDNN's kernel adds pairs of products in saturating int16.
    """
    if a.device.type == "cpu" and a.numel() and _has_exact_products(a.shape[1], b.shape[1]):
        return torch._int_mm(a, b)
    x, y = a.float(), b.float()
    out = (x[:, :_BLOCK] @ y[:_BLOCK]).to(torch.int32)
    for start in range(_BLOCK, a.shape[1], _BLOCK):
        out += (x[:, start : start + _BLOCK] @ y[start : start + _BLOCK]).to(torch.int32)
    return out


@functools.cache
def _has_exact_products(k: int, n: int) -> bool:
    """Whether `torch._int_mm` is exact here, for matrices with these sizes of b.

    The processor must have VNNI, and the largest sums of either sign must come out right: oneDNN
    can be told to leave VNNI alone.
    """
    has = torch.cpu.get_capabilities()
    if not (has.get("avx512_vnni") or has.get("avx_vnni")):
        return False
    sign = torch.tensor([1, -1], dtype=torch.int8).repeat(max(k, n) // 2 + 1)
    for a in (torch.full((64, k), 127, dtype=torch.int8), 127 * sign[:k].expand(64, k)):
        for b in (torch.full((k, n), 127, dtype=torch.int8), (127 * sign[:n]).expand(k, n)):
            b = b.contiguous()
            if not torch.equal(torch._int_mm(a.contiguous(), b), (a.double() @ b.double()).int()):
                return False
    return True


def unfold(x: Tensor, kernel_size: int) -> Tensor:
    """int8 [B, C, H, W] -> int8 [B * H * W, C * k * k], zero padded; columns are c, ky, kx."""
    b, c, h, w = x.shape
    k = kernel_size
    padded = F.pad(x, (k // 2,) * 4)
    taps = [padded[:, :, i : i + h, j : j + w] for i in range(k) for j in range(k)]
    return torch.stack(taps, 2).permute(0, 3, 4, 1, 2).reshape(b * h * w, c * k * k)


class IntegerConv2d(nn.Module):
    """Integer convolution: int8 [B, in, H, W] -> int8 activations, or int32 fixed point.

    `acc = sum(weight * x) + bias` (int32), then `(acc * multiplier + 2**(shift-1)) >> shift`
    (int64), then with `relu` a clamp to [0, 127]. Without it the result is in units of
    `ACTIVATION_STEP`.
    """

    weight: Tensor  # int8 [in * k * k, out]
    bias: Tensor  # int32 [out]
    multiplier: Tensor  # int32 [out], at most 2**15
    shift: Tensor  # uint8 [out]

    def __init__(self, inputs: int, outputs: int, kernel_size: int, relu: bool) -> None:
        """Make an empty layer of the given size; values are loaded or frozen into it."""
        super().__init__()
        self.kernel_size = kernel_size
        self.relu = relu
        fan_in = inputs * kernel_size**2
        self.register_buffer("weight", torch.zeros(fan_in, outputs, dtype=torch.int8))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.int32))
        self.register_buffer("multiplier", torch.zeros(outputs, dtype=torch.int32))
        self.register_buffer("shift", torch.zeros(outputs, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """int8 [B, in, H, W] -> int8 (relu) or int32 [B, out, H, W]."""
        b, _, h, w = x.shape
        acc = int_matmul(unfold(x, self.kernel_size), self.weight)
        # In float64, exactly: all numbers are multiples of 2**-shift, and below 2**53 of them.
        unit = self.multiplier.double() / (1 << self.shift.to(torch.int64)).double()
        out = torch.addcmul(self.bias * unit + 0.5, acc.double(), unit).floor_()
        out = out.clamp_(0, 127).to(torch.int8) if self.relu else out.to(torch.int32)
        return out.view(b, h, w, -1).permute(0, 3, 1, 2)


class QuantConv2d(nn.Module):
    """Convolution trained with the quantisation of `IntegerConv2d` in the loop.

    Inputs are activations in units of `input_step` (1 for integers such as z_hat). Weights are
    rounded to 127 levels each way per output channel; activations to `ACTIVATION_STEP`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, relu: bool, input_step: float
    ) -> None:
        """Make the layer; the weights start small, so that outputs start near the bias."""
        super().__init__()
        self.shape = (outputs, inputs, kernel_size, kernel_size)
        self.relu = relu
        self.input_step = input_step
        fan_in = inputs * kernel_size**2
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * (1.6 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def _step(self) -> Tensor:
        return self.weight.detach().abs().amax(1, keepdim=True).clamp_min(1e-6) / 127

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, in, H, W] -> float [B, out, H, W]."""
        step = self._step()
        weight = round_ste(self.weight / step) * step
        y = F.conv2d(x, weight.view(self.shape), self.bias, 1, self.shape[2] // 2)
        if not self.relu:
            return y
        return round_ste(y.clamp(0, 127 * ACTIVATION_STEP) / ACTIVATION_STEP) * ACTIVATION_STEP

    def freeze(self) -> IntegerConv2d:
        """The integer layer of the same function, up to one rounding of its multipliers."""
        outputs, inputs, kernel_size, _ = self.shape
        layer = IntegerConv2d(inputs, outputs, kernel_size, self.relu)
        step = self._step().double()
        unit = step[:, 0] * self.input_step  # value of one unit of the int32 sum
        ratio = unit / ACTIVATION_STEP
        shift = (14 - torch.log2(ratio).floor()).clamp(1, 40)
        layer.weight.copy_((self.weight.double() / step).round().t().to(torch.int8))
        layer.bias.copy_((self.bias.double() / unit).round().to(torch.int32))
        layer.multiplier.copy_((ratio * 2**shift).round().to(torch.int32))
        layer.shift.copy_(shift.to(torch.uint8))
        return layer

    def thaw(self, layer: IntegerConv2d) -> None:
        """Take the function of an integer layer, which `freeze` gives again."""
        unit = layer.multiplier.double() / 2.0 ** layer.shift.double() * ACTIVATION_STEP
        weight = layer.weight.double() * (unit / self.input_step)
        with torch.no_grad():
            self.weight.copy_(weight.t())
            self.bias.copy_(layer.bias.double() * unit)
