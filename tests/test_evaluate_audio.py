"""`latentpack evaluate audio` on short sounds."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

from latentpack.datasets.audio_writer import write_audio
from latentpack.scripts import bench_audio, sound_curves
from latentpack.tests.command_line import fails, run

RATE = 16000


def sound(seconds=0.6, channels=1, pitch=150.0):
    t = torch.arange(int(seconds * RATE)) / RATE
    waves = sum(torch.sin(2 * math.pi * k * pitch * t) / k for k in range(1, 20))
    return (0.1 * waves * torch.sin(2 * math.pi * 4 * t).clamp(min=0)).expand(channels, -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds")
    write_audio(path / "a.wav", [sound()], RATE)
    write_audio(path / "b.flac", [sound(0.8, pitch=210.0)], RATE)
    return path


def rows_of(result):
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["hardware"]["cpu"]
    return found["rows"]


def alike(rows, others):
    """Whether these are the same points; ESTOI adds noise, which shows in the last digits."""
    for row, other in zip(rows, others, strict=True):
        for name in ("n", "kbps_payload", "kbps_file", "si_sdr_db", "mel", "stft", "stoi"):
            assert row[name] == pytest.approx(other[name], rel=1e-9), name
    return True


def test_evaluate(folder, tmp_path):
    plot = tmp_path / "curves.svg"
    result = run("evaluate", "audio", "--data", folder, "--codecs", "audio/lossless,opus,opus@12",
                 "--quick", "--json", "--plot", plot)  # fmt: skip
    rows = rows_of(result)
    assert "PESQ wb" in result.stdout and "2 sounds, speech" in result.stdout
    assert plot.read_text().startswith("<?xml")
    points = {(row["codec"], row["kbps"]): row for row in rows}
    assert list(points) == [
        ("audio/lossless", None), ("opus", 6), ("opus", 12), ("opus", 24), ("opus", 64),
        ("opus@12", None),
    ]  # fmt: skip
    exact, point = points["audio/lossless", None], points["opus", 12]
    assert exact["ours"] and exact["n"] == 2 and exact["case"] == folder.name
    assert exact["si_sdr_db"] == 150 and exact["mel"] == exact["stft"] == exact["lsd"] == 0
    assert not point["ours"] and point["visqol"] is None
    assert 0 < point["kbps_payload"] < point["kbps_file"] < exact["kbps_file"]
    assert point["si_sdr_db"] > 0 and point["encode_x_realtime"] > 0
    for name in ("pesq_wb", "stoi", "si_sdr_db"):
        if point[name] is not None:
            assert points["opus", 64][name] > point[name]
    assert alike([points["opus@12", None]], [point])


def test_a_run_goes_on_from_its_results(folder, tmp_path, monkeypatch):
    results = tmp_path / "results.jsonl"
    args = ("evaluate", "audio", "--data", folder, "--codecs", "opus@8,opus@16", "--quick",
            "--json", "--results", results)  # fmt: skip
    whole = rows_of(run(*args))
    lines = results.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    results.write_bytes(b"".join(lines[:2]) + lines[2][:20])  # stopped while it wrote the third
    counted = []
    real = sound_curves.run
    monkeypatch.setattr(
        sound_curves, "run", lambda task, measures: counted.append(task) or real(task, measures)
    )
    again = rows_of(run(*args))
    assert alike(again, whole)
    assert len(counted) == 2
    # What is measured in another way is measured again.
    rows_of(run(*args, "--content", "music"))
    assert len(counted) == 6
    results.write_bytes(b'{"a": 1}\n')
    assert "line 1: no result of evaluate" in fails(*args)


def test_seconds_and_limit(folder):
    args = (
        "evaluate",
        "audio",
        "--data",
        folder,
        "--codecs",
        "audio/lossless",
        "--quick",
        "--json",
    )
    whole, short = (rows_of(run(*args, *more))[0] for more in ((), ("--seconds", "0.1")))
    assert short["kbps_file"] != whole["kbps_file"] and short["pesq_wb"] is None
    assert rows_of(run(*args[:-2], "--limit", "1", "--json"))[0]["n"] == 1


def test_missing_peers_are_said_in_one_line(folder, monkeypatch):
    missing = {name: name in ("mp3", "aac") for name in sound_curves.PEERS}
    monkeypatch.setattr(
        type(sound_curves.PEERS["mp3"]), "missing",
        lambda self: f"an av with {self.codec}" if missing[self.name] else None,
    )  # fmt: skip
    result = run("evaluate", "audio", "--data", folder, "--codecs", "opus@8,mp3,aac@32", "--quick")
    assert result.exit_code == 0 and result.stderr.count("\n") == 1
    assert "mp3 (an av with libmp3lame), aac@32 (an av with aac)" in result.stderr
    line = run("evaluate", "audio", "--data", folder, "--codecs", "mp3")
    assert line.exit_code == 2 and "none of mp3 can run here" in line.stderr


def test_ours_make_a_curve_with_their_weights_named(folder, rvq_weights):
    name = f"audio/rvq@weights={rvq_weights}"
    rows = rows_of(run("evaluate", "audio", "--data", folder, "--codecs", name, "--limit", "1",
                       "--quick", "--json"))  # fmt: skip
    assert {row["codec"] for row in rows} == {name} and len(rows) == 3 and rows[0]["ours"]
    assert rows[0]["kbps_file"] < rows[-1]["kbps_file"] and ", weights " in rows[0]["settings"]
    assert all(0 < row["kbps_payload"] < row["kbps_file"] for row in rows)
    point = sound_curves.open_point(name, 3)
    assert point.name == f"{name},kbps=3" and sound_curves.open_point("opus", 12).name == "opus@12"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "nope"], "codec 'nope' is unknown; there are "),
        (["--codecs", "opus@loud"], "rate must be a number of kbit/s, got 'loud'"),
        (["--codecs", "opus@12", "--data", "/none"], "/none: no such file"),
        (["--codecs", "opus@12", "--seconds", "0"], "--seconds"),
        (["--codecs", "opus@-3"], "rate must be above 0"),
    ],
)
def test_wrong_input_is_one_line(folder, options, message):
    assert message in fails("evaluate", "audio", "--data", folder, *options)


def test_what_is_no_sound_is_named(folder, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    line = fails("evaluate", "audio", "--data", tmp_path, "--codecs", "opus@12", "--quick")
    assert "broken.wav" in line
    (tmp_path / "broken.wav").unlink()
    write_audio(tmp_path / "empty.wav", [torch.zeros(1, 0)], RATE)
    line = fails("evaluate", "audio", "--data", tmp_path, "--codecs", "opus@12", "--quick")
    assert "empty.wav: there is no sound" in line


def test_a_codec_that_takes_no_stereo_is_named(tmp_path):
    write_audio(tmp_path / "two.wav", [sound(channels=2)], RATE)
    line = fails("evaluate", "audio", "--data", tmp_path, "--codecs", "amrnb@12.2", "--quick")
    assert "two.wav: amrnb@12.2: amrnb takes 1 channels at most, got 2" in line


def test_options_of_sounds_are_refused_for_pictures(tmp_path):
    assert "--content is for audio" in fails(
        "evaluate", "image", "--data", tmp_path, "--content", "music"
    )


def test_the_benchmark_has_a_row_for_each_codec(folder, rvq_weights):
    args = [str(folder), "--weights", str(rvq_weights), "--quick", "--json"]
    rows = rows_of(CliRunner().invoke(bench_audio.main, args))
    of_name = {row["codec"]: row for row in rows}
    assert len(of_name) == 9 and rows[0]["codec"] == "audio/rvq@kbps=1.5"
    assert of_name["audio/rvq@kbps=6"]["latency_ms"] == 30  # a frame of 20 ms and a hop of 10
    assert of_name["opus-voip@8"]["latency_ms"] == 26.5 and of_name["aac@24"]["latency_ms"] is None
    assert all(row["kbps_payload"] < row["kbps_file"] for row in rows)
