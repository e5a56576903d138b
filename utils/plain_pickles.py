"""Pickles of plain values, read without an unpickler: they run no code, come to an end and take a bounded memory.

A pickle is a program for a machine with a stack, and an unpickler runs it: it calls whatever function the file names.
`torch.load(weights_only=True)` calls some dozens only, but those suffice for a file of a kilobyte to take all memory
(`bytearray`) or to run for ever (hashes of nested tuples). Here the operations that build plain values are carried out
one by one, the names that the caller knows stand for what the caller says, and everything else ends the reading.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

MOST_OPERATIONS = 2_000_000
"""Bound of a pickle, some seconds; a tensor takes about 30."""

LARGEST_KEY = 2**48
"""Bound of a number as a key of a dict. From 2^61 - 1 on, many could have the same hash, which takes for ever; PyTorch
before 1.6 keyed the state of an optimiser by addresses in memory, of up to 47 bits."""

LEAST_BYTES = {str: 1, bytes: 1, list: 16, dict: 16}
"""Of a pickle, that a letter, a byte or an entry takes: half of them at least."""

SAYS_NOTHING = ("PROTO", "FRAME")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
LITERALS = frozenset([*NUMBERS, *TEXTS, *BYTES])


def read_pickle(
    file: BinaryIO,
    named: Mapping[str, Any],
    stored: Callable[[Any], Any] | None = None,
    restore: Callable[[Any, Any], None] | None = None,
    most: int = MOST_OPERATIONS,
) -> Any:
    """The value of the pickle that begins where `file` stands; the file then stands behind it.

    Args:
        named: what names such as "collections.OrderedDict" stand for. A pickle may call those that can be called, with
            any arguments.
        stored: gives what is kept outside of the pickle, from what the pickle says of it (its "persistent id").
        restore: takes an object and the state that the pickle gives it after it was made.
        most: how many operations the pickle may have.

    Raises: `ValueError`, or what the functions in `named` raise, for a pickle that is damaged or of anything else.
    """
    machine = _Machine(named, stored, restore)
    begin = file.tell()
    for operation, argument, place in operations(file, most):
        machine.carry_out(operation, argument)
        # What stands in the pickle once could be the argument of a million calls. Some is of two: text becomes bytes,
        # and they a storage.
        if machine.num_given > 2 * (place - begin):
            raise ValueError("its pickle calls functions with more than it holds")
    return machine.take(1)[0]


def operations(file: BinaryIO, most: int = MOST_OPERATIONS) -> Iterator[tuple[str, Any, int]]:
    """The operations of the pickle that begins where `file` stands: name in `pickletools`, argument, where it stands.

    Raises: `ValueError` for a damaged pickle, or one of more than `most` operations.
    """
    for count, (operation, argument, place) in enumerate(pickletools.genops(file)):
        if count == most:
            raise ValueError(f"its pickle has more than {most} operations")
        if operation.name != "STOP":
            yield operation.name, argument, place


class _Machine:
    """The stack on which a pickle builds its value, and the memo of parts to come back to.

    Attributes:
        num_given: about how many bytes of a pickle the arguments of all calls would take, if none were given twice.
    """

    def __init__(
        self,
        named: Mapping[str, Any],
        stored: Callable[[Any], Any] | None,
        restore: Callable[[Any, Any], None] | None,
    ) -> None:
        self.named, self.stored, self.restore = named, stored, restore
        self.num_given = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def carry_out(self, operation: str, argument: Any) -> None:
        """One operation, by its name in `pickletools`; `ValueError` for those that plain values do not need."""
        match operation:
            case _ if operation in SAYS_NOTHING:
                pass
            case _ if operation in LITERALS:
                self.stack.append(argument)
            case _ if operation in CONSTANTS:
                self.stack.append(CONSTANTS[operation])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.remembered(argument))
            case "MARK":
                self.marks.append(len(self.stack))
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.take(int(operation[-1]))))
            case "TUPLE":
                self.stack.append(tuple(self.take_to_mark()))
            case "EMPTY_LIST":
                self.stack.append([])
            case "LIST":
                self.stack.append(self.take_to_mark())
            case "APPEND":
                self.extend(self.take(1))
            case "APPENDS":
                self.extend(self.take_to_mark())
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                pairs = self.take_to_mark()
                self.stack.append({})
                self.set_items(pairs)
            case "SETITEM":
                self.set_items(self.take(2))
            case "SETITEMS":
                self.set_items(self.take_to_mark())
            case "GLOBAL":
                self.stack.append(self.known(argument.split(" ")))
            case "STACK_GLOBAL":
                self.stack.append(self.known(self.take(2)))
            case "REDUCE" | "NEWOBJ":
                self.call()
            case "BUILD" if self.restore:
                (state,) = self.take(1)
                self.restore(self.top(), state)
            case "BINPERSID" if self.stored:
                self.stack.append(self.stored(*self.take(1)))
            case _:
                raise ValueError(f"its pickle does more than build plain values ({operation})")

    def top(self) -> Any:
        """The last value, which stays."""
        if not self.stack:
            raise ValueError("its pickle is damaged")
        return self.stack[-1]

    def take(self, count: int) -> list[Any]:
        """The last `count` >= 1 values, off the stack."""
        if len(self.stack) < count:
            raise ValueError("its pickle is damaged")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def take_to_mark(self) -> list[Any]:
        """All values since the last mark, off the stack."""
        if not self.marks:
            raise ValueError("its pickle is damaged")
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def remembered(self, number: int) -> Any:
        """What was put into the memo under this number."""
        if number not in self.memo:
            raise ValueError("its pickle is damaged")
        return self.memo[number]

    def known(self, parts: list[Any]) -> Any:
        """What a name of two parts, a module's and one in it, stands for."""
        if not all(type(part) is str for part in parts):
            raise ValueError("its pickle is damaged")
        name = ".".join(parts)
        if name not in self.named:
            raise ValueError(f"it refers to {name}")
        return self.named[name]

    def extend(self, values: list[Any]) -> None:
        """Append to the list on top."""
        target = self.top()
        if type(target) is not list:
            raise ValueError(f"its pickle appends to a {type(target).__name__}")
        target.extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        """Fill the dict on top from key, value, key, value, ..."""
        target = self.top()
        if type(target) not in (dict, OrderedDict) or len(pairs) % 2:
            raise ValueError(f"its pickle sets entries of a {type(target).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            check_key(key)
            target[key] = value

    def call(self) -> None:
        """Call what is below the arguments on top. Only what the caller has named can be called at all."""
        function, arguments = self.take(2)
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"its pickle calls a {type(function).__name__}")
        for argument in arguments:
            if type(argument) in LEAST_BYTES:
                self.num_given += LEAST_BYTES[type(argument)] * len(argument)
        self.stack.append(function(*arguments))


def check_key(key: Any) -> None:
    """Make sure that a value can be a key of a dict without more ado; `TypeError` if it is not text or a number."""
    if type(key) is not str and not (type(key) in (int, bool) and -LARGEST_KEY < key < LARGEST_KEY):
        raise TypeError("it holds a dict with a key that is neither text nor a small number")
