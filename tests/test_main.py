"""The command line's door: lazy commands, one line per error, exit codes."""

import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

import latentpack
from latentpack.scripts import main


def run(*args):
    return CliRunner().invoke(main.cli, list(args), prog_name="latentpack")


@pytest.fixture
def command(monkeypatch):
    """A command whose body is set by the test: `command(raises)`."""

    def install(body):
        module = types.ModuleType("latentpack.scripts.boom")
        module.__dict__["boom"] = click.command("boom")(body)
        monkeypatch.setitem(sys.modules, "latentpack.scripts.boom", module)
        monkeypatch.setitem(main.COMMANDS, "boom", "Fail.")

    return install


def raiser(error):
    def body():
        raise error

    return body


def test_help_lists_every_command_and_imports_none():
    code = (
        "import sys, latentpack.scripts.main as m\n"
        "try: m.main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules and 'latentpack.scripts.encode' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in main.COMMANDS)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_examples_in_its_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0 and f"latentpack {name} " in result.output.split("Options:")[0]
    assert "--debug" in result.output


def test_version():
    assert run("--version").output.strip() == f"latentpack {latentpack.__version__}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("quality is 200; 1 to 100"), "latentpack: quality is 200; 1 to 100"),
        (RuntimeError("two\nlines"), "latentpack: two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "a.png: no such file"),
        (FileExistsError(17, "File exists", "a.lpk"), "a.lpk: exists already; --force"),
        (OSError(28, "No space left on device", "a.lpk"), "a.lpk: no space left on device"),
        (MemoryError(), "latentpack: not enough memory"),
        (KeyError("x"), "internal error, KeyError: 'x'; --debug shows where"),
        (click.ClickException("odd"), "latentpack: odd"),
        (ModuleNotFoundError("No module named 'matplotlib'"), "latentpack[bench]"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(command, error, line):
    command(raiser(error))
    result = run("boom")
    assert result.exit_code == 2
    assert line in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize("args", [("boom", "--debug"), ("--debug", "boom")])
def test_debug_shows_the_traceback(command, args):
    command(raiser(ValueError("bad")))
    result = run(*args)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and result.stderr.endswith("latentpack: bad\n")


def test_interrupt_is_130(command):
    command(raiser(KeyboardInterrupt()))
    result = run("boom")
    assert result.exit_code == 130 and "latentpack: interrupted" in result.stderr


@pytest.mark.parametrize("args", [("nonsense",), ("--nonsense",)])
def test_usage_errors_are_one_line(args):
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "see latentpack --help" in result.stderr


def test_no_arguments_show_the_help():
    result = run()
    assert result.exit_code == 2 and "Commands:" in result.stderr
