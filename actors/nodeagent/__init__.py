"""The node agent: runs the pods bound to its node and serves their streams."""

from steersman.actors.nodeagent.agent import NodeAgent

__all__ = ["NodeAgent"]
