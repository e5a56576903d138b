"""What a call gives, or the sentence by which it refuses."""

from collections.abc import Callable
from typing import TypeVar

from utils.errors import UserError

T = TypeVar("T")


def result_or_sentence(call: Callable[[], T]) -> T | str:
    """The result, or the text of the `UserError`; any other exception passes through and fails the test."""
    try:
        return call()
    except UserError as error:
        return str(error)
