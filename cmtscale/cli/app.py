"""The `cmtscale` command: its sub-commands, and errors as one line with exit code 2."""

import os
import signal
import sys
from typing import Annotated

import typer

from cmtscale.arch.errors import CmtscaleError, NoRoomError
from cmtscale.cli import (
    bench,
    cache,
    check,
    export,
    flops,
    plot,
    predict,
    scale,
    search,
    show,
    train,
    variants,
)
from cmtscale.cli import eval as evaluation
from cmtscale.cli.torchrun import is_one_of_several
from cmtscale.cli.usage import usage_message

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
RESUMED = ("search", "check", "train")  # commands that keep what they have done

app = typer.Typer(
    help="Choose, count, search and train CMT vision networks under a compute budget.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the time to show, and it pipes well
)


def _print_version(version: bool) -> None:
    if version:
        from importlib import metadata

        print(f"cmtscale {metadata.version('cmtscale')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.command("variants", short_help="The four published variants.")(variants.variants)
app.command("flops", short_help="What a variant costs, exactly.")(flops.flops)
app.command("scale", short_help="A new variant, by phi or for a budget.")(scale.scale)
app.command("search", short_help="From a budget to the CMT to train.")(search.search)
app.command("show", short_help="What a search answers now.")(show.show)
app.command("check", short_help="What a search takes for granted, measured.")(check.check)
app.command("plot", short_help="Figures of searches.")(plot.plot)
app.command("train", short_help="Train one variant.")(train.train)
app.command("eval", short_help="How good a trained model is.")(evaluation.evaluate)
app.command("predict", short_help="What a trained model sees in images.")(predict.predict)
app.command("export", short_help="A trained model as a file, checked.")(export.export)
app.command("bench", short_help="How fast networks are, side by side.")(bench.bench)
app.command("cache", short_help="Where packed images are, and clearing it.")(cache.cache)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends in `SystemExit`."""
    code = run(arguments)
    if code == INTERRUPTED:  # a second Ctrl-C would interrupt torch's clean-up, with a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0; 2 for bad input; 1 for what broke off at something outside it, such as a full disk; 128 + its
    number after a signal.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments or ["--help"], prog_name="cmtscale", standalone_mode=False)
        if code == INTERRUPTED:  # what typer returns after Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()  # a closed pipe is caught below; at exit it would be a traceback
        return code if isinstance(code, int) else 0
    except CmtscaleError as error:
        return _refuse(str(error), error.exit_code)
    except typer.TyperException as error:
        return _refuse(f"{usage_message(error)} (see {_help_command(arguments)})")
    except (KeyboardInterrupt, typer.Abort):
        goes_on = "; the same command goes on" if set(arguments[:1]) & set(RESUMED) else ""
        return _refuse(f"stopped{goes_on}", INTERRUPTED)
    except BrokenPipeError:  # `cmtscale … | head`: drop the rest, and end as typer does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        from cmtscale.record.files import no_room

        if words := no_room(error):
            return _refuse(words, NoRoomError.exit_code)
        return _refuse(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))


def _refuse(message: str, exit_code: int = 2) -> int:
    line = f"cmtscale: {_printable(' '.join(message.split()))}"
    if is_one_of_several():  # they may all say the same
        from cmtscale.train.processes import is_first_to_say

        if not is_first_to_say(line):
            return exit_code
    print(line, file=sys.stderr)
    return exit_code


def _printable(text: str) -> str:
    """The text without what a terminal would obey, such as the name of a file may have."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _help_command(arguments: list[str]) -> str:
    """Where the options of the command that was meant are explained."""
    names = [command.name for command in app.registered_commands]
    command = [name for name in arguments[:1] if name in names]
    return " ".join(["cmtscale", *command, "--help"])
