"""Statements of a module that note in a list that they ran: `marked` puts them into its syntax tree.

A tracing function makes the interpreter slow in all code, Django's and the tests' too: before Python 3.14, a traced
test takes twice the time of the processor. Here only the measured modules have more to do, an assignment to an item of
a list for each statement. Two statements in one line, such as `if x: return`, may count as one.
"""

import ast
from collections.abc import Iterable
from typing import Any, NamedTuple

RAN = "__ran__"
"""The name of the list in a module that has marks."""


class Mark(NamedTuple):
    """What an item of the list stands for.

    line: of a statement that ran or, with `taken`, that decides where to go on.
    taken: whether it went into its block. None for the statement itself.
    target: the line at which that block begins.
    """

    line: int
    taken: bool | None = None
    target: int = 0


Branch = ast.If | ast.For | ast.AsyncFor | ast.While


def marked(tree: ast.Module) -> list[Mark]:
    """Put marks into a syntax tree, in place. Returns what each item of the list stands for."""
    marker = _Marker()
    tree.body = marker.block(tree.body)
    return marker.marks


def line_of(node: ast.stmt) -> int:
    """Return the first line of a statement: that of its first decorator, if it has one."""
    decorators = getattr(node, "decorator_list", [])
    return decorators[0].lineno if decorators else node.lineno


class _Marker:
    """Goes through all blocks of statements. Expressions have none."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Return the statements with a mark before each, but after those that have to come first."""
        first = next((n for n, each in enumerate(statements) if not _comes_first(each)), len(statements))
        result = statements[:first]
        for each in statements[:first]:
            result.append(self._new(Mark(each.lineno), each.lineno))
        for each in statements[first:]:
            lines = [*(decorator.lineno for decorator in getattr(each, "decorator_list", ())), each.lineno]
            result += self._all_new(map(Mark, lines), each.lineno)
            self._inside(each)
            result.append(each)
        return result

    def _inside(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Match):
            self._match(node)
            return
        target = line_of(node.body[0]) if isinstance(node, Branch) else 0
        for name in ("body", "orelse", "finalbody"):
            if statements := getattr(node, name, None):
                setattr(node, name, self.block(statements))
        handlers = getattr(node, "handlers", [])
        for number, handler in enumerate(handlers, 1):
            tried = [Mark(each.lineno) for each in handlers[:number]]
            handler.body = [*self._all_new(tried, handler.lineno), *self.block(handler.body)]
        if isinstance(node, Branch):
            node.body.insert(0, self._new(Mark(node.lineno, True, target), node.lineno))
            node.orelse.insert(0, self._new(Mark(node.lineno, False, target), node.lineno))

    def _match(self, node: ast.Match) -> None:
        """Mark the case that matches, and that those before it do not."""
        taken = [Mark(case.pattern.lineno, True, line_of(case.body[0])) for case in node.cases]
        for case in node.cases:
            case.body = self.block(case.body)
        last = node.cases[-1]
        if not (isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None):
            node.cases.append(ast.match_case(pattern=ast.MatchAs(**_place(node.lineno)), guard=None, body=[]))
        for number, case in enumerate(node.cases):
            passed = (mark._replace(taken=False) for mark in taken[:number])
            case.body[:0] = self._all_new([*taken[number : number + 1], *passed], node.lineno)

    def _all_new(self, marks: Iterable[Mark], line: int) -> list[ast.stmt]:
        return [self._new(mark, line) for mark in marks]

    def _new(self, mark: Mark, line: int) -> ast.stmt:
        """Return the statement that notes a mark: its item of the list becomes true."""
        number, place = len(self.marks), _place(line)
        self.marks.append(mark)
        name = ast.Name(RAN, ast.Load(), **place)
        item = ast.Subscript(name, ast.Constant(number, **place), ast.Store(), **place)
        return ast.Assign([item], ast.Constant(True, **place), **place)


def _place(line: int) -> dict[str, Any]:
    return {"lineno": line, "col_offset": 0, "end_lineno": line, "end_col_offset": 0}


def _comes_first(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or text that nobody uses, or an import from __future__."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
