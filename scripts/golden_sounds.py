"""Golden files of the sound codecs, see `make_golden.py`."""

import io
from pathlib import Path
from typing import Any

from latentpack.scripts.golden_numbers import numbers


def audio_lossless() -> dict[str, bytes]:
    """Sounds without loss, and what they decode to: samples [channel, n], little-endian."""
    import numpy as np
    import torch

    import latentpack

    def tones(channels: int, length: int, peak: int) -> "np.ndarray[Any, Any]":
        """Two parabolic waves that the channels share, and noise."""
        t = np.arange(length)
        waves = [(t * step % 64 - 32) * (32 - abs(t * step % 64 - 32)) for step in (3, 7)]
        noise = np.array(numbers(channels * length, 41, peak)).reshape(channels, length) - 20
        values: np.ndarray[Any, Any] = (2 * waves[0] + waves[1]) // 4 + noise
        return values * peak // 300

    mixed = tones(5, 90, 9000)
    mixed[1], mixed[3] = mixed[0], 1234
    loud = np.array(numbers(120, 65536, 5)).reshape(2, 60) - 32768
    cases: dict[str, tuple[np.ndarray[Any, Any], int, dict[str, Any]]] = {
        "mono": (tones(1, 400, 9000), 2, {}),
        "fast": (tones(2, 150, 20000), 2, {"effort": 0}),
        "best": (tones(2, 150, 20000), 2, {"effort": 2}),
        "deep": (tones(2, 120, 30000) * 256, 4, {}),
        "list": (tones(1, 300, 100) * 2123 // 10, 2, {}),
        "mixed": (mixed, 2, {}),
        "packets": (tones(2, 450, 3000), 2, {"seconds": 0.2}),
        "raw": (loud, 2, {}),
    }
    files: dict[str, bytes] = {}
    for name, (samples, width, options) in cases.items():
        x = torch.from_numpy(samples.astype(f"<i{width}"))
        data = latentpack.encode(x, codec="audio/lossless", sample_rate=1000, **options)
        files |= {f"{name}.lpk": data, f"{name}.bin": samples.astype(f"<i{width}").tobytes()}
    return files


def audio_rvq() -> dict[str, bytes]:
    """Weights of codec 8, sounds coded with them (.lpk), a stream, their codes and samples.

    The weights are integers of a recurrence. Codes are int16 [C, n_q, T], samples float32 [C, N].
    """
    import tempfile

    import torch

    from latentpack.codecs import weight_files
    from latentpack.codecs.audio.rvq import Rvq
    from latentpack.codecs.audio.rvq_frozen import config_of, frozen_state
    from latentpack.codecs.audio.rvq_model import RvqModel, Size
    from latentpack.codecs.codec import Rate
    from latentpack.codecs.container import Reader
    from latentpack.entropy.models.code_prior import IntegerCodePrior
    from latentpack.entropy.models.code_prior import Size as PriorSize
    from latentpack.scripts.sounds import write_sound

    size = Size(
        8000, 40, dim=16, hidden=16, encoder=2, decoder=2, latent=8, n_q=4, codebook_size=32
    )
    model, prior = RvqModel(size), IntegerCodePrior((32,) * 4, PriorSize(16, 16, 16, 16, 1))
    ranges = {"multiplier": (8192, 16383), "shift": (19, 21), "bias": (-3000, 3000)}
    for seed, (name, value) in enumerate(prior.state_dict().items()):
        low, high = ranges.get(name.rsplit(".")[-1], (-127, 127))
        value.copy_(
            (torch.tensor(numbers(value.numel(), high - low + 1, seed)) + low).view_as(value)
        )
    state = frozen_state(model, prior)
    for seed, (name, value) in enumerate(state.items()):
        if value.dtype == torch.int8 and not name.startswith("prior."):
            state[name] = (
                (torch.tensor(numbers(value.numel(), 255, seed)) - 127).view_as(value).char()
            )
        elif name.endswith((".weight.scale", "codebook.scale")):
            wide = state[name.removesuffix(".scale")].shape[1]
            state[name] = torch.full_like(value, 1 / (64 * wide**0.5))
        elif not name.startswith("prior."):
            drawn = torch.tensor(numbers(value.numel(), 65, seed)).view_as(value)
            base = 0.0 if name.endswith("bias") else 1.0
            state[name] = base + (drawn - 32) / 256
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.lpkw"

        def sound(channels: int, count: int) -> torch.Tensor:
            t = torch.arange(count) / 900
            tones = torch.stack([(t * (1 + c + t / 9)) % 1 - 0.5 for c in range(channels)])
            return tones * (t % 3 - 1).clamp_min(0)  # a third of the time silent

        stereo = sound(2, 5_000)
        stereo[1, 2400:] /= 20  # better not as mid and side
        weight_files.write(path, "audio/rvq", state, config_of(size, prior))
        state["prior.weight"] = state["prior.weight"].sign()
        state["prior.weight"][:, 2:] = 0  # so that what is usual counts for more than the context
        for q, codes in enumerate(Rvq(8000, path).encode_tokens(sound(1, 5_000))[0]):
            seen = torch.bincount(codes, minlength=32).tolist()  # what the prior shall expect
            bits = [5000 * n.bit_length() for n in seen]
            state["prior.bias"][32 * q : 32 * q + 32] = torch.tensor(bits)
        weight_files.write(path, "audio/rvq", state, config_of(size, prior), force=True)
        files[path.name] = path.read_bytes()
        cases = {
            "mono": (Rvq(8000, path, packet_seconds=0.1), sound(1, 5_123), None),
            "stereo": (Rvq(8000, path, packet_seconds=0.3, prior=False), stereo, None),
            "rate": (Rvq(11_025, path, packet_seconds=0.6), sound(3, 4_001), Rate(kbps=4)),
        }
        for name, (codec, x, rate) in cases.items():
            file = io.BytesIO()
            write_sound(file, codec, iter([x]), rate)
            reader = Reader(file.getvalue())
            files[f"{name}.lpk"] = file.getvalue()
            codes = codec.parse(reader.params, reader.packets())
            files[f"{name}.codes"] = codes.short().numpy().astype("<i2").tobytes()
            decoded = codec.decode(reader.params, reader.packets())
            files[f"{name}.bin"] = decoded.numpy().astype("<f4").tobytes()
        codec, x, _ = cases["mono"]
        encoder, decoder = codec.stream_encoder(kbps=0.8), codec.stream_decoder()
        files["stream.lprv"] = encoder.push(x) + encoder.finish()
        decoded = torch.cat([decoder.push(files["stream.lprv"]), decoder.finish()], 1)
        files["stream.bin"] = decoded.numpy().astype("<f4").tobytes()
    return files
