"""The package as a whole: lean import, packaging, and which folder may import which."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import latentpack

REPO = Path(__file__).parents[1]
FOLDERS = ("codecs", "datasets", "entropy", "kernels", "scripts")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (REPO / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
# scripts -> codecs -> entropy -> kernels; datasets stands alone, for scripts.
MAY_IMPORT = {
    "kernels": {"kernels"},
    "entropy": {"entropy", "kernels"},
    "codecs": {"codecs", "entropy", "kernels"},
    "datasets": {"datasets"},
    "scripts": set(FOLDERS),
}


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_is_lean_and_silent():
    heavy = ["torch", "numpy", "cbor2", "latentpack.codecs.api"]
    code = f"import sys, latentpack; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]\n"


def test_errors_and_rates_need_no_torch():
    code = "import sys, latentpack as l; l.Rate(bpp=1); l.BitstreamError; l.open; print(1)"
    assert run(code + "; assert 'torch' not in sys.modules") == "1\n"


def test_public_names():
    names = [
        "BitstreamError",
        "KVStore",
        "PackedCache",
        "PackedLinear",
        "Rate",
        "Series",
        "__version__",
        "decode",
        "encode",
    ]
    names += ["load_into", "load_pretrained", "max_size", "open", "pack_module", "save"]
    names += ["unpack_module"]
    assert sorted(latentpack.__all__) == names == dir(latentpack)
    for name in names:
        assert name == "PackedCache" or getattr(latentpack, name)
    assert issubclass(latentpack.BitstreamError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'compress'"):
        latentpack.compress  # noqa: B018


def test_the_public_name_that_needs_an_extra():
    pytest.importorskip("transformers", reason="no transformers: install latentpack[transformers]")
    assert latentpack.PackedCache.__name__ == "PackedCache"


def test_every_folder_is_packaged():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {"latentpack." + ".".join(p.parent.relative_to(REPO).parts) for p in FILES}
    assert found <= listed


def test_every_package_is_a_folder():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    listed = [name.split(".")[1:] for name in project["tool"]["setuptools"]["packages"]]
    assert [name for name in listed if not REPO.joinpath(*name).is_dir()] == []


def test_no_folder_shadows_a_library():
    assert [p for name in (*FOLDERS, "tests") for p in (REPO / name).rglob("__init__.py")] == []


def imported_folders(path):
    """The folders of this repository that a file imports from, anywhere in it."""
    package = ["latentpack", *path.parent.relative_to(REPO).parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            found += [[*module, alias.name] for alias in node.names]
    return {name[1] for name in found if name[0] == "latentpack" and name[1:2]} & set(FOLDERS)


def test_imported_folders_sees_every_form():
    path = REPO / "codecs" / "image" / "imaginary.py"
    source = {
        "from ...entropy import coder": {"entropy"},
        "from ... import kernels": {"kernels"},
        "from ..codec import Codec": {"codecs"},
        "from . import dct": {"codecs"},
        "def f():\n import latentpack.datasets.images": {"datasets"},
        "from latentpack.scripts.main import main": {"scripts"},
        "import codecs, latentpack": set(),
    }

    class Fake:
        parent = path.parent

        def __init__(self, text):
            self.text = text

        def read_text(self):
            return self.text

    for text, folders in source.items():
        assert imported_folders(Fake(text)) == folders


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_arrows(path):
    folder = path.relative_to(REPO).parts[0]
    assert imported_folders(path) <= MAY_IMPORT[folder]
