"""The architectures: one file per family, one registry that names them all.

`jaxdl.models.registry` is the way in; it imports in milliseconds and loads a family,
and with it JAX and Flax, only when one of its networks is built.
"""
