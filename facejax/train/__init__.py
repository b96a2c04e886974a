"""Training: losses, SAM, the step, its placement on devices, checkpoints and the loop."""
