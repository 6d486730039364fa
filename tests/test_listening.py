"""`latentpack compare` of sounds: what is on the page, and the page in a browser."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.datasets import audio_metrics
from latentpack.datasets.audio import read_audio
from latentpack.datasets.audio_writer import AudioWriter
from latentpack.scripts import listening
from latentpack.tests.command_line import fails, run
from latentpack.tests.pages import fetches_nothing, read_page, said, type_keys
from latentpack.tests.sound_double import Double, doubles

pytest_plugins = ["latentpack.tests.browser"]
RATE = 16000


def draw(path, channels=1, rate=RATE, seconds=1.5, bits=16):
    """A tone that rises, harmonics, and a little noise; other channels are quieter."""
    t = torch.arange(round(seconds * rate)) / rate
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    phase = 2 * torch.pi * (200 * t + 150 * t * t)
    x = sum(torch.sin(k * phase) / k for k in (1, 2, 3)) * 0.25 + noise * 0.01
    x = torch.stack([x / (c + 1) for c in range(channels)])
    with AudioWriter(path, rate, channels, bits=bits) as writer:
        writer.write(x)
    return path


@pytest.fixture
def sound_codecs(monkeypatch):
    """The codecs "six" (bits) and "same"."""
    made = doubles({"six": Double(6), "same": Double(24)})
    monkeypatch.setattr(listening, "open_codecs", lambda text: made)


def flac(text):
    return read_audio(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("channels", "rate", "bits"), [(1, 16000, 16), (2, 44100, 24), (6, 8000, 16)]
)
def test_page_holds_everything(tmp_path, sound_codecs, channels, rate, bits):
    source, page = draw(tmp_path / "a <b>.wav", channels, rate, bits=bits), tmp_path / "page.html"
    result = run("compare", source, "-o", page)
    assert result.exit_code == 0, result.output
    assert "STOI" in result.stdout and "six" in result.stdout
    data, text = read_page(page)
    fetches_nothing(text)
    (sound,) = data["sounds"]
    x, _ = read_audio(source)
    original = flac(sound["original"])
    six, same = (flac(r["src"]) for r in sound["results"])
    assert (sound["name"], sound["rate"], sound["length"]) == ("a <b>.wav", rate, x.shape[1])
    assert {"mono": 1, "stereo": 2, "6 channels": 6}[sound["about"].split(", ")[1]] == channels
    assert original[1] == six[1] == rate
    assert torch.equal(original[0], x) and torch.equal(same[0], x)
    assert torch.equal(six[0], (x * 32).round() / 32)
    found = {r["codec"]: r for r in sound["results"]}
    assert found["same"]["si_sdr_db"] == 150 and found["same"]["mel"] == 0
    error = (x - six[0]).square().mean(1)
    snr = 10 * (x.square().mean(1) / error).log10().mean()
    assert found["six"]["si_sdr_db"] == pytest.approx(snr, abs=1)
    assert found["six"]["bytes"] == 4 * x.numel() + 1
    assert found["six"]["kbps"] == pytest.approx(found["six"]["bytes"] * 8 / 1000 / 1.5)
    assert sound["kbps"] == pytest.approx(channels * rate * bits / 1000)
    for name, package, best in (("pesq", "pesq", 4), ("stoi", "pystoi", 0.99)):
        if package in audio_metrics.missing_packages():
            assert found["same"][name] is found["six"][name] is None
        else:
            assert found["same"][name] > best and found["same"][name] > found["six"][name]


def test_a_part_of_a_long_sound(tmp_path, sound_codecs, monkeypatch):
    monkeypatch.setattr(audio_metrics, "missing_packages", lambda: ["pesq", "pystoi"])
    source, page = draw(tmp_path / "long.wav", seconds=5), tmp_path / "page.html"
    result = run("compare", source, "--start", "1.25s", "--seconds", "2", "-o", page)
    assert result.exit_code == 0, result.output
    (sound,) = read_page(page)[0]["sounds"]
    assert sound["about"] == "16 kHz, mono, 2.00 s from second 1.25"
    assert torch.equal(flac(sound["original"])[0], read_audio(source)[0][:, 20000:52000])
    # The default is the first half minute, which is said too.
    long = draw(tmp_path / "longer.wav", seconds=31, rate=8000)
    assert run("compare", long, "-o", page, "-f").exit_code == 0
    (sound,) = read_page(page)[0]["sounds"]
    assert sound["about"] == "8 kHz, mono, 30.00 s from second 0" and sound["length"] == 240_000


def test_other_lengths_and_channels_are_said(tmp_path, monkeypatch):
    made = doubles(
        {
            "longer": Double(24, longer=160),
            "shorter": Double(24, longer=-160),
            "one": Double(24, channels=1),
        }
    )
    monkeypatch.setattr(listening, "open_codecs", lambda text: made)
    source, page = draw(tmp_path / "s.wav", 2), tmp_path / "page.html"
    assert run("compare", source, "-o", page).exit_code == 0
    (sound,) = read_page(page)[0]["sounds"]
    notes = [result["note"] for result in sound["results"]]
    assert notes == ["+10.0 ms long", "-10.0 ms long", "mono"]
    assert {flac(result["src"])[0].shape for result in sound["results"]} == {(2, 24000)}


def test_pesq_is_the_mean_over_pieces(monkeypatch):
    measured = {20 * RATE: 3.0, 5 * RATE: 2.0, 1: None}

    def pesq(x, x_hat, rate):
        assert x.shape == x_hat.shape and rate == RATE
        return measured[x.shape[1]]

    monkeypatch.setattr(audio_metrics, "pesq", pesq)
    for seconds, expected in ((5, 2.0), (20, 3.0), (45, 8 / 3), (1 / RATE, None)):
        x = torch.zeros(1, round(seconds * RATE))
        assert listening._pesq(x, x, RATE) == pytest.approx(expected)


def test_silence_and_one_sample(tmp_path, sound_codecs):
    with AudioWriter(tmp_path / "silence.wav", RATE, 1) as writer:
        writer.write(torch.zeros(1, 8000))
    with AudioWriter(tmp_path / "one.wav", RATE, 1) as writer:
        writer.write(torch.ones(1, 1) / 2)
    page = tmp_path / "page.html"
    assert run("compare", tmp_path / "silence.wav", tmp_path / "one.wav", "-o", page).exit_code == 0
    silence, one = read_page(page)[0]["sounds"]
    assert (silence["length"], one["length"]) == (8000, 1)
    assert [result["pesq"] for result in silence["results"]] == [None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bpp", "1"], "--bpp is for pictures and videos; sounds have a rate for each codec"),
        (["--seconds", "6m"], "--seconds must be 300 or less"),
        (["--start", "9"], "there is no sound from second 9 on"),
        (["p.png"], "pictures and sounds don't go on one page"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_page(tmp_path, sound_codecs, options, message):
    source, page = draw(tmp_path / "s.wav"), tmp_path / "page.html"
    assert message in fails("compare", source, *options, "-o", page)
    assert list(tmp_path.iterdir()) == [source]


def test_what_browsers_do_not_play_and_what_is_none(tmp_path, sound_codecs):
    slow, page = draw(tmp_path / "slow.wav", rate=4000), tmp_path / "page.html"
    assert "browsers play 8000 to 192000 Hz" in fails("compare", slow, "-o", page)
    (tmp_path / "none.wav").write_bytes(b"RIFF")
    assert "none.wav" in fails("compare", tmp_path / "none.wav", "-o", page)
    short = draw(tmp_path / "short.wav", seconds=77 / RATE)
    result = run("compare", short, "-o", page)
    assert result.exit_code == 2 and "no codec could code it" in result.stderr
    assert "note" in result.stderr and "six is left out: the sound is too short" in result.stderr


def test_sounds_only_options_are_refused_for_pictures(tmp_path):
    line = fails("compare", tmp_path / "p.png", "--seconds", "3")
    assert "--seconds is for sounds" in line


# ---- in a browser


@pytest.fixture
def opened(browser, tmp_path, sound_codecs, monkeypatch):
    """The page of two sounds in the browser, from a file; nothing may be said on the console."""
    monkeypatch.setattr(audio_metrics, "missing_packages", lambda: ["pesq", "pystoi"])
    sources = [draw(tmp_path / "one.wav"), draw(tmp_path / "two.wav", 2, 8000, seconds=2.5)]
    page = tmp_path / "page.html"
    assert run("compare", *sources, "-o", page).exit_code == 0
    browser.get(page.as_uri())
    wait(browser, "lanes.dataset.drawn")
    yield browser
    browser.execute_script("player.pause()")
    assert said(browser) == []


def wait(driver, condition):
    """Wait until a condition holds on the page."""
    driver.execute_async_script(
        f"const done = arguments[0], look = () => ({condition}) ? done() : setTimeout(look, 10);"
        "look();"
    )


def ask(driver, expression, *args):
    return driver.execute_script(f"return {expression}", *args)


def values(driver, version):
    """What the page decoded, float32 [C, N]."""
    script = "Array.from(player.versions[arguments[0]].getChannelData(arguments[1]))"
    count = ask(driver, "player.versions[0].numberOfChannels")
    return torch.tensor([ask(driver, script, version, channel) for channel in range(count)])


def pixels(driver, lane, canvas="spectrum"):
    """A canvas of a lane as it is drawn, [height, columns, 4]."""
    uri = ask(driver, f"shown[{lane}].{canvas}.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.array(picture.convert("RGBA")).astype(int)


def kinds(drawn):
    """How many colours there are."""
    return len(np.unique(drawn.reshape(-1, 4), axis=0))


def test_browser_plays_the_samples_as_they_are(opened, tmp_path):
    x, _ = read_audio(tmp_path / "one.wav")
    assert ask(opened, "[player.rate, player.duration, player.versions.length]") == [RATE, 1.5, 3]
    for version, expected in enumerate((x, (x * 32).round() / 32, x)):
        # Browsers divide integers by 32767 or 32768.
        assert (values(opened, version) - expected).abs().max() < 1.01 / 32768
    type_keys(opened, "n")
    wait(opened, "player.rate === 8000 && lanes.dataset.drawn")
    x, _ = read_audio(tmp_path / "two.wav")
    assert (values(opened, 0) - x).abs().max() < 1.01 / 32768
    assert "two.wav 8 kHz, stereo" in opened.find_element("css selector", "#codecs caption").text


def test_browser_switching_leaves_no_gap(opened):
    """What is heard is rendered: one version up to the switch, the other from the same place on."""
    heard = opened.execute_async_script("""
        const done = arguments[0], context = new OfflineAudioContext(1, 16000, 16000);
        const start = context.resume.bind(context);
        Object.assign(context, { resume() {} });
        player.context = context;
        player.seek(0.25);
        hear(0);
        context.suspend(0.512).then(() => { hear(1); start(); });
        context.startRendering().then((buffer) => {
            player.sources = player.context = null;
            done(Array.from(buffer.getChannelData(0)));
        });
    """)
    heard = torch.tensor(heard)
    original, six = values(opened, 0)[0], values(opened, 1)[0]
    lead, fade, place = 320, 128, 4000  # samples: 20 ms before the start, 8 ms of fading
    at = 8192  # the switch
    assert not heard[:lead].any()
    before = slice(lead + fade + 1, at)
    assert torch.allclose(heard[before], original[place - lead :][before], atol=1e-6)
    after = slice(at + fade + 128, 16000)
    assert torch.allclose(heard[after], six[place - lead :][after], atol=1e-6)
    # Between them a mixture of both.
    both = torch.stack([y[place - lead :][at : at + fade] for y in (original, six)])
    mixed = heard[at : at + fade]
    assert ((mixed >= both.amin(0) - 1e-3) & (mixed <= both.amax(0) + 1e-3)).all()


def test_browser_keys_and_clicks(opened):
    name = opened.find_element("css selector", "#heard b")
    assert name.text == "original" and not ask(opened, "player.playing")
    type_keys(opened, "1")
    wait(opened, "player.playing && player.time > 0.02")
    first = ask(opened, "player.time")
    type_keys(opened, "2")
    assert name.text == "same" and ask(opened, "player.chosen") == 2
    time = ask(opened, "player.time + (player.time < arguments[0] ? player.duration : 0)", first)
    assert time > first  # it went on, perhaps from the start again
    for key, expected in ((" ", "original"), (" ", "same"), ("0", "original")):
        type_keys(opened, key)
        assert name.text == expected
    assert ask(opened, "shown.map(({ whole }) => whole.classList.contains('heard'))") == [
        True, False, False
    ]  # fmt: skip
    type_keys(opened, "\n")
    assert not ask(opened, "player.playing")
    # Clicks: a lane from there; then a stretch to repeat.
    plots = opened.find_elements("css selector", ".plots")
    click(opened, plots[1], 0.5)
    assert name.text == "six" and ask(opened, "player.playing")
    assert ask(opened, "player.place") == pytest.approx(0.75, abs=0.02)
    click(opened, plots[2], 0.25, drag=0.5)
    assert name.text == "same"
    assert ask(opened, "player.loop") == pytest.approx([0.375, 1.125], abs=0.02)
    wait(opened, "player.context.currentTime - player.started > 0.9")  # it came round
    assert 0.375 <= ask(opened, "player.time") <= 1.13
    type_keys(opened, "\ue00c")
    assert ask(opened, "player.loop") == [0, 1.5]
    opened.find_elements("css selector", "#codecs tbody tr")[1].click()
    assert name.text == "six"


def click(driver, element, place, drag=0.0):
    """Click on a place, 0 to 1 of the width; or drag from there so far."""
    from selenium.webdriver.common.action_chains import ActionChains

    width = element.size["width"]
    actions = ActionChains(driver)
    actions.move_to_element_with_offset(element, round((place - 0.5) * width), 0).click_and_hold()
    if drag:
        actions.move_by_offset(round(drag * width / 2), 0).move_by_offset(
            round(drag * width / 2), 0
        )
    actions.release().perform()


def test_browser_spectrograms_are_those_of_the_sound(opened, tmp_path):
    levels = torch.tensor(ask(opened, "Array.from(shown[0].levels)")).view(-1, 96)
    columns = len(levels)
    x, _ = read_audio(tmp_path / "one.wav")
    window = 512
    mels = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (40, RATE / 2)), 98)
    left, middle, right = (700 * (10 ** (mels[i : i + 96] / 2595) - 1) for i in range(3))
    hertz = np.arange(513)[:, None] * RATE / 1024
    sides = (hertz - left) / (middle - left), (right - hertz) / (right - middle)
    triangles = torch.from_numpy(np.minimum(*sides).clip(0))
    for column in range(40, columns - 40, 97):
        centre = round((column + 0.5) * x.shape[1] / columns)
        frame = x[0, centre - window // 2 : centre + window // 2].double()
        spectrum = torch.fft.rfft(frame * torch.hann_window(window).double(), 1024).abs().square()
        expected = 10 * (spectrum @ triangles + 1e-12).log10()
        loud = expected > expected.max() - 50
        assert (levels[column] - expected)[loud].abs().max() < 2.0
        assert levels[column].argmax() == expected.argmax()
    # Drawn: louder is another colour; the rising tone is in the picture, in all lanes.
    for lane in range(3):
        drawn = pixels(opened, lane)
        assert drawn.shape == (96, columns, 4) and kinds(drawn) > 50
        tone = [drawn[:, column].sum(1).argmin() for column in (columns // 10, columns * 9 // 10)]
        assert tone[1] < tone[0]  # higher in the picture; dark on light is loud
    assert [kinds(pixels(opened, lane, "wave")) > 1 for lane in range(3)] == [True] * 3


def test_browser_difference_zoom_and_theme(opened):
    before = pixels(opened, 1)
    type_keys(opened, "d")
    wait(opened, "lanes.dataset.drawn")
    six, same = pixels(opened, 1), pixels(opened, 2)
    assert kinds(same) == 1  # nothing differs
    assert kinds(six) > 20
    assert "added" in opened.find_element("id", "legend").text
    type_keys(opened, "s", "+", "+")
    wait(opened, "lanes.dataset.drawn")
    assert ask(opened, "state.to - state.from") == pytest.approx(1.5 / 4)
    assert not np.array_equal(pixels(opened, 1), before)
    type_keys(opened, "f", "t", "t")  # dark
    wait(opened, "lanes.dataset.drawn")
    dark = pixels(opened, 1)
    assert dark.mean() < before.mean() - 20
    type_keys(opened, "t")


def test_browser_narrow(opened):
    opened.set_window_size(500, 900)
    wait(opened, "lanes.dataset.drawn && shown[0].plots.clientWidth < 500")
    assert ask(opened, "document.documentElement.scrollWidth <= innerWidth")
    opened.set_window_size(1200, 900)


def test_browser_blind(opened):
    type_keys(opened, "1", "b")
    test = opened.find_element("id", "test")
    assert test.is_displayed() and not opened.find_element("id", "lanes").is_displayed()
    drawn = set()
    for answer in range(4):
        x = ask(opened, "blind.x")
        drawn.add(x)
        assert ask(opened, "player.chosen") == x
        type_keys(opened, "a")
        assert ask(opened, "player.chosen") == 0
        type_keys(opened, "b")
        assert ask(opened, "player.chosen") == 1
        right = opened.find_element("css selector", f"[data-answer={'b' if x else 'a'}]")
        right.click()
        assert f"{answer + 1} of {answer + 1} right" in opened.find_element("id", "score").text
        opened.execute_script("while (blind.x === arguments[0]) blind.draw(); blind.hear('x')", x)
    assert drawn == {0, 1}
    assert "6.3 %" in opened.find_element("id", "score").text  # 1 / 16
    assert ask(opened, "[chanceOf(5, 10), chanceOf(0, 3)]") == pytest.approx([0.623, 1], abs=1e-3)
    # Nothing tells which it is.
    type_keys(opened, "x")
    assert opened.find_element("css selector", "#heard b").text == "blind test"
    assert ask(opened, "document.querySelectorAll('tr.shown').length") == 0
    type_keys(opened, "\ue00c")
    assert opened.find_element("id", "lanes").is_displayed() and not test.is_displayed()
