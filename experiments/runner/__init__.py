"""Training of an experiment: sweeps, stages, blocks, checkpoints, and processes that share them."""
