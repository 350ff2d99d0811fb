"""One module per question; each `python -m experiments.X --help` teaches."""
