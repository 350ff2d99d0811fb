"""Hyper-parameter search: trials of one shape run together in one compiled program."""
