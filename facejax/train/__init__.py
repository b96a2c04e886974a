"""Training: losses, SAM, the training step, its placement on devices, checkpoints and the training loop."""
