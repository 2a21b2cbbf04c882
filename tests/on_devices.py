"""Train sweeps on some of this process's devices; test_devices.py runs it.

    python tests/on_devices.py FOLDER CONFIGURATIONS-SEEDS-DEVICES ...

writes the results of each sweep to `<sweep>.npz`, and the compiled program to `<sweep>.hlo`.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from test_descent import initial_params, run

from linear_cifar.config import grid
from linear_cifar.training import train_epoch

CONFIGS = grid(eta=[0.001, 0.003, 0.005, 0.01], batch=[20, 60], lam=[0.1])


def main(folder, sweeps):
    for sweep in sweeps:
        configs, seeds, count = map(int, sweep.split("-"))
        programs = []

        def epoch(*arguments, programs=programs):
            """Train an epoch, and keep the compiled program."""
            if not programs:
                programs.append(train_epoch.lower(*arguments).compile())
            *traced, _, _ = arguments
            return programs[0](*traced)

        epoch.lower = train_epoch.lower
        sys.modules["linear_cifar.training"].train_epoch = epoch
        devices = jax.local_devices()[:count]
        options = {"augment": None, "init": lambda seed: initial_params(jnp.float32)}
        *_, last = run(CONFIGS[:configs], seeds=range(seeds), devices=devices, **options)
        mesh = tuple(last.layout.mesh.shape.values())
        np.savez(folder / sweep, **last.params()._asdict(), loss=last.metrics["val_loss"], mesh=mesh)
        (folder / f"{sweep}.hlo").write_text(programs[0].as_text(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
