"""Set up before any test module: eight CPU devices, SIGINT, and the cure."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jaxdl  # noqa: F401  (arms the cure before JAX starts)

# What starts in the background (nohup, a job of a script) may ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
