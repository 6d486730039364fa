"""What tests ask of the pages that `latentpack compare` makes."""

import json
import re


def read_page(path):
    """The data of a page, and all its text."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1]), text


def fetches_nothing(text):
    """No address stands in the code, and a policy forbids all but what is on the page."""
    code = text.replace(re.search(r'id="data">(.*?)</script>', text, re.S)[1], "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link (?!rel=\"icon\")", code)
    assert "default-src 'none'" in text


def said(driver):
    """What is on the browser's console."""
    return [line for line in driver.get_log("browser") if line["level"] != "DEBUG"]


def type_keys(driver, *keys):
    """Press keys, one after the other."""
    for key in keys:
        driver.find_element("tag name", "body").send_keys(key)
