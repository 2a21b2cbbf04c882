"""CIFAR-10 and its synthetic stand-in: found on this machine, fetched or generated, checked and divided."""
