"""Recipe and checkpoints to plan, run and checkpoint."""
