"""Training of an experiment: sweeps, stages, blocks and checkpoints."""
