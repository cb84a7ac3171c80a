"""The loops that are timed, with the user's code inside.

The two loops of a pair differ only in this: one creates and drops each object, the other gets it from a pool and puts
it back.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .user_code import TOGETHER, UserCode

Loop = Callable[[Iterator[None]], None]
"""Runs once for each item of its argument."""

Timed = Callable[[Iterator[None]], tuple[float, float]]
"""Like `Loop`; returns the seconds spent with and without the operation that is timed."""

# The names are such that the user's code does not use them.
_FRESH_ONE = """
def loop(_aiopool_times):
    for _ in _aiopool_times:
        obj = CREATE
        USE
        del obj
"""

_POOLED_ONE = """
def loop(_aiopool_times, _aiopool_get=_aiopool_get, _aiopool_put=_aiopool_put):
    for _ in _aiopool_times:
        obj = _aiopool_get()
        USE
        _aiopool_put(obj)
        del obj
"""

_FRESH_MANY = """
def loop(_aiopool_times, _aiopool_count=_aiopool_count):
    for _ in _aiopool_times:
        _aiopool_held = []
        for _ in range(_aiopool_count):
            obj = CREATE
            USE
            _aiopool_held.append(obj)
        del obj
        while _aiopool_held:
            _aiopool_held.pop()
"""

_POOLED_MANY = """
def loop(_aiopool_times, _aiopool_count=_aiopool_count, _aiopool_get=_aiopool_get, _aiopool_put=_aiopool_put):
    for _ in _aiopool_times:
        _aiopool_held = []
        for _ in range(_aiopool_count):
            obj = _aiopool_get()
            USE
            _aiopool_held.append(obj)
        del obj
        while _aiopool_held:
            _aiopool_put(_aiopool_held.pop())
"""

# With a call, as in a put. The clock is read twice for each reset; the cost of that is measured too, with no reset in
# between.
_RESET = """
def loop(_aiopool_times, _aiopool_clock=_aiopool_clock, _aiopool_reset=_aiopool_reset):
    _aiopool_seconds = _aiopool_nothing = 0.0
    obj = CREATE
    for _ in _aiopool_times:
        USE
        _aiopool_start = _aiopool_clock()
        _aiopool_end = _aiopool_clock()
        _aiopool_nothing += _aiopool_end - _aiopool_start
        _aiopool_start = _aiopool_clock()
        _aiopool_reset(obj)
        _aiopool_end = _aiopool_clock()
        _aiopool_seconds += _aiopool_end - _aiopool_start
    return _aiopool_seconds, _aiopool_nothing
"""

_CREATE = """
def create():
    return CREATE
"""

_USE = """
def use(obj):
    USE
"""

# The result of the user's expression is returned, because a pool checks it.
_RESET_ONE = """
def reset(obj):
    RETURN_RESET
"""


class Loops(NamedTuple):
    """The loops to time."""

    fresh_one: Loop
    pooled_one: Loop
    fresh_many: Loop
    pooled_many: Loop
    reset: Timed


class Functions(NamedTuple):
    """The user's code as functions, for a pool."""

    create: Callable[[], Any]
    use: Callable[[Any], Any]
    reset: Callable[[Any], Any]


def functions(code: UserCode, namespace: dict[str, Any]) -> Functions:
    """Compile the user's code as functions."""
    return Functions(*(_compiled(template, code, namespace) for template in (_CREATE, _USE, _RESET_ONE)))


def loops(
    code: UserCode,
    namespace: dict[str, Any],
    pool: Any,
    count: int,
    reset: Callable[[Any], Any],
    clock: Callable[[], float],
) -> Loops:
    """Compile the loops over `pool`, which has this `reset`. Those with many objects in flight have `count`."""
    names = {
        **namespace,
        "_aiopool_get": pool.get,
        "_aiopool_put": pool.put,
        "_aiopool_count": count,
        "_aiopool_reset": reset,
        "_aiopool_clock": clock,
    }
    templates = (_FRESH_ONE, _POOLED_ONE, _FRESH_MANY, _POOLED_MANY, _RESET)
    return Loops(*(_compiled(template, code, names) for template in templates))


def _compiled(template: str, code: UserCode, namespace: dict[str, Any]) -> Any:
    tree = ast.fix_missing_locations(_Filled(code).visit(ast.parse(template)))
    names = dict(namespace)
    exec(compile(tree, TOGETHER, "exec"), names)
    (function,) = [node.name for node in tree.body]
    return names[function]


class _Filled(ast.NodeTransformer):
    """Replaces the names in a template with the user's code."""

    def __init__(self, code: UserCode) -> None:
        self._code = code

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._code.create_tree() if node.id == "CREATE" else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        match node.value:
            case ast.Name("USE"):
                return self._code.use_tree() or ast.Pass()
            case ast.Name("RETURN_RESET"):
                return self._returning(self._code.reset_tree())
        return self.generic_visit(node)

    @staticmethod
    def _returning(statements: list[ast.stmt]) -> Any:
        match statements:
            case [ast.Expr() as only]:
                return ast.copy_location(ast.Return(only.value), only)
        return statements or ast.Pass()
