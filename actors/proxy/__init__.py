"""Makes services reachable on a node: by kernel rules, or by passing bytes on where these are not allowed."""

from steersman.actors.proxy.component import Proxy

__all__ = ["Proxy"]
