"""Prints the most anonymous memory that training on each file takes beyond what there was, in bytes.

    python copies.py FILE...

The first file is not measured: it leaves JAX and the compiled programs, which are for shapes like its own.
"""

import re
import sys
import threading
import time
from pathlib import Path

import linear_cifar as lc
from linear_cifar.data.formats import read_features
from linear_cifar.data.prepare import prepare_data


def read_anonymous():
    """Return the bytes of this process that are in no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def train(path):
    data = prepare_data(read_features(path, log=lambda line: None), val_size=100)
    lc.fit(
        [lc.Config(eta=0.1, batch=500)], data.sets["train"], data.sets,
        epochs=1, standardizer=data.standardizer, seeds=data.replicates([0]),
    )  # fmt: skip


def watch(peak):
    while True:
        peak[0] = max(peak[0], read_anonymous())
        time.sleep(0.002)


def main():
    first, *others = sys.argv[1:]
    train(first)
    for path in others:
        start = read_anonymous()
        peak = [start]
        threading.Thread(target=watch, args=(peak,), daemon=True).start()
        train(path)
        print(peak[0] - start)


if __name__ == "__main__":
    main()
