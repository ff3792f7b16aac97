"""Kubernetes' protobuf form of objects, in both directions."""
