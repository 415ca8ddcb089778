"""Checks that the optional packages of a model are installed, without importing them."""

from __future__ import annotations

import importlib.util

from stages.base import SettingsError


def installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # sys.modules has None in its place, so that it can't be imported
        return False


def require_packages(*packages: str, extra: str) -> None:
    """Raises SettingsError for the first package that is not installed; `extra` of clipmill brings it along."""
    for package in packages:
        if not installed(package):
            raise SettingsError(f"needs the package {package}: pip install 'clipmill[{extra}]'")
