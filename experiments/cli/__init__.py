"""Shared parts of the commands: flags, recipes, progress bars, signals, start and end."""
