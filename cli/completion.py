"""`steer completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from steersman.cli.session import write_examples

EXAMPLES = """
source <(steer completion bash)                                    # for this shell
steer completion zsh > "${fpath[1]}/_steer"                        # for good, in zsh
steer completion fish > ~/.config/fish/completions/steer.fish
"""


class _Completion(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(EXAMPLES, formatter)


@click.command("completion", cls=_Completion)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, kinds and names in a shell."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "steer", "_STEER_COMPLETE").source())


COMMANDS = [completion]
