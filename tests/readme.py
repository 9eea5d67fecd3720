"""The README's sections that are made of measurements kept in this repository.

    make readme                     # write them anew

A section stands between `<!-- NAME: ... -->` and `<!-- /NAME -->`; a test holds it to its data.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def section(text: str, name: str) -> str:
    """What stands between the markers of `name`. Raises `LookupError` where there are none."""
    return _found(text, name)[2]


def replaced(text: str, name: str, body: str) -> str:
    """Put `body` between the markers of `name`. Raises `LookupError` where there are none."""
    found = _found(text, name)
    return f"{text[: found.start(2)]}{body}{text[found.end(2) :]}"


def _found(text: str, name: str) -> re.Match[str]:
    pattern = rf"(<!-- {name}: [^>]*-->\n)(.*?)(<!-- /{name} -->)"
    found = re.search(pattern, text, re.DOTALL)
    if found is None:
        raise LookupError(f"there is no section {name} in the text")
    return found


def sections() -> dict[str, Callable[[], str]]:
    """What writes each section, by name; one line for a new one."""
    from bench.section import markdown as speed
    from crash.section import markdown as proof

    return {"speed": speed, "proof": proof}


def main() -> int:
    """Write all sections anew."""
    text = README.read_text("utf-8")
    for name, body in sections().items():
        text = replaced(text, name, body())
    README.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
