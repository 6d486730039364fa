"""Sounds by online prediction and mixing: the definition of every bit.

Nothing is trained beforehand and nothing is sent but decisions: encoder and decoder learn the same
from what is already coded. The channels take turns, sample by sample; each is predicted from its
own past and, where it has a partner, from that of the partner, whose sample of the same time is
known if the partner comes first. For a sample:

1. Least squares over the latest 32 samples (24 and 8 of a partner) predict it, and over 16 (12 and
   4) that forget sooner. What the wider ones miss goes through a cascade of gradient filters, long
   to short, each of which predicts what is left (`sounds_filters_ref`). Their predictions are added
   up with shares that follow the sign of the error, and by least squares (`sounds_channel_ref`).
2. The sample is told from the first sum: on which side, in which span, where in it, some five
   decisions; the last bits of a loud sample, which nothing can predict, are told as they are.
3. Each decision has a probability by each of eight experts (a logistic distribution around one of
   the predictions, whose scale comes from recent errors) and by four adaptive counters in contexts.
   Two sets of weights mix these in the logistic domain, a map corrects the mixture by what came of
   ones like it (`sounds_mixer_ref`), and a binary arithmetic coder takes it (`pixels_mix_ref`).

Cascades of adaptive filters for sound are those of Monkey's Audio and of RLS-LMS in MPEG-4 ALS
(Huang, Franti, Huang and Rahardja, "Cascaded RLS-LMS prediction in MPEG-4 lossless audio coding",
2008); mixing in the logistic domain is Mahoney's ("Adaptive weighing of context models for lossless
data compression", 2005). The rest is our own.

All numbers are IEEE binary32 or binary64 with + - * / only, each operation rounded by itself, and
sums in a fixed order, so every machine computes the same.
"""

from collections.abc import Sequence

import numpy as np

from .pixels_mix_ref import Coder, Decoder, Encoder
from .sounds_channel_ref import EFFORTS, Channel, ChannelCoder, Samples

__all__ = ["EFFORTS", "Channel", "Samples", "decode", "encode"]


def encode(samples: Samples, channels: Sequence[Channel], effort: int) -> bytes:
    """Code samples [channels, length]."""
    coder = Encoder()
    _run(samples, channels, effort, coder)
    return coder.finish()


def decode(data: bytes, channels: Sequence[Channel], length: int, effort: int) -> Samples:
    """The mirror of `encode`. Any bytes decode to something."""
    samples = np.zeros((len(channels), length), np.int32)
    _run(samples, channels, effort, Decoder(data))
    return samples


def _run(samples: Samples, channels: Sequence[Channel], effort: int, coder: Coder) -> None:
    """The channels take turns."""
    models = [
        ChannelCoder(channel, channel.partner < i, EFFORTS[effort])
        for i, channel in enumerate(channels)
    ]
    for i, channel in enumerate(channels):
        if channel.partner != i:
            models[i].partner = models[channel.partner]
    for at in range(samples.shape[1]):
        for i, model in enumerate(models):
            samples[i, at] = model.code(coder, int(samples[i, at]))
