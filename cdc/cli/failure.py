"""How a command fails: one line on standard error, the remedy below it, a documented exit code.

With `--json` the same is one JSON object on standard error. A traceback only with `--debug`.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from cdc.errors import CdcError, exit_code_for

__all__ = ["fail"]

_USAGE = 2


def fail(error: Exception, *, as_json: bool) -> int:
    """Show any error and return the exit code of the process."""
    if isinstance(error, CdcError):
        return _ended(error, as_json=as_json)
    if isinstance(error, typer.TyperException):
        return _misused(error, as_json=as_json)
    if isinstance(error, PermissionError):
        return _refused(error, as_json=as_json)
    return _internal(error, as_json=as_json)


def _ended(error: CdcError, *, as_json: bool) -> int:
    """Show an error of ours and return its exit code."""
    return _show(str(error), error.hint, exit_code_for(error), as_json=as_json)


def _misused(error: typer.TyperException, *, as_json: bool) -> int:
    """Show a mistake on the command line."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return _USAGE
    path = context.command_path if context is not None else "cdc"
    message = error.format_message()
    return _show(message, f"See: {path} --help", _USAGE, as_json=as_json)


def _refused(error: OSError, *, as_json: bool) -> int:
    """Show a file that may not be read or written."""
    hint = "Run as a user who may use it."
    return _show(f"{error.filename}: {error.strerror}", hint, _USAGE, as_json=as_json)


def _internal(error: Exception, *, as_json: bool) -> int:
    """Show a mistake of Tailrace itself."""
    message = f"internal error: {type(error).__name__}: {error}"
    hint = "This is a bug. Run again with `cdc --debug …` and report the traceback."
    return _show(message, hint, 1, as_json=as_json)


def _show(message: str, hint: str, code: int, *, as_json: bool) -> int:
    from cdc.logs import redact  # noqa: PLC0415 - keeps structlog out of `cdc --help`

    if os.environ.get("CDC_DEBUG"):
        print(redact(traceback.format_exc()), file=sys.stderr)
    message, hint = redact(message), redact(hint)
    if as_json:
        import orjson  # noqa: PLC0415 - same

        body = {"error": message, "hint": hint, "exit_code": code}
        print(orjson.dumps(body).decode(), file=sys.stderr)
        return code
    print(f"error: {message}", file=sys.stderr)
    for line in hint.splitlines():
        print(
            f"  hint: {line}" if line is hint.splitlines()[0] else f"        {line}",
            file=sys.stderr,
        )
    return code
