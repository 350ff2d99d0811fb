"""What makes JAX fast on a CPU, underneath any model: how operations are lowered."""
