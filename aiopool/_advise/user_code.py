"""The user's expression and statements: compiled, and with errors that show the user's line.

The code is kept as syntax trees, so that `loops` can insert it into the loops that are timed. (Calling a function would
cost more than creating many objects.) The trees keep the positions in the user's text, so a traceback points there.
"""

import ast
import linecache
import traceback
from collections.abc import Callable, Sequence
from types import CodeType, TracebackType
from typing import Any, NamedTuple

EXPRESSION, IMPORT, USE, RESET = "expression", "--import", "--use", "--reset"

TOGETHER = "your code"
"""A file name for expression, use and reset together, because a traceback looks for a function's lines in one file."""


class UserCodeError(Exception):
    """The user's code failed. The message shows the user's line."""


class UserCode(NamedTuple):
    """The user's code, and its syntax trees."""

    #: creates an object
    create: str
    #: what follows `import` in an import statement
    imports: Sequence[str]
    #: a statement that uses `obj`, or nothing
    use: str
    #: a statement that restores `obj`, or nothing
    reset: str

    def check(self) -> None:
        """Find syntax errors before anything starts.

        :raises UserCodeError: there is a syntax error.
        """
        if not self.create.strip():
            raise UserCodeError("the expression is empty: say what creates an object, such as 'list()'")
        # Each separately and not inside a function, where `return` would be allowed and would end the timed loop.
        _compiled(self.create, EXPRESSION, "eval")
        for text, place in ((self.use, USE), (self.reset, RESET)):
            _compiled(text, place, "exec")
            if _assigns_obj(text):
                raise UserCodeError(
                    f"{place} assigns or deletes `obj`, which goes back to the pool: change it in place"
                )
        for each in self.imports:
            _compiled(f"import {each}", IMPORT, "exec")

    def create_tree(self) -> ast.expr:
        """The syntax tree of the expression."""
        return ast.parse(self.create.strip(), TOGETHER, "eval").body

    def use_tree(self) -> list[ast.stmt]:
        """The syntax trees of the statements that use an object."""
        return _statements(self.use, after=[self.create])

    def reset_tree(self) -> list[ast.stmt]:
        """The syntax trees of the statements that reset an object."""
        return _statements(self.reset, after=[self.create, self.use])

    def namespace(self) -> dict[str, Any]:
        """Import the modules, and return the global names for the code.

        :raises UserCodeError: an import failed.
        """
        _remember(TOGETHER, "\n".join(filter(None, map(str.strip, (self.create, self.use, self.reset)))))
        names: dict[str, Any] = {"__name__": "advise"}
        for each in self.imports:
            code = _compiled(f"import {each}", IMPORT, "exec")
            called(exec, code, names)
        return names


def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(*args)`, which runs the user's code, and return its result.

    :raises UserCodeError: the user's code raised.
    """
    try:
        return function(*args)
    except (Exception, SystemExit) as error:
        raise UserCodeError(_shown(error)) from error


def _statements(text: str, after: list[str]) -> list[ast.stmt]:
    tree = ast.parse(text.strip(), TOGETHER)
    ast.increment_lineno(tree, sum([len(each.strip().splitlines()) for each in after]))
    return tree.body


def _assigns_obj(text: str) -> bool:
    """Whether `text` assigns or deletes `obj`. `obj += …` is allowed, because it may change the object in place."""
    nodes = list(ast.walk(ast.parse(text.strip())))
    in_place = [node.target for node in nodes if isinstance(node, ast.AugAssign)]
    return any(
        isinstance(node, ast.Name) and node.id == "obj" and not isinstance(node.ctx, ast.Load) and node not in in_place
        for node in nodes
    )


def _compiled(text: str, place: str, mode: str) -> CodeType:
    text = text.strip()
    _remember(place, text)
    try:
        return compile(text, place, mode)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, SyntaxError) and error.text is None and error.lineno:
            error.text = text.splitlines()[error.lineno - 1]  # errors that the compiler finds late lack the line
        raise UserCodeError(_shown(error)) from error


def _remember(place: str, text: str) -> None:
    """Let tracebacks find the line. An entry without a modification time is never compared with a file."""
    linecache.cache[place] = (len(text), None, [line + "\n" for line in text.splitlines()], place)


def _shown(error: BaseException) -> str:
    """The traceback as text, from the user's line on."""
    users = error.__traceback__
    while users is not None and not _is_users(users):
        users = users.tb_next
    lines = [*traceback.format_tb(users), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()


def _is_users(tb: TracebackType) -> bool:
    return tb.tb_frame.f_code.co_filename in (IMPORT, TOGETHER)
