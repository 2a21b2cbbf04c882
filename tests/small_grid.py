"""`experiments.grid` on few made-up images and without figures: to files and signals it does the same."""

import os
import resource
import runpy
import sys
from types import SimpleNamespace

import compiling

os.environ.setdefault("XLA_FLAGS", compiling.FLAGS)

# Nor is matplotlib loaded.
sys.modules["experiments.plots"] = SimpleNamespace(heatmap=lambda *_: None, curves=lambda *_: None)

from experiments import conduct, hosts, work  # noqa: E402
from linear_cifar.synthetic import synthetic  # noqa: E402

if __name__ == "__main__":
    if "LARGEST_FILE" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LARGEST_FILE"]),) * 2)
    hosts.HEARTBEAT = int(os.environ.get("HEARTBEAT", hosts.HEARTBEAT))
    work.KEEP_BYTES = int(os.environ.get("KEEP_BYTES", work.KEEP_BYTES))
    conduct.find = lambda *_: synthetic(n_train=1_200, n_test=int(os.environ.get("TEST_IMAGES", 200)))
    runpy.run_module("experiments.grid", run_name="__main__", alter_sys=True)
