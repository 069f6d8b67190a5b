"""``convnext completion``: the script for a shell's start-up file."""

from __future__ import annotations

import click

# click's own for bash offers files or names, never both: "default" works only where nothing else is offered. Without
# a name, bash completes the path by itself, with its quoting; beside names, compgen lists the paths.
_BASH = r"""
_convnext_completion() {
    local line kind value paths= response
    COMPREPLY=()
    response=$(IFS=$'\n'; env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \
        _CONVNEXT_COMPLETE=bash_complete "$1" 2> /dev/null)
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file | dir) paths=yes ;;
        esac
    done <<< "$response"
    [[ $paths ]] || return 0
    if ((${#COMPREPLY[@]} == 0)); then
        compopt -o bashdefault -o default
        return 0
    fi
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    compopt -o filenames
}

complete -o nosort -F _convnext_completion convnext
"""


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

    if shell == "bash":
        click.echo(_BASH.strip())
        return
    completer = get_completion_class(shell)
    assert completer is not None
    instance = completer(convnext, {}, "convnext", "_CONVNEXT_COMPLETE")
    click.echo(instance.source_template % instance.source_vars())
