"""What `python -m build` makes: complete, and at work in an empty folder."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def tracked():
    """The repository's files, with new ones that are not committed yet."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout: its files can't be listed")
    names = listed.stdout.splitlines()
    return [name for name in names if (REPO / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with sdist and wheel, built from a copy of the checkout and with no compiler."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("`build` is not installed: pip install -e .[dev]")
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 80:
        pytest.skip("setuptools is older than 80: pip install -e .[dev]")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, copy / name)
    # The compiled kernels are optional: the wheel without them is quick to make, and must work.
    env = os.environ | {"CC": "/bin/false", "CXX": "/bin/false"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def test_the_sdist_is_complete(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {n for n in tracked() if not n.startswith(".")}
    assert needed - names == set()


def test_the_wheel_has_data_and_types(built):
    (path,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(path).namelist())
    folders = ("codecs/", "datasets/", "entropy/", "kernels/", "scripts/")
    needed = {n for n in tracked() if n.startswith(folders) and not n.endswith((".cpp", ".h"))}
    assert {f"latentpack/{name}" for name in needed} - names == set()


def test_the_wheel_works_in_an_empty_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(installed), str(wheel)], check=True)
    code = """
import latentpack, torch, sys
assert latentpack.__file__.startswith(sys.argv[1]), latentpack.__file__
from latentpack.codecs.container import Reader
x = {"a": torch.randn(500).bfloat16(), "b": torch.arange(7)}
latentpack.save("x.lpk", x, threads=1)
with latentpack.open("x.lpk", threads=1) as f:
    assert all(torch.equal(f[name], x[name]) for name in x)
assert len(Reader(open("x.lpk", "rb")).keys()) == 2
"""
    for command in (["-c", code, str(installed)], ["-m", "latentpack.scripts.main", "--help"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
