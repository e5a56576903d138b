"""Split files in JSON, {split: [member, ...]}, read member by member: what is not kept of one is gone with the next."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_json_text, reading_json
from utils.problems import shorten

MOST_SPLIT_BYTES = 500_000_000
"""Of a split file; Tiny-Taskonomy's has 270 million, or 360 million with short absolute paths."""

BLANKS = re.compile(r"[ \t\n\r]*")
DECODER = json.JSONDecoder()


def read_members(path: Path, form: str) -> Iterator[tuple[str, Iterator[Any]]]:
    """The splits of a file in its order, each as name and members; one's members must be used up before the next.

    Takes twice the size of the file while it reads, then once, and whatever is kept of the members.

    Args:
        form: what the file must look like, for messages.

    Raises: UserError if the file cannot be read, is no JSON or is not of the form {split: [member, ...]}.
    """
    with reading_json(path):
        place = _Place(read_json_text(path, MOST_SPLIT_BYTES))
        if not place.passes("{"):
            found = type(place.value()).__name__
            raise UserError(f"{path} holds a {found}, but must be of the form {form}: rewrite it")
        seen: set[str] = set()
        for _ in place.each_up_to("}"):
            split = place.text_and_colon()
            if split in seen:
                raise ValueError(f"the key {shorten(repr(split))} stands there twice")
            seen.add(split)
            if not place.passes("["):
                raise UserError(
                    f"split '{shorten(split)}' of {path} is not a list, but must be of the form {form}: rewrite it"
                )
            yield split, _members(path, place)
        place.refuse_more()


def _members(path: Path, place: "_Place") -> Iterator[Any]:
    """The values up to the end of the list that begins here."""
    with reading_json(path):
        for _ in place.each_up_to("]"):
            yield place.value()


class _Place:
    """A place in a JSON text, which moves on."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def passes(self, sign: str) -> bool:
        """Move behind blanks, and behind the sign if it stands there; returns whether it does."""
        self.position = BLANKS.match(self.text, self.position).end()
        stands = self.text.startswith(sign, self.position)
        self.position += len(sign) * stands
        return stands

    def each_up_to(self, closing: str) -> Iterator[None]:
        """Stop before each of the values that commas part, then move behind the closing bracket."""
        if self.passes(closing):
            return
        yield
        while self.passes(","):
            yield
        if not self.passes(closing):
            raise self.error(f"Expecting ',' or '{closing}'")

    def value(self) -> Any:
        """The value that stands here."""
        self.passes("")
        found, self.position = DECODER.raw_decode(self.text, self.position)
        return found

    def text_and_colon(self) -> str:
        """The key that stands here."""
        self.passes("")
        if not self.text.startswith('"', self.position):
            raise self.error("Expecting a key in double quotes")
        key = self.value()
        if not self.passes(":"):
            raise self.error("Expecting ':'")
        return key

    def refuse_more(self) -> None:
        """Raise an error unless the text ends here."""
        self.passes("")
        if self.position < len(self.text):
            raise self.error("Extra data")

    def error(self, problem: str) -> json.JSONDecodeError:
        """What is wrong at this place, with its line."""
        return json.JSONDecodeError(problem, self.text, self.position)
