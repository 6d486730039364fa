"""The benchmark of speech quantizers: equal bits, claims that can fail, data that is missing."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from latentpack.codecs import weight_files
from latentpack.codecs.audio.rvq_frozen import config_of, frozen_state
from latentpack.codecs.audio.rvq_model import RvqModel, Size
from latentpack.scripts import bench_audio_quantizers as bench
from latentpack.scripts.audio_quantizers import CASES, CLAIMS, DIM
from latentpack.scripts.bench_quantizers import judge, use_of

FRAMES = 16
VOICE_BITS = 32


@pytest.mark.parametrize("name", list(CASES))
def test_a_case_has_the_bits_of_its_rate_and_decodes(name):
    torch.manual_seed(0)
    coding = CASES[name].make().eval()
    latents = torch.randn(2, DIM, FRAMES)
    codes = coding.encode(latents)
    bits = sum(
        scale[0, i].numel() * np.log2(size)
        for scale, sizes in zip(codes, coding.quantizer.codebook_sizes, strict=True)
        for i, size in enumerate(sizes)
    )
    low = list(CASES).index(name) >= list(CASES).index("RVQ, 2 of 64")
    assert bits == FRAMES * (12 if low else 60) + VOICE_BITS * name.startswith("voice")
    out = coding(latents)
    assert all(torch.equal(a, b) for a, b in zip(out.codes, codes, strict=True))
    assert torch.allclose(coding.decode(codes), out.x_hat, atol=1e-4)
    assert out.x_hat.shape == latents.shape


def test_every_claim_can_hold_and_can_fail():
    names = list(CASES)
    found = {}
    for seed in range(40):
        numbers = np.random.default_rng(seed)
        rows = {
            name: {"mel": numbers.random(), "usage": numbers.random() ** 0.2, "mel_spread": 0.0}
            for name in names
        }
        judge(rows, CLAIMS)
        for name in names:
            found.setdefault(name, set()).add(rows[name]["here"])
    assert set(CLAIMS) <= set(names)
    assert all(found[name] == {"yes", "no"} if name in CLAIMS else {"-"} for name in names)


def test_a_difference_within_the_seeds_is_none():
    rows = {name: {"mel": 1.0, "usage": 0.5, "mel_spread": 0.2} for name in CASES}
    rows["grouped RVQ, 2 x 3"]["mel"] = 0.9
    judge(rows, CLAIMS)
    assert rows["grouped RVQ, 2 x 3"]["here"] == "no"
    for values in rows.values():
        values["mel_spread"] = 0.05
    judge(rows, CLAIMS)
    assert rows["grouped RVQ, 2 x 3"]["here"] == "yes"


def test_use_is_a_mean_over_codebooks():
    counts = [torch.tensor([2, 2, 0, 0]), torch.tensor([1, 1])]
    assert use_of(counts) == {"usage": 0.75, "perplexity": 0.75}


def voices(folder, speakers, seconds=3):
    """A few seconds of a wandering tone and noise for each speaker."""
    import av

    folder.mkdir(exist_ok=True)
    for i in range(speakers):
        t = np.arange(seconds * 16_000) / 16_000
        noise = np.random.default_rng(i).standard_normal(len(t))
        x = 0.2 * np.sin(2 * np.pi * (100 + 30 * i) * t + 3 * np.sin(7 * t)) + 0.02 * noise
        with av.open(str(folder / f"{i:02}-a.wav"), "w") as file:
            stream = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
            frame = av.AudioFrame.from_ndarray((x * 32767).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate = 16_000
            file.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of small networks that have learned nothing."""
    path = tmp_path_factory.mktemp("weights") / "small.lpkw"
    size = Size(dim=16, hidden=16, encoder=1, decoder=1, latent=DIM, n_q=1, codebook_size=4)
    weight_files.write(path, "audio/rvq", frozen_state(RvqModel(size), None), config_of(size, None))
    return path


def test_it_runs_and_goes_on(tmp_path, monkeypatch, weights):
    pytest.importorskip("pystoi")
    kept = ("RVQ, 2 of 64", "voice + RVQ, 2 of 64")
    monkeypatch.setattr(bench, "CASES", {name: CASES[name] for name in kept})
    monkeypatch.setattr(bench, "CLAIMS", {kept[1]: CLAIMS[kept[1]]})
    monkeypatch.setattr(bench, "QUICK", bench.Steps(4, 1))
    voices(tmp_path, 9)
    work = tmp_path / "work"
    arguments = ["--data", tmp_path, "--weights", weights, "--quick", "--json", "--work", work]
    first = run(arguments)
    rows = json.loads(first.output.splitlines()[-1])["rows"]
    assert [row["quantizer"] for row in rows] == list(kept)
    assert rows[0]["kbps"] == pytest.approx(0.6) and rows[1]["kbps"] > 0.6
    assert all(0 < row["usage"] <= 1 and row["mel"] > 0 for row in rows)
    # What is kept is not measured again.
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured again"))
    assert json.loads(run(arguments).output.splitlines()[-1])["rows"] == rows


def run(arguments):
    result = CliRunner().invoke(bench.main, [str(a) for a in arguments])
    assert result.exit_code in (0, 2), result.output
    return result


def test_speakers_are_either_trained_on_or_tested_on(tmp_path):
    voices(tmp_path, 9)
    train, test = bench.speech(tmp_path, 16_000, 320)
    assert len(train) == 7 and len(test) == 2  # the first and the ninth
    assert not any(torch.equal(x, y) for x in train for y in test)
    assert all(len(x) % (4 * 320) == 0 for x in train + test)


def test_it_says_what_it_needs(tmp_path, weights):
    voices(tmp_path / "few", 3)
    voices(tmp_path / "short", 9, seconds=2)
    (tmp_path / "empty").mkdir()
    for data, told in (
        ([], "--data"),
        (["--data", tmp_path / "none"], "no such folder"),
        (["--data", tmp_path / "empty"], "no sound"),
        (["--data", tmp_path / "few"], "3 speakers"),
        (["--data", tmp_path / "short"], "2.56 s or more"),
    ):
        result = run([*data, "--weights", weights])
        assert result.exit_code == 2 and told in result.output
    result = run(["--data", tmp_path, "--weights", tmp_path / "none.lpkw"])
    assert result.exit_code == 2 and "none.lpkw" in result.output
