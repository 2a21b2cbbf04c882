"""Packages that only `pip install 'linear_cifar[data]'` installs, imported where they are used."""

import importlib
from typing import Any

from linear_cifar.data.dataset import DataError


def import_extra(name: str) -> Any:
    """Import and return a module of the extra `data`.

    Raises:
      DataError: if it cannot be imported. The caller puts what needs the module before the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"needs {name}, which cannot be imported ({reason}): pip install 'linear_cifar[data]'"
        ) from error
