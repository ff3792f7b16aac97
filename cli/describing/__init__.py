"""Objects in words: one module a kind group, each filling a sheet with labelled lines."""
