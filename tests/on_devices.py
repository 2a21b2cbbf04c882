"""Sweeps on some of this process's devices, whose number is fixed when it starts: run by test_devices.py.

    python tests/on_devices.py FOLDER CONFIGURATIONS-SEEDS-DEVICES ...

writes of each what it trained, `<sweep>.npz`, and the program that did, `<sweep>.hlo`.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from test_sweep import run, start, val

from linear_cifar.config import grid
from linear_cifar.losses import get_loss
from linear_cifar.training import Recipe, train_epoch

CONFIGS = grid([0.001, 0.003, 0.005, 0.01], [20, 60], [0.1])
RECIPE = Recipe(get_loss("softmax"))


def main(folder, sweeps):
    for sweep in sweeps:
        configs, seeds, count = map(int, sweep.split("-"))
        programs = []

        def epoch(*arguments, programs=programs):
            """`train_epoch`, whose program is kept."""
            if not programs:
                programs.append(train_epoch.lower(*arguments).compile())
            *traced, _, _ = arguments
            return programs[0](*traced)

        sys.modules["linear_cifar.sweep"].train_epoch = epoch
        devices = jax.local_devices()[:count]
        params, seeds = start(jnp.float32), range(seeds)
        *_, last = run(CONFIGS[:configs], 2, RECIPE, params, seeds=seeds, devices=devices)
        mesh = tuple(last.layout.mesh.shape.values())
        np.savez(folder / sweep, **last.params._asdict(), loss=val(last).loss, mesh=mesh)
        (folder / f"{sweep}.hlo").write_text(programs[0].as_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
