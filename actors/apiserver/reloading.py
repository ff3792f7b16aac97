"""A configuration file that is read again when it changes, so that it takes effect without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

#: how often a file is looked at
RELOAD_S = 10.0


class Reloaded:
    """Follows one file; a Component.

    Args:
        apply: takes its text; raises ValueError for a bad one, which is told, and what was before stays.
    """

    def __init__(self, path: Path, apply: Callable[[str], None]) -> None:
        self._path = path
        self._apply = apply
        self._text = read(path)
        apply(self._text)
        self._reloader: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._reloader = asyncio.create_task(self._reload_always())

    async def stop(self) -> None:
        if self._reloader is not None:
            self._reloader.cancel()
            await asyncio.gather(self._reloader, return_exceptions=True)

    def reload(self) -> None:
        """Reads the file again if it has changed."""
        try:
            text = read(self._path)
            if text == self._text:
                return
            self._text = text
            self._apply(text)
        except ValueError as error:
            log.error("%s is not used: %s", self._path, error)
            return
        log.info("%s was read again", self._path)

    async def _reload_always(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            self.reload()


def read(path: Path) -> str:
    """The text of a file; raises ValueError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
