"""Foreign arrays to Flax variables, strictly, and the inference checkpoints they end up in."""
