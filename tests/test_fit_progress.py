import sys

import pytest

from latentpack.codecs.image import fit_encoder
from latentpack.scripts import fit_progress, jobs
from latentpack.scripts.fit_progress import FitProgress
from latentpack.tests.command_line import fails, run


@pytest.fixture
def photo(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(fit_encoder, "STEPS", (12,) * 10)
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_picture_there_and_back(photo):
    packed = photo.with_suffix(".lpk")
    options = ["--codec", "image/fit", "--preset", "fast", "--effort", 0]
    result = run("encode", photo, *options, "--resume", photo.with_name("state"))
    assert result.exit_code == 0, result.stderr
    assert "bpp" in result.stdout
    told = run("info", packed)
    assert told.exit_code == 0
    assert "preset fast, lmbda 0.005" in told.stdout and "networks " in told.stdout
    assert '"network_bytes"' in run("info", packed, "--json").stdout
    assert run("decode", packed, "-o", photo.with_name("out.png")).exit_code == 0


def test_wrong_options(photo):
    assert "expected one of fast, default, best, max" in fails(
        "encode", photo, "--codec", "image/fit", "--preset", "huge"
    )
    assert not photo.with_suffix(".lpk").exists()


def test_a_resume_file_of_another_picture(photo):
    photo.with_name("state").write_bytes(b"nothing")
    fails("encode", photo, "--codec", "image/fit", "--resume", photo.with_name("state"))


def test_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(fit_progress, "_LINE_SECONDS", 0.0)
    with FitProgress() as progress:
        progress(3, 100, 0.25, 31.456)
    assert capsys.readouterr().err == "step 3 of 100: 0.250 bpp, 31.46 dB\n"


def test_a_bar_on_a_terminal_inside_that_of_many_files(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with jobs._bar([jobs.Job("a", ""), jobs.Job("b", "")]) as advance, FitProgress() as progress:
        for step in (1, 2):
            progress(step, 2, 0.25, 31.456)
        advance()
    assert "31.46 dB" in capsys.readouterr().err
