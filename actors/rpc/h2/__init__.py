"""gRPC over HTTP/2 of our own: what a message costs is what it costs to frame it."""
