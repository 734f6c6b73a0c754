"""A command that refuses an option given twice where one value is used: else the first would be dropped in silence."""

from collections import Counter

import typer
from typer.core import TyperCommand

from helpers.errors import InputError


class OnceCommand(TyperCommand):
    """A command of which an option that takes one value can be given once. Flags may be said again."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, times in Counter(given).items():
            single = parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag)
            if single and times > 1:
                raise InputError(f"{parameter.opts[0]} is given {times} times and takes one value; give it once")
        return super().parse_args(ctx, args)


def say_once(app: typer.Typer) -> None:
    """Make every command of an application, and of its groups, such a one."""
    for command in app.registered_commands:
        command.cls = OnceCommand
    for group in app.registered_groups:
        say_once(group.typer_instance)
