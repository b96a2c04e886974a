"""Strict conversion of third-party weights to Flax variables, and inference checkpoints."""
