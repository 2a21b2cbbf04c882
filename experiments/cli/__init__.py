"""Shared parts of the commands: flags, recipes, progress bars, signals, streams, start and end."""
