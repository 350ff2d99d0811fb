"""Set up before any test module is imported: eight CPU devices, and the cure."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jaxdl  # noqa: F401  (arms the cure before JAX starts)
