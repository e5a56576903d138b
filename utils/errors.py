"""The one exception that a user is meant to see, and how the scripts show it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: one sentence that names the thing, what was expected and what to do.

    Raised before any work is lost; the scripts print the sentence and exit with code 2.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` into its sentence on standard error and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
