"""All that is wrong with a data set, and all that is worth a note."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from utils.errors import UserError

MOST_SENTENCES = 100
"""Faults that are told in words; a wrong data root has millions, which are counted."""

Result = TypeVar("Result")


class Findings:
    """What a check has found so far.

    Attributes:
        faults: the first sentences, each once.
        num_faults: how many there are in all.
        notes: sentences about what is no fault, each once.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.num_faults = 0
        self.notes: list[str] = []

    def add_faults(self, sentences: Iterable[str]) -> None:
        """Add what is wrong. A sentence that is already there, as of a file that several rows name, is left out."""
        for sentence in sentences:
            if sentence not in self.faults:
                self.num_faults += 1
                if len(self.faults) < MOST_SENTENCES:
                    self.faults.append(sentence)

    def add_notes(self, sentences: Iterable[str]) -> None:
        """Add what the user should know."""
        self.notes.extend(sentence for sentence in sentences if sentence not in self.notes)

    def attempt(self, action: Callable[..., Result], *arguments: object) -> Result | None:
        """The action's result, or None where it raises a `UserError`, whose sentence becomes a fault."""
        try:
            return action(*arguments)
        except UserError as error:
            self.add_faults([str(error)])
            return None

    def report(self) -> str:
        """How many faults there are, and a line for each, as far as they are kept."""
        noun = "fault" if self.num_faults == 1 else "faults"
        lines = [f"{self.num_faults} {noun}", *self.faults]
        if self.num_faults > len(self.faults):
            lines.append(f"... and {self.num_faults - len(self.faults)} more")
        return "\n  ".join(lines)


def first_ones(names: Iterable[str], count: int = 3) -> str:
    """The first few of the names, for a sentence."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
