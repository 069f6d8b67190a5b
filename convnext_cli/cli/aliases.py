"""Commands under the names that other programs have taught; docs/usage.md lists them, --help does not."""

from __future__ import annotations

import click

# Name: the command's path from the top.
SAME = {"predict": ("classify",), "list": ("models", "list")}
NAMES = (*SAME, "version", "help")


@click.command()
def version() -> None:
    """Print the version, as --version does."""
    from convnext_cli import __version__

    click.echo(f"convnext, version {__version__}")


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command, as --help does."""
    context = ctx.find_root()
    for word in words:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            raise click.UsageError(f"there is no command {' '.join(words)!r}", context)
        context = click.Context(command, info_name=word, parent=context)
    click.echo(context.get_help())


def command(name: str, top: click.Group, ctx: click.Context) -> click.Command | None:
    """The command behind such a name; None for any other name."""
    if name == "version":
        return version
    if name == "help":
        return help_
    target: click.Command | None = top if name in SAME else None
    for word in SAME.get(name, ()):
        assert isinstance(target, click.Group)
        target = target.get_command(ctx, word)
    return target
