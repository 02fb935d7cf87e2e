"""Optional packages: imported when used, and the pip line where one is missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from llmal.errors import MissingExtra


def need(package: str, *, extra: str, why: str) -> Any:
    """Import an optional package, or say which pip line brings it.

    Args:
        package: module name.
        extra: the extra of llmal that has it.
        why: what it is needed for, as the end of "... is needed".

    Raises:
        MissingExtra: the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(
            f"the package {package} is needed {why}", hint=f'Install it with: pip install "llmal[{extra}]"'
        )
    return importlib.import_module(package)


def openvino(*, why: str) -> Any:
    """Import openvino without its telemetry, which would tell a server of the import itself.

    Raises:
        MissingExtra: the package is not installed.
    """
    telemetry = "openvino_telemetry"
    absent = telemetry not in sys.modules
    if absent:  # its import then fails, and openvino uses its own stand-in
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return need("openvino", extra="openvino", why=why)
    finally:
        if absent:
            del sys.modules[telemetry]
