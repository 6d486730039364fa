"""`latentpack compare` of videos: what is on the page, and the page in a browser."""

import base64
import time

import pytest
import torch

from latentpack.datasets.video_metrics import Colours, Meter
from latentpack.scripts import video_carrier
from latentpack.scripts.video_carrier import Carrier, carried_db
from latentpack.scripts.video_clips import Clip
from latentpack.tests.clip_files import write, write_planes
from latentpack.tests.command_line import fails, run
from latentpack.tests.films import register
from latentpack.tests.pages import fetches_nothing, read_page, said, type_keys

pytest_plugins = ["latentpack.tests.browser"]

PEER = "x264@preset=ultrafast"
LEVELS = (40, 14)  # luma of the first frame, and how much it rises with each


def steps(path, count=12, width=64, height=48):
    """A clip whose luma tells the number of the frame."""
    y = LEVELS[0] + LEVELS[1] * torch.arange(count)[:, None, None].expand(count, height, width)
    flat = torch.full((count, height // 2, width // 2), 128)
    write_planes(path, tuple(plane.byte().contiguous() for plane in (y, flat, flat)))
    return path


def decode(text, folder):
    """Luma of the frames of a page's video, by their times."""
    path = folder / "carried.mp4"
    path.write_bytes(base64.b64decode(text))
    clip = Clip(path)
    return {float(frame.pts * clip.time_base): frame.planes[0] for frame in clip}


def test_page_holds_everything(tmp_path, shallow):
    source, page = tmp_path / "a <script> b.mkv", tmp_path / "page.html"
    x = write(source, 6, 70, 50)
    result = run("compare", source, "--codecs", f"{shallow},{PEER}", "--kbps", 300, "-o", page)
    assert result.exit_code == 0, result.output
    data, text = read_page(page)
    assert data["kind"] == "kbps" and data["asked"] == "300 kbps"
    (clip,) = data["clips"]
    assert clip["name"] == source.name and (clip["width"], clip["height"]) == (70, 50)
    assert clip["times"] == pytest.approx([0.04 * number for number in range(7)])
    assert clip["bytes"] == 6 * (70 * 50 + 2 * 35 * 25)
    assert [found["codec"] for found in clip["results"]] == [shallow, PEER]
    for found in clip["results"]:
        assert found["kbps"] == pytest.approx(found["bytes"] * 0.008 / 0.24)
        assert len(found["yuv_by_frame"]) == 6 and found["psnr_min"] <= found["psnr_yuv"]
        assert found["psnr_yuv"] == pytest.approx(sum(found["yuv_by_frame"]) / 6, abs=1e-3)
        assert found["encode_fps"] > 0 and found["ms_ssim"] is None
    # The video holds all versions, each at its place.
    frames = decode(clip["video"], tmp_path)
    assert list(frames) == pytest.approx(clip["times"][:-1])
    assert clip["columns"] == 2 and (clip["tile_width"], clip["tile_height"]) == (80, 64)
    for number, picture in enumerate(frames.values()):
        assert picture.shape == (128, 160)
        assert Meter(Colours(), False).add([x[0][number]], [picture[:50, :70]]).psnr_y > 40
        for shown, found in ((picture[:50, 80:150], 0), (picture[64:114, :70], 1)):
            psnr = Meter(Colours(), False).add([x[0][number]], [shown]).psnr_y
            assert psnr == pytest.approx(clip["results"][found]["yuv_by_frame"][number], abs=5)
    assert 40 < clip["carried_db"] < 100
    assert clip["thumbnail"].startswith("data:image/jpeg;base64,")
    fetches_nothing(text)


@pytest.mark.parametrize(("bits", "colours"), [(10, 3), (8, 1)])
def test_deep_and_grey_clips_and_odd_sides(tmp_path, shallow, bits, colours):
    source, page = tmp_path / "a.mkv", tmp_path / "page.html"
    write(source, 3, 45, 33, bits, colours)
    assert run("compare", source, "--codecs", f"{shallow},{PEER}", "--psnr", 32, "-o",
               page).exit_code == 0  # fmt: skip
    (clip,) = read_page(page)[0]["clips"]
    assert clip["carried_db"] > 40
    for found in clip["results"]:
        assert (found["psnr_rgb"] is None) == (colours == 1)
        assert found["psnr_yuv"] == pytest.approx(32, abs=1.5)


def test_part_of_a_clip(tmp_path, shallow):
    source, page = steps(tmp_path / "a.mkv"), tmp_path / "page.html"
    args = ("compare", source, "--codecs", shallow, "--quality", 90, "-o", page)
    assert run(*args, "--start", "0.15s", "--seconds", "0.2s").exit_code == 0
    (clip,) = read_page(page)[0]["clips"]
    frames = list(decode(clip["video"], tmp_path).values())
    assert len(frames) == 5 and clip["times"][0] == 0
    assert abs(frames[0][:48, :64].float().mean() - (LEVELS[0] + 4 * LEVELS[1])) < 2


def test_the_size_of_the_page_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    write_planes(
        path, tuple(torch.randint(0, 256, (25, side, side)).byte() for side in (64, 32, 32))
    )
    clip = Clip(path)

    def carried():
        carrier = Carrier(clip, 1)
        for frame in clip:
            carrier.write([frame.planes], frame.pts)
        return carrier.close()

    large = carried()
    monkeypatch.setattr(video_carrier, "MOST_BYTES", 20_000)
    small = carried()
    assert len(small) < 30_000 < len(large) / 2
    assert carried_db(small, clip) < carried_db(large, clip)
    monkeypatch.setattr(video_carrier, "_MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match="1 versions of 64x64 make a video that is too large"):
        Carrier(clip, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "h264"], "codec 'h264' is unknown; there are "),
        (["--kbps", "1", "--psnr", "30"], "--kbps and --psnr exclude each other"),
        (["--seconds", "2m"], "--seconds must be 60 or less for videos"),
        (["--quality", "101"], "must be 0 to 100"),
        (["--codecs", PEER, "--start", "1m"], "no frame is shown in the time asked for"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_page(tmp_path, options, message):
    source = steps(tmp_path / "a.mkv", 2)
    assert message in fails("compare", source, "--codecs", PEER, *options, "-o",
                            tmp_path / "page.html")  # fmt: skip
    assert list(tmp_path.iterdir()) == [source]


def test_kinds_do_not_mix_and_rates_have_their_kind(tmp_path):
    source = steps(tmp_path / "a.mkv", 2)
    (tmp_path / "b.png").write_bytes(b"")
    line = fails("compare", source, tmp_path / "b.png", "-o", tmp_path / "page.html")
    assert "pictures and videos don't go on one page" in line
    line = fails("compare", tmp_path / "b.png", "--kbps", 3, "-o", tmp_path / "page.html")
    assert "--kbps is for videos" in line


# ---- in a browser


@pytest.fixture
def shallow(monkeypatch):
    register(monkeypatch)
    return "video/shallow"


@pytest.fixture
def opened(browser, tmp_path, shallow):
    """The page of two clips in the browser, from a file; nothing may be said on the console."""
    sources = [steps(tmp_path / "a.mkv"), steps(tmp_path / "b.mkv", 5, 48, 32)]
    page = tmp_path / "page.html"
    codecs = f"{shallow},{PEER}"
    assert run("compare", *sources, "--codecs", codecs, "--quality", 100, "-o", page).exit_code == 0
    browser.get(page.as_uri())
    wait(browser, "return document.querySelector('#waiting').hidden")
    yield browser
    assert said(browser) == []


def wait(driver, script, seconds=60):
    began = time.monotonic()
    while not driver.execute_script(script):
        assert time.monotonic() - began < seconds, script
        time.sleep(0.05)


def at_frame(driver, number):
    """Wait until a frame is named, and shown on both sides."""
    clock = "document.querySelector('#clock b').textContent"
    wait(driver, f"return {clock}.startsWith('frame {number + 1} ')")
    wanted = (LEVELS[0] + LEVELS[1] * number - 16) * 255 / 219  # of limited range, as RGB
    look = """
        return ["left", "right"].map((side) => {
            const canvas = document.querySelector(`#${side} canvas`), { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            return data.reduce((sum, n, i) => sum + (i % 4 === 0 ? n : 0)) * 4 / data.length;
        });"""
    began = time.monotonic()
    while any(abs(level - wanted) > LEVELS[1] / 2 for level in driver.execute_script(look)):
        assert time.monotonic() - began < 60, (number, wanted, driver.execute_script(look))
        time.sleep(0.05)


def test_browser_steps_by_frames_on_both_sides_alike(opened):
    from selenium.webdriver.common.keys import Keys

    at_frame(opened, 0)
    for number in (1, 2, 3):
        type_keys(opened, Keys.ARROW_RIGHT)
        at_frame(opened, number)
    opened.find_element("id", "back").click()
    at_frame(opened, 2)
    type_keys(opened, Keys.HOME, Keys.ARROW_LEFT)
    at_frame(opened, 11)  # round the end
    curve = opened.find_element("id", "curve")
    opened.execute_script(
        "const { left, width, top } = arguments[0].getBoundingClientRect();"
        "arguments[0].setPointerCapture = () => {};"
        "arguments[0].dispatchEvent(new PointerEvent('pointerdown', {"
        "  clientX: left + MARGIN + (width - MARGIN - 6) * 6 / 11, clientY: top + 5 }));",
        curve,
    )
    at_frame(opened, 6)
    tags = [opened.find_element("id", f"{side}-tag").text for side in ("left", "right")]
    assert tags[0].startswith("original") and "this frame" in tags[1]


def test_browser_plays_all_frames_in_order(opened):
    opened.execute_script(
        "window.seen = []; const old = draw;"
        "draw = () => { window.seen.push(frame); old(); };"
        "document.querySelector('#speed').value = '0.25';"
        "document.querySelector('#speed').dispatchEvent(new Event('change'));"
    )
    type_keys(opened, " ")
    wait(opened, "return window.seen.some((n, i) => i && n < window.seen[i - 1])")  # it loops
    assert opened.execute_script("return document.querySelector('#play').className") == "playing"
    type_keys(opened, " ")
    wait(opened, "return document.querySelector('video').paused")
    seen = opened.execute_script("return window.seen")
    first = seen[: next(i for i in range(1, len(seen)) if seen[i] < seen[i - 1])]
    assert first == sorted(first) and len(set(first)) >= 3  # a busy machine skips some


def test_browser_views_versions_and_clips(opened):
    type_keys(opened, "d")
    difference = opened.find_element("id", "difference")
    assert difference.is_displayed() and not opened.find_element("id", "slider").is_displayed()
    assert opened.execute_script("return arguments[0].width", difference) == 64
    type_keys(opened, "a")
    left, right = (opened.find_element("id", side).rect for side in ("left", "right"))
    assert left["x"] + left["width"] <= right["x"] + 1 and right["width"] > 500
    type_keys(opened, "s", "2")
    assert opened.find_element("id", "right-tag").text.startswith(PEER)
    type_keys(opened, "n")
    assert "b.mkv" in opened.find_element("css selector", "#codecs caption").text
    wait(opened, "return document.querySelector('#waiting').hidden")
    at_frame(opened, 0)
    assert opened.find_element("id", "clock").text.startswith("frame 1 of 5")
    assert opened.execute_script("return document.querySelector('#right canvas').width") == 48
