"""How a command runs: its answer, or an error that a user can act on, is told to a person or to a program."""

import click

from headrace.pipelines.answers import failure, show, warn, write_in_any_encoding
from headrace.pipelines.interrupts import STATUS, WORDS, Interrupts
from headrace.platform.errors import HeadraceError

as_json = click.option("--json", is_flag=True, expose_value=False, help="Print one JSON object last.")


class HeadraceGroup(click.Group):
    """A group of commands that return answers, which are told to a person, or to a program with `--json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether a program reads the answer, before the command itself is known; and whether only help is."""
        write_in_any_encoding()
        ctx.meta["headrace.json"] = "--json" in args
        ctx.meta["headrace.help"] = bool({"-h", "--help"} & set(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Run a command, and print its answer; one that a user can act on when it fails, too."""
        with Interrupts() as interrupts:
            try:
                answer = super().invoke(ctx)
            except BaseException as error:
                # An interrupt comes at any line, and what it breaks there may be told as another error.
                if interrupts.came or isinstance(error, KeyboardInterrupt):
                    warn(WORDS)
                    ctx.exit(STATUS)
                if not isinstance(error, HeadraceError):
                    raise
                answer = failure(error)
            if answer is not None:
                show(answer, as_json=ctx.meta["headrace.json"])
                ctx.exit(answer.status)
