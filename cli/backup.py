"""`steer backup` and `steer restore`: the whole state of a cluster in one file, and a cluster's beginning from it.

A backup is asked of the API server, of a running cluster; a restore works on the data directory of one that is down.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from steersman.cli.errors import failed
from steersman.cli.session import Session, api_command

BACKUP_PATH = "/steersman/v1/backup"
#: bytes between two lines of progress
_PROGRESS_BYTES = 16 << 20


@api_command(
    "backup",
    examples="""
    steer backup cluster.backup              # while everything runs
    steer backup --verify cluster.backup     # read it again and check all of it
    steer restore cluster.backup             # of a cluster that is down; see `steer restore --help`
    """,
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check a backup that is there instead of taking one.")
async def backup(session: Session, file: Path, verify: bool) -> None:
    """Save the cluster's whole state, Secrets too, to a file.

    The file appears whole and checked, or not at all. Only cluster administrators may take one. It is a snapshot of
    etcd, as `etcdctl snapshot save` takes it. The cluster's keys (its directory pki) are not in it: keep those as well,
    for the Secrets in it are encrypted with them.
    """
    if verify:
        click.echo(f"{file} is good: {_described(await asyncio.to_thread(_read, file))}")
        return
    partial = file.with_name(f".{file.name}.partial")
    try:
        await _download(session, partial)
        found = await asyncio.to_thread(_read, partial)
        partial.replace(file)
        _sync_directory(file.parent)
    except OSError as error:
        raise failed(f"{error.filename or file}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"Saved {file}: {_described(found)}")


async def _download(session: Session, path: Path) -> None:
    """Writes the backup to a file that nobody else can read, and makes it durable."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        written = shown = 0
        async for chunk in session.download(BACKUP_PATH):
            written += await asyncio.to_thread(out.write, chunk)
            if sys.stderr.isatty() and written - shown >= _PROGRESS_BYTES:
                shown = written
                click.echo(f"\r{_size(written)} ", err=True, nl=False)
        if shown:
            click.echo("\r\x1b[2K", err=True, nl=False)
        out.flush()
        os.fsync(out.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    from steersman.actors.store.backup import read_backup
    from steersman.actors.store.disk import DiskFailure

    try:
        return read_backup(path)
    except OSError as error:
        raise failed(f"{path}: {error.strerror}") from None
    except DiskFailure as error:
        raise failed(str(error)) from None


def _described(found: Any) -> str:
    return f"revision {found.revision}, {found.keys} keys, {_size(found.size_bytes)}, sha256 {found.sha256[:16]}…"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 1 << 20 else f"{count / 2**10:.1f} KiB"


@click.command(
    epilog="""\b
Examples:
  steer down && steer restore --force cluster.backup && steer up
  steer restore cluster.backup --data-dir /srv/steersman     into a new directory
"""
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", envvar="STEERSMAN_NAME", default=None, help="Name of the cluster [default: default].")
@click.option("--data-dir", envvar="STEERSMAN_DATA_DIR", default=None, help="Where its state lives.")
@click.option("--force", is_flag=True, help="Replace the state that is there; it is kept aside.")
def restore(file: Path, name: str | None, data_dir: str | None, force: bool) -> None:
    """Begin a cluster again from a backup, or from a snapshot of an etcd; it must be down.

    Every store member begins anew with the backup's state, as a group with an identity of its own. Revisions go on far
    above the backup's, so that no client believes what it saw after the backup. `steer up` then starts the cluster.
    """
    found = _read(file)
    aside = asyncio.run(_restore(found, {"name": name, "data_dir": data_dir}, force))
    click.echo(f"Restored {file}: {_described(found)}")
    for path in aside:
        click.echo(f"  the former state is kept in {path}")
    click.echo("  `steer up` starts the cluster with it")


async def _restore(found: Any, given: dict[str, str | None], force: bool) -> list[Path]:
    from steersman.actors import bringup, roster
    from steersman.actors.store import backup as backups
    from steersman.actors.store.disk import DiskFailure
    from steersman.cluster.config import ConfigError, parse

    try:
        overrides = {field: value for field, value in given.items() if value}
        former = bringup.data_dir_of(parse("", overrides)) / "config.yaml"
        config = parse(former.read_text() if former.exists() else "", overrides)
        members = bringup.store_members(config)
        aside = await backups.restore(found, members, force=force)
        roster.begin_group_anew(bringup.data_dir_of(config), len(members))
        return aside
    except backups.NotEmpty as error:
        raise failed(f"{error}\n--force replaces it and keeps it aside.") from None
    except (bringup.BringUpFailed, ConfigError, DiskFailure) as error:
        raise failed(str(error)) from None


COMMANDS = [backup, restore]
