"""`steer`: the command line. Knows the names of the commands and which module holds each; loads a module when its
command is asked for, so that the others cost nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from steersman.cli.options import COMMON, remember


class Entry(NamedTuple):
    """Where a command lives, and the line that `steer --help` shows."""

    module: str
    help: str


#: section to command to entry, in the order of the help
SECTIONS: Mapping[str, Mapping[str, Entry]] = {
    "Cluster": {
        "up": Entry("lifecycle", "Start a cluster on this machine, or bring it back."),
        "join": Entry("lifecycle", "Add this machine to a cluster."),
        "token": Entry("lifecycle", "Print the command with which another machine joins."),
        "down": Entry("lifecycle", "Stop the cluster and leave nothing behind."),
        "status": Entry("lifecycle", "Show every component: where it runs and how it is."),
        "config": Entry("lifecycle", "Show the cluster's effective configuration."),
        "store": Entry("store", "Look after the members of the store."),
        "kubeconfig": Entry("lifecycle", "Print a kubeconfig for the running cluster."),
        "backup": Entry("backup", "Save the cluster's whole state to a file."),
        "restore": Entry("backup", "Begin a cluster again from a backup."),
    },
    "Objects": {
        "get": Entry("get", "List objects, or show some of them."),
        "describe": Entry("describe", "Show an object in words, with its events."),
        "apply": Entry("apply", "Make the cluster match manifests."),
        "create": Entry("create", "Create objects from manifests or from flags."),
        "run": Entry("create", "Start a pod from an image."),
        "delete": Entry("delete", "Delete objects and wait until they are gone."),
        "edit": Entry("edit", "Change an object in your editor."),
        "patch": Entry("patch", "Change fields of an object."),
        "diff": Entry("diff", "Show what applying manifests would change."),
        "label": Entry("label", "Set or remove labels."),
        "annotate": Entry("label", "Set or remove annotations."),
        "wait": Entry("wait", "Wait until objects meet a condition."),
        "explain": Entry("explain", "Document a kind and its fields."),
        "events": Entry("events", "List events in the order they happened."),
        "api-resources": Entry("resources", "List the kinds that the server knows."),
        "api-versions": Entry("resources", "List the API versions that the server knows."),
    },
    "Workloads": {
        "scale": Entry("scale", "Set the number of replicas."),
        "rollout": Entry("rollout", "Watch, pause, undo or restart a rollout."),
        "set": Entry("images", "Set images of a workload."),
        "logs": Entry("logs", "Print the logs of containers."),
        "exec": Entry("execute", "Run a command in a container."),
        "attach": Entry("execute", "Attach to a running container."),
        "port-forward": Entry("forward", "Forward local ports to a pod."),
        "cp": Entry("copy", "Copy files to and from containers."),
    },
    "Nodes": {
        "cordon": Entry("nodes", "Keep new pods off a node."),
        "uncordon": Entry("nodes", "Let pods onto a node again."),
        "drain": Entry("nodes", "Empty a node for maintenance."),
        "image": Entry("image", "Load images into nodes, or list them."),
    },
    "Other": {
        "auth": Entry("auth", "Ask what you may do."),
        "version": Entry("version", "Print the versions of client and server."),
        "completion": Entry("completion", "Print a shell's completion script."),
    },
}
_ENTRIES = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Steer(click.Group):
    """The group of all commands; each is imported when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        commands: Sequence[click.Command] = import_module(f"steersman.cli.{entry.module}").COMMANDS
        return next((command for command in commands if command.name == cmd_name), None)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help) for name, entry in _ENTRIES.items() if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        unknown = args and not args[0].startswith("-") and args[0] not in _ENTRIES
        if unknown and not ctx.resilient_parsing:
            close = difflib.get_close_matches(args[0], _ENTRIES, n=3)
            hint = f"Did you mean {' or '.join(close)}?" if close else "See 'steer --help' for the commands there are."
            raise click.UsageError(f'unknown command "{args[0]}". {hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, entries in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()], col_max=16)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            error.exit_code = 1  # type: ignore[misc]
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.exit_code = 1  # type: ignore[misc]
            raise


def _start(**common: str | None) -> None:
    remember(click.get_current_context(), common)


cli = Steer(
    name="steer",
    callback=_start,
    params=[option() for option in COMMON],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="""Steersman: Kubernetes on Ray.

    Start a cluster with `steer up`, give it work with `steer apply -f FILE`, look at it with `steer get pods`.
    `steer COMMAND --help` explains a command with examples.""",
)


def main() -> None:
    """The console entry point."""
    cli(prog_name="steer")


if __name__ == "__main__":
    main()
