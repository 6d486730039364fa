"""`latentpack evaluate image` on tiny pictures, and the peers' round trips."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from latentpack.datasets.metrics import psnr_db
from latentpack.datasets.picture_peers import PEERS, peer
from latentpack.scripts import main

pytest_plugins = ["latentpack.tests.picture_double"]


def smooth(height=48, width=50):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c)) + np.cos(columns / (7 - c)) for c in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


def run(*args):
    result = CliRunner().invoke(main.cli, [str(arg) for arg in args], prog_name="latentpack")
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture
def folder(tmp_path):
    for name in "ab":
        Image.fromarray(smooth()).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("name", PEERS)
def test_peers_give_the_picture_back(name):
    x = torch.from_numpy(smooth()).permute(2, 0, 1).contiguous()
    coder = peer(name)
    small, large = coder.encode(x, coder.steps[1]), coder.encode(x, coder.steps[-1])
    assert len(small) < len(large)
    x_hat = coder.decode(large)
    assert x_hat.dtype == torch.uint8 and x_hat.shape == x.shape
    assert psnr_db(x, coder.decode(small)) < psnr_db(x, x_hat) and psnr_db(x, x_hat) > 33


def test_jpeg_of_noise_fits_its_buffer():
    x = torch.randint(0, 256, (3, 200, 300), generator=torch.Generator().manual_seed(1)).byte()
    assert peer("jpeg").decode(peer("jpeg").encode(x, 100)).shape == x.shape


def test_hevc_colours_are_exact_before_coding():
    from latentpack.datasets.picture_peers import _from_ycbcr, _to_ycbcr

    x = torch.randint(0, 256, (3, 9, 11), generator=torch.Generator().manual_seed(1)).byte()
    assert (_from_ycbcr(_to_ycbcr(x)).int() - x.int()).abs().max() <= 1


def test_evaluate(folder, picture_codec):
    plot = folder / "rd.png"
    result = run("evaluate", "image", "--data", folder, "--codecs", "light,jpeg,webp", "--json",
                 "--plot", plot)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "BD-rate" in result.stdout and "2 pictures" in result.stdout
    found = json.loads(result.stdout.splitlines()[-1])
    rows = {row["codec"]: row for row in found["rows"]}
    assert list(rows) == ["light", "jpeg", "webp"] and found["hardware"]["cpu"]
    assert rows["jpeg"]["bd_rate_vs_jpeg"] == pytest.approx(0)
    assert rows["webp"]["bd_rate_vs_jpeg"] < 0 and rows["webp"]["case"] == folder.name
    point = rows["webp"]["points"][0]
    assert set(point) == {"bpp", "psnr_db", "ms_ssim", "encode_s_per_mpx", "decode_s_per_mpx"}
    assert point["ms_ssim"] is None  # the pictures are too small for five scales
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_quick_and_limit(folder):
    points = {}
    for options in ((), ("--limit", "1"), ("--quick",)):
        line = run("evaluate", "image", "--data", folder, "--codecs", "jpeg", "--json", *options)
        points[options] = json.loads(line.stdout.splitlines()[-1])["rows"][0]["points"]
    assert len(points["--quick",]) == (len(points[()]) + 1) // 2
    assert len(points["--limit", "1"]) == len(points[()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "nope"], "no peer codec 'nope'; there are jpeg"),
        (["--codecs", "jpeg", "--data", "/none"], "/none: no such file"),
    ],
)
def test_wrong_input_is_one_line(folder, options, message):
    result = run("evaluate", "image", "--data", folder, *options)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
