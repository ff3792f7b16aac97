"""What a failed command says: one clear line on stderr, what to do next, and kubectl's exit codes."""

from __future__ import annotations

from typing import IO, Any

import click

from steersman.cluster.meta.errors import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
)


class Failed(click.ClickException):
    """Ends the command with a message on stderr.

    Args:
        message: printed as it is.
        exit_code: 1 as kubectl's, unless the command gives codes a meaning of its own.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        if self.message:
            click.echo(self.message, file=file, err=file is None)


def failed(message: str, exit_code: int = 1) -> Failed:
    """A failure told in kubectl's way: `error: ...`."""
    return Failed(f"error: {message}", exit_code)


def sentence(error: ApiError) -> str:
    """What the server answered, with the next step where there is an obvious one."""
    if type(error).__name__ == "ConnectionFailed":
        return f"error: {error.message}\nIs the cluster running? `steer status` tells, `steer up` starts one."
    text = f"Error from server ({error.reason}): {error.message}"
    match error:
        case Unauthorized():
            return f"{text}\nThe kubeconfig's credentials are missing or no longer valid for this cluster."
        case Forbidden():
            return f"{text}\n`steer auth can-i --list` shows what you may do."
        case Conflict() if any(cause.reason == "FieldManagerConflict" for cause in error.causes):
            return f"{text}\nTake these fields over with --force-conflicts, or leave them out of the manifest."
        case NotFound() | ServiceUnavailable():
            return text
    return text
