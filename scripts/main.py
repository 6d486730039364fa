"""The `latentpack` command: a group of lazy commands and the one place where errors become text.

    latentpack encode photo.png -o photo.lpk --quality 60
    latentpack info photo.lpk
    latentpack decode photo.lpk -o out.png

Each command lives in the module of its name in this folder and is imported when it is used, so
that `latentpack --help` needs no torch.
"""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import click

import latentpack

# Command -> its line in `latentpack --help`. The module latentpack.scripts.<command> holds a
# click command of the same name.
COMMANDS = {
    "encode": "Turn pictures, sounds and videos into .lpk files of a chosen quality or size.",
    "decode": "Turn .lpk files back into pictures, sounds and videos.",
    "pack": "Pack the tensors of a model file without loss.",
    "unpack": "Turn packed tensors back into a model file.",
    "info": "Say what is inside .lpk files and whether they are whole.",
    "compare": "Show what codecs make of files, on one page for a browser.",
    "evaluate": "Measure codecs on a folder of files, beside their peers.",
    "carry": "Put a coded video into an .mp4 file whose sounds any player plays, or take it out.",
    "train": "Train a codec on your own files.",
    "demo": "Encode and decode bundled samples and show the results.",
}
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """Imports a command when it is used; prints an error as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; every command takes --debug, so that it may be typed last."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"latentpack.scripts.{cmd_name}")
        command = cast(click.Command, getattr(module, cmd_name))
        if not any(param.name == "debug" for param in command.params):
            command.params.append(debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command line and exit with 0, 2 (error) or 130 (interrupted)."""
        args = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(EXIT_ERROR)
        except (click.Abort, KeyboardInterrupt):
            fail("interrupted", EXIT_INTERRUPTED)
        except Exception as error:
            if "--debug" in args:
                traceback.print_exc()
            fail(describe(error))
        sys.exit(code if isinstance(code, int) else 0)


def debug_option() -> click.Option:
    """The flag --debug; LazyGroup.main looks for it in the raw arguments."""
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
    )


def describe(error: BaseException) -> str:
    """Say an error in one line: the file first where there is one, then what happened."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "latentpack"
        message = error.format_message().rstrip(".")
        text = f"{message[:1].lower()}{message[1:]}; see {command} --help"
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, OSError) and error.errno is not None:
        text = _describe_os_error(error)
    elif isinstance(error, MemoryError):
        text = f"not enough memory {error}".strip()
    elif isinstance(error, ImportError):
        text = f"{error}; pip install 'latentpack[bench]' brings the optional libraries"
    elif isinstance(error, (ValueError, OSError, RuntimeError)):
        text = str(error) or type(error).__name__
    else:
        text = f"internal error, {type(error).__name__}: {error}; --debug shows where"
    return " ".join(text.split())


def _describe_os_error(error: OSError) -> str:
    what = (error.strerror or os.strerror(error.errno or 0)).lower()
    if error.errno == errno.EEXIST:
        what = "exists already; --force overwrites it"
    names = [str(name) for name in (error.filename2, error.filename) if name is not None]
    return ": ".join([*names[:1], what])


def note(text: str) -> None:
    """Say something on stderr, whatever goes to stdout."""
    click.echo(f"latentpack: note: {text}", err=True)


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print one line to stderr and leave."""
    click.echo(f"latentpack: {message}", err=True)
    sys.exit(code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`latentpack COMMAND --help` shows the options of a command, with examples.",
)
@click.version_option(latentpack.__version__, message="latentpack %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def cli() -> None:
    """Neural codecs for media and tensors.

    \b
    latentpack encode photo.png -o photo.lpk --quality 60
    latentpack decode photo.lpk -o photo_again.png
    latentpack pack model.safetensors model.lpk
    latentpack info model.lpk
    """


def main(command: str | None = None) -> None:
    """Entry point; `python scripts/encode.py` is `main("encode")`."""
    args = sys.argv[1:] if command is None else [command, *sys.argv[1:]]
    cli.main(args, prog_name="latentpack")


if __name__ == "__main__":
    main()
