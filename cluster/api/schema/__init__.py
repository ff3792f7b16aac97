"""The schema engine: OpenAPI schemas of built-in kinds and of CRDs, compiled to trees that check, prune and merge."""
