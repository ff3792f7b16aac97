"""The API server: a watch cache, one write pipeline, and the protocols clients speak."""

from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.server import ApiServer

__all__ = ["ApiServer", "ApiServerConfig"]
