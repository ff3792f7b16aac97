"""A revisioned key-value store with etcd's semantics, as values and pure state."""
