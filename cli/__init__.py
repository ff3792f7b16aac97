"""`steer`: asks the API server and shows its answers."""
