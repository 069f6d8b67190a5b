"""Follow the opcodes of a pickle without creating objects, and refuse one that would take too much time or memory.

torch's restricted unpickler keeps code out, but not cost: a few bytes can ask for a key whose hash takes 2^40 steps, or
for a tensor of a terabyte over a single number. The values here hold only what is needed to see that: integers and
tuples as they are, and the origin of all others.
"""

from __future__ import annotations

import math
import pickletools
from typing import IO, NamedTuple, TypeAlias

MOST_BYTES = 1 << 25  # of a pickle; published checkpoints with an optimizer's state have less than 1 MB
_MOST_STEPS = 1_000_000  # checkpoints of the largest network with an optimizer have 50,000
_MOST_WORK = 20_000_000  # values that hashing or comparing all tuples may visit
_MOST_EDGES = 8  # of a tensor
_LENGTHS = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_REBUILD = "torch._utils._rebuild_tensor"
_MADE_OF_ANYTHING = {  # these walk through their arguments
    "builtins set", "__builtin__ set", "builtins bytearray", "__builtin__ bytearray", "collections Counter",
    "collections OrderedDict", "torch Size", "builtins complex", "__builtin__ complex",
}  # fmt: skip


class CostlyError(ValueError):
    """Opening the pickle would take too much time or memory; the message says why."""


class _Tuple(NamedTuple):
    """A tuple on the stack.

    Args:
        items: its values.
        work: the number of values in it and in nested tuples, counted as often as they occur.
    """

    items: tuple[Value, ...]
    work: int


class _Other(NamedTuple):
    """Any other value on the stack.

    Args:
        what: the name of a class or function, "storage", "tensor", "text" or "".
        numel: the number of values of a storage.
    """

    what: str = ""
    numel: int | None = None


_ANY = _Other()
Value: TypeAlias = _Tuple | _Other | int


def check(stream: IO[bytes]) -> None:
    """Raise CostlyError for a pickle that must not be opened; torch reports a damaged one.

    Args:
        stream: at the start of the pickle; afterwards at its end.
    """
    state = _State()
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if steps > _MOST_STEPS:
            raise CostlyError(f"it has more than {_MOST_STEPS:,} steps")
        state.step(opcode, argument)


class _State:
    def __init__(self) -> None:
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[object, Value] = {}
        self._work = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        name = opcode.name
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "TUPLE" or name in _LENGTHS:
            self._push_tuple(self._pop_mark() if name == "TUPLE" else self._pop(_LENGTHS[name]))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if self._stack:
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            value = self._memo.get(argument, _ANY)
            self._count(value)
            self._stack.append(value)
        elif name == "REDUCE":
            arguments, function = [*self._pop(2)[::-1], _ANY, _ANY][:2]
            self._stack.append(self._reduced(function, arguments))
        elif name == "BINPERSID":
            (key,) = self._pop(1) or [_ANY]
            self._stack.append(_storage(key))
        elif name == "GLOBAL":
            self._stack.append(_Other(str(argument)))
        elif isinstance(argument, int) and opcode.stack_after and not opcode.stack_before:
            self._stack.append(argument)
        else:
            self._generic(opcode)

    def _generic(self, opcode: pickletools.OpcodeInfo) -> None:
        """Apply the effect of an opcode on the stack, by the table of ``pickletools``."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._pop_mark()
            self._pop(before.index(pickletools.markobject) - len(opcode.stack_after))
            if not opcode.stack_after:
                return
            kept = 1 if before[0] is not pickletools.markobject else 0
            if not kept:
                self._stack.append(_ANY)
            return
        if opcode.name in ("APPEND", "SETITEM", "BUILD"):
            self._pop(len(before) - 1)
            return
        self._pop(len(before))
        self._stack.extend([_ANY] * len(opcode.stack_after))

    def _pop(self, count: int) -> list[Value]:
        if count <= 0:
            return []
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_mark(self) -> list[Value]:
        start = self._marks.pop() if self._marks else 0
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _push_tuple(self, items: list[Value]) -> None:
        work = 1 + sum(item.work if isinstance(item, _Tuple) else 1 for item in items)
        value = _Tuple(tuple(items), work)
        self._count(value)
        self._stack.append(value)

    def _count(self, value: Value) -> None:
        self._work += value.work if isinstance(value, _Tuple) else 1
        if self._work > _MOST_WORK:
            raise CostlyError("its tuples are nested too often")

    def _reduced(self, function: Value, arguments: Value) -> Value:
        name = function.what if isinstance(function, _Other) else ""
        items = arguments.items if isinstance(arguments, _Tuple) else ()
        if name in _MADE_OF_ANYTHING and any(isinstance(item, _Other) and item.what == "tensor" for item in items):
            raise CostlyError(f"{name.partition(' ')[2]} would be made from a tensor")
        if name.endswith(" bytearray") and any(isinstance(item, int) for item in items):
            raise CostlyError("it asks for memory by a number")
        if name.startswith("torch ") and name.endswith(("Tensor", "Storage")) and items:
            raise CostlyError("it makes a tensor from values that are not in the file")
        if name.replace(" ", ".").startswith(_REBUILD):
            _check_tensor(items)
        return _Other("tensor") if name.startswith("torch._utils ") else _ANY


def _storage(key: Value) -> _Other:
    """The storage of a persistent id ("storage", its class, its key, its device, its number of values)."""
    items = key.items if isinstance(key, _Tuple) else ()
    numel = items[4] if len(items) > 4 and isinstance(items[4], int) else None
    return _Other("storage", numel)


def _check_tensor(items: tuple[Value, ...]) -> None:
    """Raise CostlyError for a tensor that has more values than its storage."""
    if len(items) < 3 or not isinstance(items[0], _Other) or not isinstance(items[2], _Tuple):
        return
    numel = items[0].numel
    shape = tuple(edge for edge in items[2].items if isinstance(edge, int))
    if len(shape) < len(items[2].items):
        return
    check_shape(shape)
    if numel is not None and math.prod(shape) > numel:
        raise CostlyError(f"a tensor of shape {'×'.join(map(str, shape))} has only {numel:,} values")


def check_shape(shape: tuple[int, ...] | list[int]) -> None:
    """Raise CostlyError for a shape that no tensor has."""
    if len(shape) > _MOST_EDGES:
        raise CostlyError(f"a tensor has {len(shape)} dimensions")
    if not all(0 <= edge < 1 << 63 for edge in shape):
        raise CostlyError("a tensor has a dimension below 0, or of 2^63 or more")
