"""Codes of residual quantizers through a small network, in NumPy: an integer prior and its stream.

This is the definition; every other backend gives exactly these bytes and codes.

Codes c[q, t] of the first k codebooks are coded frame by frame, in a frame codebook by codebook.
The network is run beside the coder, on integers only: weights are int8, sums modulo 2**32, and
    act(s)      = clamp((s * multiplier + 2**(shift - 1)) >> shift, low, LIMIT), the product in 64
                  bits, multiplier and shift of the unit; low is 0 or, for features, -LIMIT
    dense(x)[o] = act(weight[o] . x + bias[o])
Activations and embeddings are in units of 1/64, logits in units of 1/32 of an octave.

Once for each frame t, with what is known of the frames before it (all zeros before the first one):
    x        = sum of embedding[c[j, t - 1]] over j = 0 .. k - 1; 0 for t = 0
    h[0, t]  = dense(x) of `first`
    h[i, t]  = clamp(h[j, t] + dense((h[j, t], h[j, t - 2**j])), 0, LIMIT) of past[j], j = i - 1
    context  = the last h
For each codebook q = 0 .. k - 1 of the frame:
    s        = sum of embedding[c[j, t]] over j = 0 .. q - 1
    u        = dense((context, s)) of hidden[q]
    f        = dense((context, s, u)) of features[q], which may be negative
    logit[c] = (weight[c] . f + bias[c] + 64) >> 7 for the codes c of codebook q
    d[c]     = largest logit - logit[c]
    freq[c]  = (POWERS[d & 31] >> min(d >> 5, 31)) | 1

A code of b bits is b decisions, highest bit first: with `ones` and `all` the sums of freq over the
codes that have the bits so far and a 1 next, and over all that have the bits so far, a 1 has the
probability clamp(2**16 ones // all, 1, 65535) / 2**16. The coder is that of `pixels_mix_ref` with
another end: one byte follows those that are settled, the least that is not 0 and, with zeros after
it, in the interval. `decode` takes nothing but what `encode` gives, so that it notices most damage.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import BitstreamError
from .pixels_mix_ref import Decoder, Encoder

Ints = npt.NDArray[np.int32]
Codes = npt.NDArray[np.int64]

LIMIT = 2047
POWERS = np.rint(2.0 ** (19 - np.arange(32) / 32)).astype(np.uint32)
_LOGIT_SHIFT = 7
ELSEWHERE = "the codes end elsewhere than their bytes; these are damaged"


class Dense(NamedTuple):
    """Layers of one kind, one for each `n`.

    Attributes:
        weight: int8 [n, out, in].
        bias: int32 [n, out].
        multiplier: int32 [n, out], 0 to 2**15.
        shift: int32 [n, out], 1 to 40.
    """

    weight: npt.NDArray[np.int8]
    bias: Ints
    multiplier: Ints
    shift: Ints

    def __call__(self, i: int, x: Ints, low: int = 0) -> Ints:
        """Layer i of int32 [in], low to LIMIT: int32 [out]."""
        sums = (self.weight[i].astype(np.int32) @ x + self.bias[i]).astype(np.int64)
        shift = self.shift[i].astype(np.int64)
        scaled = (sums * self.multiplier[i] + (1 << (shift - 1))) >> shift
        out: Ints = scaled.clip(low, LIMIT).astype(np.int32)
        return out


class Model(NamedTuple):
    """The network of codebooks of `sizes` codes, powers of two; K is the sum of the sizes.

    Attributes:
        sizes: codes of each codebook.
        embedding: int8 [K, D], codebook after codebook.
        first: one layer, D to C.
        past: layers, 2 C to C.
        hidden: a layer for each codebook, C + D to H.
        features: a layer for each codebook, C + D + H to F.
        weight: int8 [K, F].
        bias: int32 [K].
    """

    sizes: tuple[int, ...]
    embedding: npt.NDArray[np.int8]
    first: Dense
    past: Dense
    hidden: Dense
    features: Dense
    weight: npt.NDArray[np.int8]
    bias: Ints


class _Frames:
    """The state of the network between frames."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.starts = np.cumsum((0, *model.sizes))
        dim, width = model.embedding.shape[1], model.first.bias.shape[1]
        self.sum = np.zeros(dim, np.int32)  # of the frame so far; after a frame, all of it
        self.context = np.zeros(width, np.int32)
        layers = len(model.past.bias)
        self.before = [[np.zeros(width, np.int32)] * (1 << i) for i in range(layers)]

    def begin(self) -> None:
        """To the next frame."""
        model = self.model
        h = model.first(0, self.sum)
        for i, before in enumerate(self.before):
            step = model.past(i, np.concatenate((h, before[0])))
            self.before[i] = [*before[1:], h]
            h = (h + step).clip(0, LIMIT)
        self.context, self.sum = h, np.zeros_like(self.sum)

    def frequencies(self, q: int) -> npt.NDArray[np.uint32]:
        """Of the codes of codebook q, the next of the frame."""
        model = self.model
        x = np.concatenate((self.context, self.sum))
        f = model.features(q, np.concatenate((x, model.hidden(q, x))), -LIMIT)
        codes = slice(self.starts[q], self.starts[q + 1])
        with np.errstate(over="ignore"):
            sums = model.weight[codes].astype(np.int32) @ f + model.bias[codes]
            logits = (sums + np.int32(1 << (_LOGIT_SHIFT - 1))) >> _LOGIT_SHIFT
            d = logits.max() - logits
        octaves = np.minimum(d >> 5, 31).astype(np.uint32)
        frequencies: npt.NDArray[np.uint32] = (POWERS[d & 31] >> octaves) | np.uint32(1)
        return frequencies

    def put(self, q: int, code: int) -> None:
        """Take the code of codebook q."""
        self.sum = self.sum + self.model.embedding[self.starts[q] + code]


class _Checked:
    """Decodes, and encodes again, to see where an encoder would have ended."""

    def __init__(self, data: bytes) -> None:
        self.decoder, self.again = Decoder(data), Encoder()

    def code(self, bit: int, p: int) -> int:
        """See pixels_mix_ref.Coder."""
        return self.again.code(self.decoder.code(bit, p), p)


def _code(coder: Encoder | _Checked, frequencies: npt.NDArray[np.uint32], code: int) -> int:
    """Code a code, or return the next one."""
    found, rest = 0, frequencies.astype(np.uint64)
    while len(rest) > 1:
        half = len(rest) // 2
        ones, every = int(rest[half:].sum()), int(rest.sum())
        p = min(max((ones << 16) // every, 1), 65535)
        bit = coder.code(int(bool(code & half)), p)
        found, rest = 2 * found + bit, rest[half:] if bit else rest[:half]
    return found


def _finish(coder: Encoder) -> bytes:
    return bytes((*coder.out, max(1, -(-coder.low >> 24))))


def encode(model: Model, codes: Codes) -> bytes:
    """The stream of int64 [k, T]."""
    frames, coder = _Frames(model), Encoder()
    for frame in codes.T:
        frames.begin()
        for q, code in enumerate(frame.tolist()):
            _code(coder, frames.frequencies(q), code)
            frames.put(q, code)
    return _finish(coder)


def decode(model: Model, data: bytes, k: int, count: int) -> Codes:
    """The mirror of `encode`: int64 [k, count].

    Raises:
        BitstreamError: these are not the bytes of such codes.
    """
    codes = np.zeros((k, count), np.int64)
    frames, coder = _Frames(model), _Checked(data)
    for t in range(count):
        frames.begin()
        for q in range(k):
            codes[q, t] = _code(coder, frames.frequencies(q), 0)
            frames.put(q, int(codes[q, t]))
    if _finish(coder.again) != data:
        raise BitstreamError(ELSEWHERE)
    return codes
