"""The rules that OpenAPI does not carry: defaults, validation and preparation, one file a kind group."""
