"""Commands that measure jaxdl beside PyTorch, plain Flax and Keras, in one run."""
