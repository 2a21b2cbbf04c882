"""The parts of Matplotlib that figures use; no other module imports it.

Figures need no window, and ignore the user's matplotlibrc: a bad value in it would end a command.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BACKEND, _SETTINGS = "MPLBACKEND", "MATPLOTLIBRC"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Matplotlib from logging warnings about its folders and fonts, which a user need not see."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _hide_settings() -> Iterator[None]:
    """Hide the user's matplotlibrc while Matplotlib is imported; then apply it for other code."""
    if "matplotlib" in sys.modules:
        yield
        return
    hidden = {name: os.environ.pop(name) for name in (_BACKEND, _SETTINGS) if name in os.environ}
    os.environ[_SETTINGS] = os.devnull
    yield
    del os.environ[_SETTINGS]
    os.environ |= hidden
    with suppress(ValueError, OSError):
        matplotlib.rcParams.update(matplotlib.rc_params())
    with suppress(ValueError):
        matplotlib.rcParams.update({"backend": hidden[_BACKEND]} if _BACKEND in hidden else {})


with quiet(), _hide_settings():
    import matplotlib
    from matplotlib import font_manager, style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Transform

__all__ = [
    "Axes",
    "Figure",
    "MaxNLocator",
    "Rectangle",
    "Text",
    "Transform",
    "font_manager",
    "matplotlib",
    "quiet",
    "style",
]
