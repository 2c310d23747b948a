"""Training: plan, loop, checkpoints and history."""
