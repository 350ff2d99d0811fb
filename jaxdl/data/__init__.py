"""Where examples come from, and what happens to them before a model sees them."""
