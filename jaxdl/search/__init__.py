"""Hyper-parameter search: trials of one shape run together in one compiled program."""

from typing import Literal

Sampler = Literal["random", "grid", "optuna"]
"""What proposes configurations; see `jaxdl.search.samplers`."""
