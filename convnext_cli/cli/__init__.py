"""The command line. Commands are loaded when they are called, so that ``--help`` imports click alone."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from convnext_cli import __version__
from convnext_cli.base import interruption
from convnext_cli.base.errors import ConvNextError, OutputError, UnavailableError, lacks_memory
from convnext_cli.cli import aliases, process
from convnext_cli.cli.closed_streams import open_closed_streams
from convnext_cli.cli.groups import Group
from convnext_cli.photos.pillow_warnings import quiet_pillow

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from convnext_cli.base.guardian import LastWords

# Name, and the line in --help; the command is the object of the same name in the module of that name.
COMMANDS = {
    "classify": "Label photos, and print ranked labels.",
    "label": "Label a folder of any size into a file, and resume after an interruption.",
    "explain": "Draw what speaks for and against each label of a photo, and where.",
    "evaluate": "Measure a model's accuracy on labelled photos.",
    "calibrate": "Measure how far a model's answers can be trusted.",
    "train": "Train a network on labelled photos, with your own labels.",
    "models": "List, inspect, pull and choose model weights.",
    "export": "Export a model to a file for another program, and check it.",
    "convert": "Rewrite weights in another library's layout.",
    "prepare": "Prepare a model's engines for this machine, and measure them.",
    "bench": "Measure how fast models run here.",
    "benchmark": "The same as bench.",
    "doctor": "Check this installation: engines, devices, libraries.",
    "completion": "Print the shell completion script for bash, zsh or fish.",
}
EPILOG = """\b
Examples:
  convnext photo.jpg
  convnext classify holiday/ -f jsonl > labels.jsonl
  convnext models pull convnext_tiny.in12k_ft_in1k

\b
Exit status: 0 all done · 1 done, some photos failed · 2 usage · 3 model or
labels unusable · 4 device or library missing · 5 network · 70 bug · 74 output
not writable · 130 interrupted
"""


_NOT_RESUMED = (
    "classify",
    "explain",
    "evaluate",
    "calibrate",
    "export",
    "convert",
    "prepare",
    "bench",
    "benchmark",
)  # others say how to go on
_LIGHT = ("models", "completion")  # commands that run no network
_LEAST_MEMORY = 500 * 10**6  # bytes of addresses


class _PipeClosedError(Exception):
    """The reader of standard output, such as ``head``, has closed it."""


_OWN = ("-h", "--help", "-V", "--version")  # options that need no command


class Commands(Group):
    """The group of all commands, which are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return aliases.command(cmd_name, self, ctx)
        return getattr(import_module(f"convnext_cli.cli.{cmd_name}"), cmd_name)  # type: ignore[no-any-return]

    def invoke(self, ctx: click.Context) -> object:
        quiet_pillow()
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would end the process with its own status
            raise _PipeClosedError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, from the table alone, and files, for the short form."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        names = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `convnext photo.jpg` means `convnext classify photo.jpg`
        if args and self._is_short(ctx, args):
            args.insert(0, "classify")
        return super().parse_args(ctx, args)

    def _is_short(self, ctx: click.Context, args: list[str]) -> bool:
        """Whether photos come in place of a command: alone, or after options of `classify`.

        Raises:
            UsageError: options come before another command.
        """
        if _is_command(args[0]):
            return False
        if args[0] == "-" or not args[0].startswith("-"):
            return args[0] == "-" or _is_path(args[0]) or any(sign in args[0] for sign in "*?[")
        if args[0] in _OWN:
            return False
        classify = self.get_command(ctx, "classify")
        assert classify is not None
        try:
            # the parent has the names of the help option, which click makes once for a command
            alone = click.Context(classify, parent=ctx, resilient_parsing=True)
            values, _, _ = classify.make_parser(alone).parse_args(list(args))
        except click.UsageError:  # `classify` reports it better
            values = {}
        paths = values.get("paths")
        words = paths if isinstance(paths, tuple) else ()
        if words and _is_command(words[0]) and not ctx.resilient_parsing:
            raise click.UsageError(f"The command comes first: convnext {words[0]} {args[0]} …", ctx)
        return True

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not _is_command(name):
            if ctx.resilient_parsing:  # a shell asks for completions
                return None, None, []
            from difflib import get_close_matches

            near = get_close_matches(name, [*COMMANDS, *aliases.NAMES], 1)
            raise click.UsageError(
                f"{name!r} is neither a command nor an existing path."
                + (f" Did you mean {near[0]!r}?" if near else ""),
                ctx,
            )
        resolved, command, rest = super().resolve_command(ctx, args)
        if resolved not in _LIGHT and not ctx.resilient_parsing and not {"-h", "--help"} & set(rest):
            _check_memory()
        return resolved, command, rest


def _check_memory() -> None:
    """Raise UnavailableError if the memory limit is too low to run a network.

    The library behind NumPy ends the process when it lacks memory, and raises SIGINT when it cannot start a thread. So
    the limit is checked before NumPy is imported.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < _LEAST_MEMORY:
        raise UnavailableError(
            f"there is not enough memory: the limit is {limit // 10**6} MB, and a network needs at least "
            f"{_LEAST_MEMORY // 10**6} MB",
            "raise the limit: ulimit -v unlimited",
        )


def _is_command(word: str) -> bool:
    return word in COMMANDS or word in aliases.NAMES


def _is_path(word: str) -> bool:
    if "://" in word:
        return True
    try:
        os.lstat(word)
    except PermissionError:  # a name in a folder that may not be read
        return True
    except (OSError, ValueError):
        return False
    return True


@click.command(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="convnext")
def convnext() -> None:
    """Label photos with any ConvNeXt weights.

    `convnext PHOTO` labels a photo.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with the documented exit status."""
    process.own()
    open_closed_streams()  # first, so that no other file gets the number of a stream
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # replace characters that the terminal lacks
            stream.reconfigure(errors="replace")
    interruption.guard(_speak)  # SIGTERM is treated like Ctrl-C: finished work is kept
    status = run(list(sys.argv[1:] if args is None else args))
    if "torch" in sys.modules or status == 130 or _threads_hang() or _ends_by_status():
        # All is written and closed. Shutting down the interpreter with torch loaded would cost half a second, and after
        # an interruption, or beside a decoder that hangs, threads may still be running, which can crash.
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _speak(last: LastWords) -> None:
    from convnext_cli.cli import witness

    witness.speak(last)


def _interrupted(args: list[str]) -> int:
    print("interrupted", file=sys.stderr)
    if args and args[0] in _NOT_RESUMED:
        print("hint: the same command starts again", file=sys.stderr)
    elif args[:2] == ["models", "pull"]:
        print("hint: the same command continues with the rest", file=sys.stderr)
    return 130


def _threads_hang() -> bool:
    """Whether threads still run work that was given up."""
    threads = sys.modules.get("convnext_cli.base.threads")
    return threads is not None and bool(threads.abandoned)


def _ends_by_status() -> bool:
    """Whether the process would end with a status of the C library's own."""
    witness = sys.modules.get("convnext_cli.cli.witness")
    return witness is not None and witness.ends_by_status


def run(args: list[str]) -> int:
    """Run a command and return its exit status; failures are reported, with a traceback only on request."""
    debug = "-vv" in args or os.environ.get("CONVNEXT_DEBUG", "") not in ("", "0")
    interruption.forget()
    try:
        status = convnext.main(args, prog_name="convnext", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(args)
    except (BrokenPipeError, _PipeClosedError):
        return _pipe_closed()
    except click.ClickException as error:
        return _usage(error)
    except Exception as error:
        # libraries in C turn an interruption into errors of their own
        if interruption.was_asked() and not isinstance(error, OutputError):
            return _interrupted(args)
        if debug:
            from convnext_cli.cli import render

            render.traceback()
        return _reported(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of libraries in Rust; it is not an Exception
            raise
        return _reported(RuntimeError(str(error)))


def _reported(error: Exception) -> int:
    """Report what a command raised, and return the exit status."""
    if isinstance(error, ConvNextError):
        return _report_error(error.message, error.hint, error.exit_status)
    if lacks_memory(error):
        return _report_error("there is not enough memory", "close other programs, or raise the limit (ulimit -v)", 4)
    if isinstance(error, OSError) and error.filename is None and error.errno == errno.EBADF:
        return _report_error("standard output is closed", "leave it open, or name a file for rows with -o", 74)
    if isinstance(error, OSError) and error.filename is None and error.errno is not None:
        return _report_error(
            f"the output cannot be written: {error.strerror}", "free some space, or write elsewhere", 74
        )
    if isinstance(error, RecursionError):
        return _report_error("the data is nested too deeply", "write the file again with less nesting", 3)
    return _report_error(
        f"unexpected {type(error).__name__}: {error}",
        "this is a bug in convnext: run the command again with CONVNEXT_DEBUG=1, and report the output",
        70,
    )


def _report_error(message: str, hint: str | None, status: int) -> int:
    from convnext_cli.cli import render

    with suppress(OSError):  # a full disk may hold standard error too
        render.error(message, hint)
    # data that Python still buffers for a closed standard output must not raise again at exit
    with suppress(OSError):
        sys.stdout.flush()
        return status
    _pipe_closed()
    return status


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "convnext"
    message = error.format_message().replace("\n\t", " ")  # choices, which click lists one a line
    return _report_error(message, f"{command} --help lists the options", error.exit_code)


def _pipe_closed() -> int:
    """Discard further output, so that Python's last flush does not fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
