"""Codes of audio/rvq in process: batches, lengths, and back."""

import pytest
import torch

from latentpack.codecs.audio.rvq import Rvq
from latentpack.tests.test_rvq import decode, sound

COUNTS = [8_000, 1, 0, 3_217, 160]


@pytest.fixture(scope="module")
def make(rvq_weights):
    return lambda *args, **options: Rvq(*args, **{"weights": rvq_weights, **options})


@pytest.fixture(scope="module")
def batch():
    return torch.cat([sound(1, 8_000, seed=i) for i in range(len(COUNTS))])


def test_what_models_need_to_know(make):
    codec = make()
    assert (codec.frame_rate, codec.sample_rate, codec.codebook_sizes) == (50, 16_000, (64,) * 6)
    assert make(44_100, n_q=2).codebook_sizes == (64, 64)
    assert make(44_100).sample_rate == 44_100


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_codes_of_a_batch_are_those_of_each_alone(make, batch, sample_rate):
    codec, lengths = make(sample_rate), torch.tensor(COUNTS)
    codes = codec.encode_tokens(batch, lengths)
    frames = codec.token_lengths(lengths)
    assert codes.shape == (5, 6, int(frames.max())) and codes.dtype == torch.int64
    assert torch.equal(codec.encode_tokens(batch[:, None], lengths), codes)
    for i, (count, used) in enumerate(zip(COUNTS, frames.tolist(), strict=True)):
        alone = codec.encode_tokens(batch[i : i + 1, :count])
        assert torch.equal(alone[0], codes[i, :, :used]) and not codes[i, :, used:].any()
    wav = codec.decode_tokens(codes, lengths)
    assert wav.shape == (5, 8_000)
    for i, count in enumerate(COUNTS):
        x = batch[i : i + 1, :count]
        assert torch.equal(wav[i, :count], decode(codec, x, codec.encode(x))[0])
        assert not wav[i, count:].any()


def test_codes_are_those_of_files(make, batch):
    codec = make(packet_seconds=0.2)
    codes = codec.encode_tokens(batch[:1])
    parsed = codec.parse(codec.header(batch[:1]), codec.encode(batch[:1]))
    assert torch.equal(parsed, codes)
    few = make(packet_seconds=0.2, n_q=3)
    parsed = few.parse(few.header(batch[:1]), few.encode(batch[:1]))
    assert torch.equal(parsed[:, :3], few.encode_tokens(batch[:1])) and (parsed[:, 3:] == -1).all()


def test_fewer_codebooks_and_no_lengths(make, batch):
    codec = make()
    codes = codec.encode_tokens(batch[:2])
    wav = codec.decode_tokens(codes[:, :2])
    assert wav.shape == (2, codes.shape[2] * 320 - 160)
    x_hat = codec.decode_tokens(codes)
    assert torch.equal(x_hat[:, :8_000], codec.decode_tokens(codes, torch.tensor([8_000] * 2)))
    assert codec.decode_tokens(codes[:, :, :0]).shape == (2, 0)


def test_what_is_refused(make, batch):
    codec = make()
    codes = codec.encode_tokens(batch)
    for wav in (batch[0], batch[:, None].expand(-1, 2, -1)):
        with pytest.raises(ValueError, match="wav is"):
            codec.encode_tokens(wav)
    for lengths in ([8_001] * 5, [-1] * 5, [5]):
        with pytest.raises(ValueError, match="lengths are"):
            codec.encode_tokens(batch, torch.tensor(lengths))
    for wrong in (codes[0], codes.int(), codes[:, :0], torch.cat([codes, codes], 1)):
        with pytest.raises(ValueError, match="codes are"):
            codec.decode_tokens(wrong)
    for wrong in (codes - 64, codes + 64):
        with pytest.raises(ValueError, match="codes run from"):
            codec.decode_tokens(wrong)
    with pytest.raises(ValueError, match="lengths are"):
        codec.decode_tokens(codes, torch.tensor([10**6] * 5))
