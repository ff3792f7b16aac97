"""A keeper renews the certificates of its machine while it runs; see `renewed` for those who use them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from steersman.actors import bringup
from steersman.actors.site import Site

#: how often the certificates are looked at; they are renewed when a fifth of their life is left
LOOK_S = 60.0


async def renew_always(site: Callable[[], Site]) -> None:
    """Renews whatever is to expire, or is to name other machines by now; the task of a keeper.

    Args:
        site: returns the machine's site as it is.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await asyncio.to_thread(renew, site())
        except OSError as error:
            print(f"certificates could not be renewed: {error}", file=sys.stderr, flush=True)


def renew(site: Site) -> None:
    """Renews what is to be renewed; raises OSError."""
    admin = site.credentials("admin").cert
    before = admin.read_bytes()
    bringup.issue_certificates(site)
    if admin.read_bytes() != before:
        bringup.write_kubeconfig(site)
