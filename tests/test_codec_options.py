"""Options that are handed to the codec."""

import click
import pytest

from latentpack.scripts.codec_options import Duration, split


@pytest.mark.parametrize("text, seconds", [("90", 90), ("1.5m", 90), ("2h", 7200), (".5s", 0.5)])
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "5 parsecs", "-3s"])
def test_what_is_no_duration(text):
    with pytest.raises(click.BadParameter, match="no time above 0"):
        Duration().convert(text, None, None)


def test_what_was_not_given_is_not_handed_on():
    given = {"effort": 3, "preset": None, "bpp": 0.5, "psnr": None}
    assert split(given) == ({"effort": 3}, {"bpp": 0.5, "psnr": None})
