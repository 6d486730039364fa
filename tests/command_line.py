"""Running the command line in tests."""

from click.testing import CliRunner

from latentpack.scripts import main


def run(*args, **kwargs):
    """Run `latentpack` with these arguments; no traceback may show."""
    result = CliRunner().invoke(
        main.cli, [str(arg) for arg in args], prog_name="latentpack", **kwargs
    )
    assert "Traceback" not in result.stderr
    return result


def fails(*args, **kwargs):
    """Run a command that must end with one line and exit code 2; returns the line."""
    result = run(*args, **kwargs)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("latentpack: ")
    return result.stderr
