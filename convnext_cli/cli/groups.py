"""A group of commands whose errors name the command that they are about."""

from __future__ import annotations

import click


class Group(click.Group):
    """click leaves the command out of some errors, such as that of an option without its value."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name and (command := self.get_command(ctx, name)):
                error.ctx = click.Context(command, info_name=name, parent=ctx)
            raise
