"""Training: state, one pure step, the ways to compile it, checkpoints and the loop."""
