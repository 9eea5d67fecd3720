"""Whether `cdc`, `sinks` and `schemas` are ours: PyPI has other packages of these names.

Another distribution that was installed over ours, or a folder of that name in the working
directory, would be run in our place and fail in odd ways. Found at start, named, refused.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cdc.errors import ConfigError

__all__ = ["PACKAGES", "check_packages"]

PACKAGES = ("cdc", "sinks", "schemas")


def check_packages(home: Path | None = None) -> None:
    """Raise `errors.ConfigError` naming the intruder when a package is not ours.

    Ours lie side by side: `home` is the folder that holds this very package.
    """
    own = (home or Path(__file__).parents[2]).resolve()
    for name in PACKAGES:
        spec = find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not places:
            raise ConfigError(
                f"the package `{name}` is missing from this installation",
                hint="pip install --force-reinstall tailrace",
            )
        if Path(places[0]).resolve() != own / name:
            raise ConfigError(
                f"`{name}` is not Tailrace's: Python finds {places[0]}{_owner(name)} first",
                hint=f"Uninstall that distribution, or start `cdc` where no folder `{name}` lies; "
                "best in a virtual environment of its own.",
            )


def _owner(name: str) -> str:
    from importlib.metadata import packages_distributions  # noqa: PLC0415 - slow; only on failure

    owners = [d for d in packages_distributions().get(name, []) if d != "tailrace"]
    return f" of the distribution {', '.join(owners)}" if owners else ""
