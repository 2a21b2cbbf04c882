"""Data sets: CIFAR-10, its synthetic stand-in and a user's own files; found, read, checked and divided."""
