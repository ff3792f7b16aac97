"""The node agent: runs the pods bound to its node and serves their streams."""

from steersman.actors.nodeagent.agent import NodeAgent
from steersman.actors.nodeagent.service import NodeService

__all__ = ["NodeAgent", "NodeService"]
