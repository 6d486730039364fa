"""EnCodec and DAC as peers: narrow random networks in a cache like Hugging Face's."""

import pytest
import torch

from latentpack.datasets import audio_neural_peers
from latentpack.datasets.audio_peers import PEERS

transformers = pytest.importorskip(
    "transformers", reason="no transformers: install latentpack[dev]"
)


def config_of(name):
    if name == "dac":
        return transformers.DacConfig(
            encoder_hidden_size=4, decoder_hidden_size=32, downsampling_ratios=[2, 4, 5, 8],
            n_codebooks=12, sampling_rate=16000,
        )  # fmt: skip
    return transformers.EncodecConfig(num_filters=4, hidden_size=16, num_lstm_layers=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub")
    for name in ("encodec", "dac"):
        coder = PEERS[name]
        torch.manual_seed(0)
        model = getattr(transformers, coder.model)(config_of(name))
        for buffer_name, buffer in model.named_buffers():  # codebooks of EnCodec start as zeros
            if buffer_name.endswith("embed"):
                buffer.normal_()
        folder = path / f"models--{coder.repository.replace('/', '--')}"
        model.save_pretrained(folder / "snapshots" / "0123")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123")
    return path


@pytest.mark.parametrize("name", ["encodec", "dac"])
def test_files_hold_the_codes(name, cache, monkeypatch):
    monkeypatch.setattr(audio_neural_peers, "_cache", lambda: cache)
    audio_neural_peers._model.cache_clear()
    coder = PEERS[name]
    assert coder.missing() is None
    x = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    files = [coder.encode(x, 16000, kbps) for kbps in coder.steps[:3]]
    for kbps, file in zip(coder.steps, files, strict=False):
        assert coder.payload_bytes(file) * 8 / 1000 == pytest.approx(kbps, rel=0.03)
    y = coder.decode(files[-1], 16000)
    assert len(y) == 1 and 0 <= 16000 - y.shape[1] < 320 and y.std() > 0
    own = audio_neural_peers.resample(x, 16000, coder.sample_rate)
    with torch.inference_mode():
        model = audio_neural_peers._model(coder.model, coder.repository)
        if name == "dac":
            codes = model.encode(own[None], n_quantizers=6).audio_codes
            expected = model.decode(audio_codes=codes).audio_values.reshape(1, -1)
        else:
            codes = model.encode(own[None], bandwidth=6.0).audio_codes
            expected = model.decode(codes, [None]).audio_values[0]
    six = coder.encode(x, 16000, 3 if name == "dac" else 6)
    assert torch.allclose(coder.read(six)[0], expected[:, : own.shape[1]], atol=1e-6)
    with pytest.raises(ValueError, match=r"kbit/s at least, got 0\.1"):
        coder.encode(x, 16000, 0.1)
    with pytest.raises(ValueError, match="takes 1 channels at most"):
        coder.encode(x.expand(2, -1), 16000, 6)


def test_weights_that_are_not_here_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_neural_peers, "_cache", lambda: tmp_path)
    assert PEERS["dac"].missing() == "the weights descript/dac_16khz on this machine"
