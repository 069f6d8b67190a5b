"""``convnext completion``: the script that a shell's start-up file evaluates."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash  eval "$(convnext completion bash)"       in ~/.bashrc
    zsh   eval "$(convnext completion zsh)"        in ~/.zshrc
    fish  convnext completion fish | source        in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from convnext_cli.cli import convnext

    completer = get_completion_class(shell)
    assert completer is not None
    # The script alone: the constructor of bash's class would start bash to ask for its version only on source()
    instance = completer(convnext, {}, "convnext", "_CONVNEXT_COMPLETE")
    click.echo(instance.source_template % instance.source_vars())
