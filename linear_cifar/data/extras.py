"""Packages that only `pip install 'linear_cifar[data]'` installs, imported where they are used."""

import importlib
from typing import Any

from linear_cifar.arguments import one_line
from linear_cifar.data.dataset import DataError


def import_extra(name: str) -> Any:
    """Import and return a module of the extra `data`.

    Raises:
      DataError: if it cannot be imported. The caller puts what needs the module before the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"needs {name}, which cannot be imported ({one_line(error)}): pip install 'linear_cifar[data]'"
        ) from error
