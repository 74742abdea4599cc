"""A reader of pickles that builds plain data, calls nothing but what its user hands it, and stops at a limit.

A pickle is a program for a stack machine. Python's own machine trusts it: 13 bytes make it allocate gigabytes (an index of
the memo), nested keys make it hash for ever. This one runs the same instructions (pickletools.py of CPython describes them)
with a budget: so many instructions, and as much memory as the file is long, and 64 MB.
"""

from __future__ import annotations

import gc
import re
import struct
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

SPARE = 64 << 20  # bytes, beside as many as the pickle has
MOST_DIGITS = 300  # of a number as text; Python takes quadratic time for them
MOST_ARGUMENTS = 16
MOST_NAMES = 1000
LONGEST_LINE = 1000  # of the names of a class

# What objects take in CPython on 64 bits, rounded up.
NUMBER, CONTAINER, TEXT = 32, 88, 72


class Inert:
    """Stands for an object that nobody needs. kind: the full name of its class, "" when unknown."""

    __slots__ = ("kind",)

    def __init__(self, kind: str = "") -> None:
        self.kind = kind

    def __call__(self, *args: Any) -> Inert:
        return self


NOTHING = Inert()


class Restored:
    """Base of what takes the state that a pickle gives it."""

    __slots__ = ()

    def restore(self, state: Any, machine: Machine) -> None:
        raise NotImplementedError


class Machine:
    """Runs one pickle out of `data`, from `start`; `load` gives its value, and `position` is then behind it.

    data: the whole file, or its beginning. find(module, name): what a name stands for; when the pickle calls it, it is
    called with at most 16 arguments. persistent(id): what the file's own reference stands for.
    """

    STRICT = False  # whether every key must be text; others are left out
    # Half a second; the network's checkpoint takes 35,000, with an optimizer's state and a moving average 160,000.
    INSTRUCTIONS = 400_000

    def __init__(
        self,
        data: bytes,
        start: int,
        find: Callable[[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.position = data, start
        self._find, self._persistent = find, persistent
        self._spare = len(data) - start + SPARE
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._names: dict[tuple[str, str], Any] = {}
        self._done = 0

    def load(self) -> Any:
        """Raises UnpicklingError, or what `find` and `persistent` raise."""
        data, run = self.data, RUN
        collects = gc.isenabled()
        gc.disable()  # it would look at everything again and again, while nothing becomes free
        try:
            for done in range(self.INSTRUCTIONS):
                code = data[self.position]
                self.position += 1
                if code == 0x2E:  # STOP
                    value = self._stack.pop()
                    self.data, self._stack, self._memo = b"", [], []  # what it was made of is needed no longer
                    return value
                self._done = done
                run[code](self)
        except (IndexError, ValueError, struct.error) as error:  # nothing left of the data, the stack or the marks; no text
            raise UnpicklingError("its pickle is cut off or damaged") from error
        finally:
            if collects:
                gc.enable()
        raise UnpicklingError(f"its pickle has more than {self.INSTRUCTIONS:,} instructions")

    def charge(self, size: int) -> None:
        """Take `size` bytes off the budget of memory, before they are allocated."""
        self._spare -= size
        if self._spare < 0:
            raise UnpicklingError("what it unpickles to is many times as large as the file")

    # --- reading

    def _take(self, size: int) -> bytes:
        start = self.position
        if not 0 <= size <= len(self.data) - start:
            raise UnpicklingError("its pickle is cut off")
        self.charge(size + TEXT)
        self.position = start + size
        return bytes(self.data[start : self.position])

    def _unpack(self, code: struct.Struct) -> Any:
        (value,) = code.unpack_from(self.data, self.position)
        self.position += code.size
        return value

    def _line(self, longest: int | None = None) -> bytes:
        end = self.data.find(b"\n", self.position, None if longest is None else self.position + longest + 1)
        if end < 0:
            raise UnpicklingError("one of its lines is too long, or has no end")
        line = self._take(end - self.position)
        self.position = end + 1
        return line

    def _name(self) -> str:
        return self._line(LONGEST_LINE).decode("utf-8")

    def _text(self, size: int) -> None:
        raw = self._take(size)
        if not raw.isascii():
            self.charge(4 * size)  # one character beyond 16 bits makes all of them take 32
        self._stack.append(raw.decode("utf-8", "surrogatepass"))

    def _latin(self, raw: bytes) -> None:
        self.charge(2 * len(raw) if len(raw) > LONGEST_LINE else 0)
        self._stack.append(raw.decode("latin-1"))  # byte strings of Python 2 are any bytes

    # --- the stack

    def _push(self, value: Any, size: int = 0) -> None:
        if size:
            self.charge(size)
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        """All above the last mark, taken off."""
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise UnpicklingError("its pickle takes more off its stack than there is")
        return self._stack.pop()

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _discard(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _tuple(self, count: int) -> None:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise UnpicklingError("its pickle takes more off its stack than there is")
        items = tuple(self._stack[start:])
        del self._stack[start:]
        self._push(items, CONTAINER)

    def _container(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._marked()
        self.charge(CONTAINER + 8 * len(items))
        self._stack.append(make(items))

    # --- the memo

    def _put(self, index: int) -> None:
        # Who writes a pickle counts up: no index can be above the number of instructions so far.
        if not 0 <= index <= self._done:
            raise UnpicklingError(f"its memo has no place {index}")
        if index >= len(self._memo):
            self._memo.extend([NOTHING] * (index + 1 - len(self._memo)))
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if not 0 <= index < len(self._memo):
            raise UnpicklingError(f"its memo has no place {index}")
        self._stack.append(self._memo[index])

    # --- numbers as text

    def _number(self, convert: Callable[[bytes], Any]) -> None:
        line = self._line(MOST_DIGITS)
        try:
            self._push(convert(line), NUMBER)
        except ValueError as error:
            raise UnpicklingError("one of its numbers is malformed") from error

    # --- containers

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            self.charge(12 * len(items))
            target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict:
            fill(target, items[::2], items[1::2], self)

    def _dict(self) -> None:
        items = self._marked()
        self._push({}, CONTAINER)
        self._set_items(items)

    # --- names and calls

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > 2 * LONGEST_LINE:
            raise UnpicklingError("it asks for something that is no name")
        if (module, name) not in self._names:
            if len(self._names) == MOST_NAMES:
                raise UnpicklingError(f"its pickle names more than {MOST_NAMES:,} classes")
            self._names[module, name] = self._find(module, name)
        self._stack.append(self._names[module, name])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _call(self, function: Any, args: Any) -> None:
        self.charge(2 * CONTAINER)
        if isinstance(function, Inert):
            self._stack.append(function)
        elif callable(function) and type(args) is tuple and len(args) <= MOST_ARGUMENTS:
            self._stack.append(function(*args))
        else:
            self._stack.append(NOTHING)

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        self._call(function, args)

    def _new_extended(self) -> None:
        _, args, function = self._pop(), self._pop(), self._pop()
        self._call(function, args)

    def _object(self) -> None:
        function, *args = self._marked() or [NOTHING]
        self._call(function, tuple(args))

    def _instance(self) -> None:
        args = self._marked()
        self._global(self._name(), self._name())
        self._call(self._stack.pop(), tuple(args))

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Restored):
            target.restore(state, self)

    def _persist(self, key: Any) -> None:
        if self._persistent is None:
            raise UnpicklingError("it refers to something outside the file")
        self.charge(2 * CONTAINER)
        self._stack.append(self._persistent(key))


def fill(table: dict[str, Any], keys: list[Any], values: list[Any], machine: Machine) -> None:
    """Put pairs into `table`. Keys that are no text are left out, or refused: hashing others can take for ever."""
    if len(keys) != len(values):
        raise UnpicklingError("its pickle has a key without a value")
    machine.charge(CONTAINER * len(keys))
    if machine.STRICT and not all(type(key) is str for key in keys):
        raise UnpicklingError("one of its keys is no text")
    table.update((key, value) for key, value in zip(keys, values, strict=True) if type(key) is str)


def _integer(line: bytes) -> Any:
    return {b"00": False, b"01": True}[line] if line in {b"00", b"01"} else int(line)


def _unescaped(line: bytes) -> bytes:
    """The bytes of a string as Python 2 wrote it, with quotes and escapes."""
    line = line.strip()
    if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
        raise UnpicklingError("one of its strings has no quotes")
    escapes = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\n": b""}

    def replaced(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code[1:], 16)]) if code[:1] == b"x" else escapes.get(code, code)

    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", replaced, line[1:-1], flags=re.DOTALL)


def _refuse(code: int) -> Callable[[Machine], None]:
    def refuse(machine: Machine) -> None:
        raise UnpicklingError(f"its pickle has an instruction {code:#04x} that no checkpoint needs")

    return refuse


def _instructions() -> list[Callable[[Machine], None]]:
    """What each byte does, by the names of pickletools.py."""
    u1, u2, u4, u8 = (struct.Struct(code) for code in ("<B", "<H", "<I", "<Q"))
    i4, real = struct.Struct("<i"), struct.Struct(">d")
    table: dict[bytes, Callable[[Machine], Any]] = {
        # PROTO, FRAME
        b"\x80": lambda m: m._unpack(u1),
        b"\x95": lambda m: m._unpack(u8),
        # NONE, NEWTRUE, NEWFALSE, INT, BININT, BININT1, BININT2, LONG, LONG1, LONG4, FLOAT, BINFLOAT
        b"N": lambda m: m._push(None),
        b"\x88": lambda m: m._push(True),
        b"\x89": lambda m: m._push(False),
        b"I": lambda m: m._number(_integer),
        b"J": lambda m: m._push(m._unpack(i4), NUMBER),
        b"K": lambda m: m._push(m._unpack(u1)),
        b"M": lambda m: m._push(m._unpack(u2), NUMBER),
        b"L": lambda m: m._number(lambda line: int(line.rstrip(b"L"))),
        b"\x8a": lambda m: m._push(int.from_bytes(m._take(m._unpack(u1)), "little", signed=True)),
        b"\x8b": lambda m: m._push(_long(m, m._unpack(i4))),
        b"F": lambda m: m._number(float),
        b"G": lambda m: m._push(m._unpack(real), NUMBER),
        # STRING, BINSTRING, SHORT_BINSTRING, UNICODE, BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
        b"S": lambda m: m._latin(_unescaped(m._line())),
        b"T": lambda m: m._latin(m._take(m._unpack(i4))),
        b"U": lambda m: m._latin(m._take(m._unpack(u1))),
        b"V": _unicode_line,
        b"X": lambda m: m._text(m._unpack(u4)),
        b"\x8c": lambda m: m._text(m._unpack(u1)),
        b"\x8d": lambda m: m._text(m._unpack(u8)),
        # BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
        b"B": lambda m: m._push(m._take(m._unpack(u4))),
        b"C": lambda m: m._push(m._take(m._unpack(u1))),
        b"\x8e": lambda m: m._push(m._take(m._unpack(u8))),
        b"\x96": lambda m: m._push(m._take(m._unpack(u8))),
        # MARK, POP, POP_MARK, DUP
        b"(": Machine._mark,
        b"0": Machine._discard,
        b"1": lambda m: m._marked() and None,
        b"2": lambda m: m._push(m._stack[-1]),
        # EMPTY_TUPLE, TUPLE1 to TUPLE3, TUPLE, EMPTY_LIST, LIST, EMPTY_DICT, DICT, EMPTY_SET, FROZENSET
        b")": lambda m: m._push(()),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"t": lambda m: m._container(tuple),
        b"]": lambda m: m._push([], CONTAINER),
        b"l": lambda m: m._container(list),
        b"}": lambda m: m._push({}, CONTAINER),
        b"d": Machine._dict,
        b"\x8f": lambda m: m._push(NOTHING),
        b"\x91": lambda m: m._container(lambda items: NOTHING),
        # APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS
        b"a": lambda m: m._append([m._pop()]),
        b"e": lambda m: m._append(m._marked()),
        b"s": lambda m: m._set_items([m._pop(), m._pop()][::-1]),
        b"u": lambda m: m._set_items(m._marked()),
        b"\x90": lambda m: m._marked() and None,
        # PUT, BINPUT, LONG_BINPUT, MEMOIZE, GET, BINGET, LONG_BINGET
        b"p": lambda m: m._put(int(m._line(12))),
        b"q": lambda m: m._put(m._unpack(u1)),
        b"r": lambda m: m._put(m._unpack(u4)),
        b"\x94": lambda m: m._put(len(m._memo)),
        b"g": lambda m: m._get(int(m._line(12))),
        b"h": lambda m: m._get(m._unpack(u1)),
        b"j": lambda m: m._get(m._unpack(u4)),
        # GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST, BUILD, PERSID, BINPERSID
        b"c": lambda m: m._global(m._name(), m._name()),
        b"\x93": Machine._stack_global,
        b"R": Machine._reduce,
        b"\x81": Machine._reduce,
        b"\x92": Machine._new_extended,
        b"o": Machine._object,
        b"i": Machine._instance,
        b"b": Machine._build,
        b"P": lambda m: m._persist(m._name()),
        b"Q": lambda m: m._persist(m._pop()),
    }
    return [table.get(bytes([code])) or _refuse(code) for code in range(256)]


def _long(machine: Machine, size: int) -> int:
    if not 0 <= size <= 255:
        raise UnpicklingError("one of its numbers has too many digits")
    return int.from_bytes(machine._take(size), "little", signed=True)


def _unicode_line(machine: Machine) -> None:
    line = machine._line()
    machine.charge(4 * len(line) if b"\\" in line or not line.isascii() else len(line))
    machine._stack.append(line.decode("raw-unicode-escape"))


RUN = _instructions()
