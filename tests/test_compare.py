"""`latentpack compare`: rates that are met, pictures of every kind, and the page in a browser."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.codecs import registry
from latentpack.codecs.codec import Rate
from latentpack.datasets.picture_peers import PEERS
from latentpack.scripts.codec_options import split_names
from latentpack.scripts.picture_codecs import known_names, open_by_name, visible
from latentpack.tests.command_line import fails, run
from latentpack.tests.pages import fetches_nothing, read_page, said, type_keys

pytest_plugins = ["latentpack.tests.browser", "latentpack.tests.picture_double"]


def draw(path, mode="RGB", width=120, height=90, seed=0):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c + seed)) + np.cos(columns / (7 - c)) for c in range(3)]
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 1))
    colours = (np.stack(waves, -1) * 50 + 128 + noise).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(colours)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray((columns * 255 // width).astype(np.uint8)))
    picture.convert(mode).save(path)
    return path


def decode_uri(uri):
    head, body = uri.split(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_page_holds_everything(tmp_path, picture_codec):
    source = draw(tmp_path / "a <script> b.png")
    page = tmp_path / "page.html"
    result = run("compare", source, "--codecs", "image/light,jpeg,webp", "--bpp", 2, "-o", page)
    assert result.exit_code == 0, result.output
    data, text = read_page(page)
    assert data["kind"] == "bpp" and data["asked"] == "2 bits per pixel"
    (picture,) = data["pictures"]
    assert picture["name"] == source.name and picture["bytes"] == source.stat().st_size
    assert np.array_equal(np.array(decode_uri(picture["original"])), np.array(Image.open(source)))
    assert [found["codec"] for found in picture["results"]] == ["image/light", "jpeg", "webp"]
    for found in picture["results"]:
        x, x_hat = np.array(Image.open(source), float), np.array(decode_uri(found["src"]), float)
        assert found["psnr_db"] == pytest.approx(
            10 * np.log10(255**2 / np.square(x - x_hat).mean()), abs=1e-3
        )
        assert found["bpp"] == pytest.approx(found["bytes"] * 8 / x[..., 0].size)
        assert found["encode_s"] > 0 and found["ms_ssim"] is None  # too small for five scales
    fetches_nothing(text)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_of_every_kind(tmp_path, picture_codec, mode):
    source, page = draw(tmp_path / "p.png", mode, 37, 23), tmp_path / "page.html"
    codecs = "image/light,jpeg,webp,avif"
    assert run("compare", source, "--codecs", codecs, "--psnr", 30, "-o", page).exit_code == 0
    results = {found["codec"]: found for found in read_page(page)[0]["pictures"][0]["results"]}
    assert len(results) == 4
    alpha = mode in ("LA", "RGBA")
    for name, found in results.items():
        shown = decode_uri(found["src"])
        assert shown.size == (37, 23)
        assert shown.has_transparency_data == (alpha and name != "jpeg")
        assert found["psnr_db"] > (18 if name == "image/light" else 28)
    assert ("no transparency" in (results["jpeg"]["note"] or "")) == alpha


def test_one_pixel_and_what_cannot_be_coded(tmp_path):
    source, page = draw(tmp_path / "p.png", width=1, height=1), tmp_path / "page.html"
    result = run("compare", source, "--codecs", "webp,hevc", "-o", page)
    assert result.exit_code == 0
    assert "hevc is left out: x265 takes no pictures below 16 pixels" in result.stderr


@pytest.mark.parametrize("name", [name for name in PEERS if not PEERS[name].missing()])
def test_peers_meet_rates(tmp_path, name):
    x = torch.from_numpy(np.array(Image.open(draw(tmp_path / "p.png", width=96, height=96))))
    x, peer = x.permute(2, 0, 1).contiguous(), open_by_name(name)
    pixels = x[0].numel()
    size = len(peer.meet(x, Rate(bpp=1.5))) * 8 / pixels
    assert size == pytest.approx(1.5, rel=0.15 if name != "jpeg" else 0.3)
    assert len(peer.meet(x, Rate(max_bytes=2500))) <= 2500
    with pytest.raises(ValueError, match="smallest file of this picture takes"):
        peer.meet(x, Rate(max_bytes=20))
    x_hat = peer.decode(peer.meet(x, Rate(psnr=31)))
    mse = (x.float() - x_hat.float()).square().mean().item()
    assert 10 * np.log10(255**2 / mse) == pytest.approx(31, abs=0.8)
    small, large = (len(peer.meet(x, Rate(quality=q))) for q in (10, 90))
    assert small < large


def test_quality_is_measured_on_what_shows():
    x, changed = torch.full((4, 2, 2), 200).byte(), torch.full((4, 2, 2), 200).byte()
    x[3, 0], changed[:3, 0] = 0, 7
    one, two = visible(x, changed)
    assert torch.equal(one, two) and one[0].tolist() == [[0, 0], [157, 157]]
    assert visible(x[:1], x[:1])[0].shape == (3, 2, 2)


def test_names_with_options():
    assert split_names("image/fit@preset=best,effort=3, jpeg,jpeg", []) == [
        "image/fit@preset=best,effort=3",
        "jpeg",
    ]
    assert "image/light" in known_names() and set(PEERS) <= set(known_names())


def test_codecs_that_take_long_say_how_far_they_are(picture_codec, monkeypatch):
    class Slow(picture_codec):
        def __init__(self, progress=None):
            super().__init__()
            self.progress = progress

        def encode(self, signal, rate=None, reserve=0):
            self.progress(3, 9, 0.5, 31.0)
            return super().encode(signal, rate, reserve)

    monkeypatch.setattr(registry, "load", lambda codec: Slow)
    told = []
    codec = open_by_name("image/light", lambda *values: told.append(values))
    codec.meet(torch.zeros(3, 8, 8).byte(), Rate(quality=50))
    assert told == [(3, 9, 0.5, 31.0)]


def test_a_missing_peer_is_said_and_left_out(tmp_path, monkeypatch):
    import dataclasses

    absent = dataclasses.replace(PEERS["jxl"], missing=lambda: "pillow-jxl-plugin")
    monkeypatch.setitem(PEERS, "jxl", absent)
    source, page = draw(tmp_path / "p.png", width=16, height=16), tmp_path / "page.html"
    result = run("compare", source, "--codecs", "jxl,jpeg", "-o", page)
    assert result.exit_code == 0
    assert "note: jxl is left out: it needs pillow-jxl-plugin" in result.stderr
    result = run("compare", source, "--codecs", "jxl", "-o", page, "--force")
    assert result.exit_code == 2 and "none of jxl can run here" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "jpg"], "codec 'jpg' is unknown; there are image/light"),
        (["--codecs", "jpeg@quality=3"], "jpeg takes no options"),
        (["--codecs", "image/light@effort=12"], "12 is not in the range"),
        (["--codecs", "image/light@fast=1"], "no option 'fast'"),
        (["--bpp", "1", "--psnr", "30"], "--bpp and --psnr exclude each other"),
        (["--quality", "101"], "must be 0 to 100"),
        (["--codecs", "jpeg", "--max-bytes", "3"], "no codec could code it"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_page(tmp_path, options, message):
    source, page = draw(tmp_path / "p.png", width=16, height=16), tmp_path / "page.html"
    result = run("compare", source, *options, "-o", page)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert len(result.stderr.splitlines()) == 1 or "left out" in result.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_a_page_that_exists_is_kept(tmp_path):
    source, page = draw(tmp_path / "p.png", width=16, height=16), tmp_path / "page.html"
    page.write_text("mine")
    assert "exists already; --force" in fails("compare", source, "-o", page)
    assert page.read_text() == "mine"
    assert run("compare", source, "--codecs", "jpeg", "-o", page, "--force").exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


# ---- in a browser


@pytest.fixture
def opened(browser, tmp_path, picture_codec):
    """The page of two pictures in the browser, from a file; nothing may be said on the console."""
    sources = [draw(tmp_path / f"{n}.png", mode, seed=n) for n, mode in enumerate(("RGB", "RGBA"))]
    page = tmp_path / "page.html"
    codecs = "image/light,jpeg,webp"
    assert run("compare", *sources, "--codecs", codecs, "--bpp", 1, "-o", page).exit_code == 0
    browser.get(page.as_uri())
    yield browser
    assert said(browser) == []


def screen(driver):
    png = driver.find_element("id", "stage").screenshot_as_png
    return np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def press(driver, *keys):
    type_keys(driver, *keys)
    settle(driver)


def settle(driver):
    """Wait until what is shown has been decoded and drawn."""
    driver.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.images].map((image) => image.decode()))"
        ".then(() => requestAnimationFrame(() => requestAnimationFrame(() => done())));"
    )


def tags(driver):
    return [driver.find_element("id", f"{side}-tag").text.split()[0] for side in ("left", "right")]


def test_browser_slider(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    settle(opened)
    assert tags(opened) == ["original", "image/light"]
    before = screen(opened)
    slider = opened.find_element("id", "slider")
    ActionChains(opened).drag_and_drop_by_offset(slider, -100, 0).perform()
    settle(opened)
    after = screen(opened)
    assert int(slider.get_attribute("aria-valuenow")) < 45
    changed = np.flatnonzero((before != after).any((0, 2)))
    middle = before.shape[1] // 2
    # What lay between the two places of the slider shows the other side, and nothing else moved.
    assert middle - 140 < changed.min() < middle - 60 and middle < changed.max() < middle + 40
    press(opened, "x")
    assert tags(opened) == ["image/light", "original"]


def test_browser_codecs_and_pictures(opened):
    press(opened, " ")  # the left side everywhere
    assert opened.find_element("id", "slider").get_attribute("aria-valuenow") == "0"
    shown = {}
    for key, name in {"1": "image/light", "2": "jpeg", "3": "webp", "0": "original"}.items():
        press(opened, key)
        assert tags(opened)[1] == name
        shown[name] = screen(opened)
    differ = [(shown[a] != shown[b]).any() for a in shown for b in shown if a < b]
    assert all(differ) and len(differ) == 6
    rows = opened.find_elements("css selector", "#codecs tbody tr")
    named = [row.find_element("css selector", "td:nth-child(3)").text for row in rows]
    assert [name[1:].strip() for name in named] == ["original", "image/light", "jpeg", "webp"]
    rows[2].click()
    assert tags(opened)[1] == "jpeg"
    press(opened, "n")
    assert "1.png" in opened.find_element("css selector", "#codecs caption").text
    assert tags(opened)[1] == "jpeg"
    # The left edge of the second picture is transparent: squares of two greys lie under webp.
    press(opened, "3")
    corner = opened.execute_script("return document.querySelector('#right img')"
                                   ".getBoundingClientRect().toJSON()")  # fmt: skip
    stage = opened.find_element("id", "stage").rect
    left, top = round(corner["left"] - stage["x"]), round(corner["top"] - stage["y"])
    column = screen(opened)[top + 2 : top + 150, left + 2]
    assert (column.max(1) - column.min(1)).max() < 12  # grey
    assert column.max() - column.min() > 30


def test_browser_zoom(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    press(opened, " ", "0", "z")
    label = opened.find_element("id", "zoom")
    assert label.text == "100 %"
    small = screen(opened)
    stage = opened.find_element("id", "stage")
    for _ in range(5):
        ActionChains(opened).scroll_from_origin(ScrollOrigin.from_element(stage), 0, -200).perform()
    settle(opened)
    assert label.text == "1600 %"
    large = screen(opened)
    # Nearest neighbour: each pixel of the picture is a square of 16 by 16 equal ones.
    inner = large[60:, 60:-60]  # without the slider and the labels
    changes = (inner[1:] != inner[:-1]).any(-1).any(1)
    assert 10 < changes.sum() <= inner.shape[0] / 16 + 1
    # What lay under the pointer stays there.
    y, x = (side // 2 for side in small.shape[:2])
    assert np.abs(small[y - 1 : y + 2, x - 1 : x + 2] - large[y, x]).sum(-1).min() == 0
    ActionChains(opened).move_to_element_with_offset(
        stage, 200, 50
    ).click_and_hold().move_by_offset(-64, 32).release().perform()
    settle(opened)
    moved = screen(opened)
    assert np.array_equal(moved[100:300, 100:500], large[68:268, 164:564])


def test_browser_difference(opened):
    press(opened, "d")
    canvas = opened.find_element("id", "difference")
    opened.execute_async_script(
        "const done = arguments[0], canvas = document.querySelector('#difference');"
        "const look = () => canvas.width === 120 ? done() : setTimeout(look, 20); look();"
    )
    assert canvas.is_displayed() and not opened.find_element("id", "slider").is_displayed()
    drawn = np.array(opened.execute_script(
        "return [...arguments[0].getContext('2d').getImageData(0, 0, 120, 90).data]", canvas
    )).reshape(90, 120, 4)  # fmt: skip
    page = Path(opened.current_url.removeprefix("file://"))
    picture = read_page(page)[0]["pictures"][0]
    x, x_hat = (np.array(decode_uri(uri)).astype(int)
                for uri in (picture["original"], picture["results"][0]["src"]))  # fmt: skip
    assert np.array_equal(drawn[..., :3], (abs(x - x_hat) * 8).clip(0, 255))
    largest = abs(x - x_hat).max()
    assert (
        opened.find_element("css selector", "#gain output").text
        == f"\N{MULTIPLICATION SIGN} 8, largest {largest}"
    )
