"""Check the vocabulary and the sizes: `python tools/check_names.py [ROOT]`. Prints what to change, one line for each.

Names: the words that the project has given up for the words of the field occur neither as names in Python, nor as names
of modules and settings, nor in the documentation. `protocol/` is left out: there the specification gives the names.

Sizes, of the package: a module has at most 350 lines, a function 50, and a public function takes at most 6 arguments.

Needs nothing but Python's standard library, and knows nothing of the package but its text.
"""

import ast
import functools
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = "django_durable_streams"
PYTHON = (PACKAGE, "tests", "example_project", "benchmarks")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs")
OWN_MODULES = (PACKAGE, "tests", "benchmarks", "demo", "chat", "board", "config", "tools")
LEFT_OUT = (f"{PACKAGE}/protocol/", "tests/protocol/")
LEFT_OUT_FILES = ("tests/tools/test_check_names.py",)

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 50
MAX_ARGUMENTS = 6

WORDS = {
    "lane": "batch worker, committer, snapshot reader",
    "pulse": "database monitor",
    "parcel": "pending batch",
    "errand": "exclusive job",
    "patience": "lock wait queue, or a timeout's name",
    "crowded": "needs compaction",
    "foresee": "prepare",
    "door": "entry point",
}
"""Words that are nowhere: in no name, alone or as a part of it, and in no sentence."""

SETTINGS = {
    "REMEMBER_SECONDS": "AUTH_CACHE_SECONDS",
    "FALLBACK_INTERVAL": "POLL_INTERVAL",
    "LIVE_CHECK_INTERVAL": "REAUTHORIZE_INTERVAL",
    "WRITE_LANES": "WRITER_THREADS",
    "DIRECT": "UVICORN_FAST_PATH",
}
"""Names that settings had. They are in no string either."""

NAMES = {
    **SETTINGS,
    # In strings it is also an environment variable of the example project, and an option of RestFramework.
    "PERMISSION": "PERMISSION_CLASSES",
    "remember_seconds": "auth_cache_seconds",
    "fallback_interval": "poll_interval",
    "live_check_interval": "reauthorize_interval",
    "Line": "DedicatedConnection",
    "Turn": "WriteLock",
    "Receiver": "ResultCallback",
    "KnownStreams": "RowCache",
    "recall": "pop_all",
    "rights": "confirmed_paths",
    "RecentChunk": "StagedChunk",
    "RecentChunkQuerySet": "StagedChunkQuerySet",
    "recentchunk": "stagedchunk",
    "gather": "flush",
    "gathers": "flushes",
    "gathered": "flushed",
    "GrowthLog": "CompactionTracker",
    "MANY": "a name with unit and purpose",
    "SEVERAL": "a name with unit and purpose",
    "Look": "ReadRequest",
    "Survey": "StatusQuery",
    "Follow": "FollowRequest",
    "conclude": "finish",
    "afterwards": "after_notify",
    "create_alike": "bulk_create_empty",
    "insert_like": "insert_copies",
    "creates_unseen": "supports_blind_insert",
    "making": "loading",
    "forgetting": "invalidation",
    "Allowed": "CreationPolicy",
    "Caller": "Identity",
    "Judge": "PermissionCheck",
    "Looking": "DetailViews",
    "Writing": "EditViews",
    "Tail": "LiveTailView",
    "known": "what the variable holds",
    "found": "what the variable holds",
    "given": "what the variable holds",
    "those": "what the variable holds",
}
"""Names that nothing has; leading underscores do not count. What a file imports from other projects may be used."""

NAMES_IN = {
    f"{PACKAGE}/": {"judge": "record_write", "told": "shared_responses"},
    f"{PACKAGE}/access/": {"again": "refresh"},
    f"{PACKAGE}/api/": {"View": "Snapshot"},
    f"{PACKAGE}/engine/": {"View": "Snapshot"},
    f"{PACKAGE}/server/": {"begin": "start"},
    f"{PACKAGE}/store/write/row_cache.py": {"take": "pop", "keep": "put"},
}
"""The same for a part of the tree; elsewhere these are other things, such as Django's views and SQL's BEGIN."""

PREFIXES_IN = {f"{PACKAGE}/server/": {"ask_": "parse_", "fill_": "set_body_", "answer_": "respond_"}}

MODULES = {"calls": "transactions", "saving": "row_mapping", "making": "loading", "allowed": "creation_policy"}
"""Names of modules of the package, where another thing may have the same name."""

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_WORD_IN_TEXT = re.compile(rf"\b({'|'.join(WORDS)})s?\b", re.IGNORECASE)
_DOTTED = re.compile(rf"\b{PACKAGE}(?:\.\w+)+")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_GOOD_SPANS = frozenset({"PERMISSION", "stream-not-found"})
"""An option of RestFramework, and a type of problem on the wire."""


class Problem(NamedTuple):
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Use(NamedTuple):
    """A name that stands in a file."""

    line: int
    name: str


def replacement(path: str, name: str) -> str | None:
    """Return what to write instead of a name, or None where the name is good."""
    bare = name.strip("_")
    if (better := replacement_everywhere(bare)) is not None:
        return better
    for place, names in NAMES_IN.items():
        if path.startswith(place) and bare in names:
            return names[bare]
    for place, prefixes in PREFIXES_IN.items():
        for prefix, better in prefixes.items():
            if path.startswith(place) and bare.startswith(prefix):
                return f"{better}{bare.removeprefix(prefix)}"
    return None


@functools.cache
def replacement_everywhere(bare: str) -> str | None:
    """Return the same for a name without its underscores that is good in no place."""
    if bare in NAMES:
        return NAMES[bare]
    for part in _PARTS.findall(bare):
        word = part.lower()
        if word in WORDS or word.removesuffix("s") in WORDS:
            return WORDS.get(word) or WORDS[word.removesuffix("s")]
    return None


def module_replacement(name: str) -> str | None:
    return MODULES.get(name) or replacement("", name)


# Names in Python.


def is_own(module: str | None) -> bool:
    """Return whether a module that is imported by its whole name is one of this project."""
    return (module or "").partition(".")[0] in OWN_MODULES


def foreign_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what a file imports from other projects, by the names that it has in the file."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            foreign = [alias for alias in node.names if not is_own(alias.name)]
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in foreign}
        elif isinstance(node, ast.ImportFrom) and not node.level and not is_own(node.module):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def root_of(node: ast.expr) -> str | None:
    """Return the name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def names_in_node(node: ast.AST, foreign: set[str]) -> list[str | None]:
    """Return the names that a node of the syntax tree itself brings, without those of other projects."""
    match node:
        case ast.Name():
            return [node.id] if node.id not in foreign else []
        case ast.Attribute():
            return [node.attr] if root_of(node) not in foreign else []
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
            return [node.name]
        case ast.arg() | ast.keyword():
            return [node.arg]
        case ast.alias():
            return [node.asname]
        case ast.ImportFrom():
            return [alias.name for alias in node.names] if node.level or is_own(node.module) else []
        case ast.Global() | ast.Nonlocal():
            return list(node.names)
    return []


def uses_in_tree(nodes: Sequence[ast.AST]) -> Iterator[Use]:
    foreign = foreign_names(nodes)
    for node in nodes:
        for name in names_in_node(node, foreign):
            if name is not None:
                yield Use(getattr(node, "lineno", 1), name)


def modules_imported(nodes: Iterable[ast.AST]) -> Iterator[Use]:
    """Yield the parts of the names of this project's modules that a file imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [node.module or ""] if node.level == 0 else [f"{PACKAGE}.{node.module or ''}"]
        else:
            continue
        for path in paths:
            first, *parts = path.split(".")
            if first in OWN_MODULES:
                yield from (Use(node.lineno, part) for part in parts)


def check_strings(path: str, nodes: Iterable[ast.AST]) -> Iterator[Problem]:
    """Check strings that name a setting or a module of the package."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if better := SETTINGS.get(node.value):
                yield Problem(path, node.lineno, f'"{node.value}": rather {better}')
            for dotted in _DOTTED.findall(node.value):
                for part in dotted.split(".")[1:]:
                    if better := module_replacement(part):
                        yield Problem(path, node.lineno, f"{dotted}: rather {better}")


def check_prose_of_python(path: str, text: str) -> Iterator[Problem]:
    """Check comments and strings for the words that are nowhere."""
    if not _WORD_IN_TEXT.search(text):  # to find comments takes far longer than to find words
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for number, line in enumerate(token.string.splitlines()):
                yield from check_prose(path, token.start[0] + number, line)


def check_prose(path: str, number: int, line: str) -> Iterator[Problem]:
    for match in _WORD_IN_TEXT.finditer(line):
        yield Problem(path, number, f'the word "{match[0]}": rather {WORDS[match[1].lower()]}')


def check_python_names(path: str, text: str, first_line: int = 1) -> Iterator[Problem]:
    nodes = list(ast.walk(ast.parse(text, path)))
    seen = set()
    uses = [(use, replacement(path, use.name)) for use in uses_in_tree(nodes)]
    uses += [(use, module_replacement(use.name)) for use in modules_imported(nodes)]
    for use, better in uses:
        if better is not None and use not in seen:
            seen.add(use)
            yield Problem(path, first_line + use.line - 1, f"{use.name}: rather {better}")
    for problem in check_strings(path, nodes):
        yield problem._replace(line=first_line + problem.line - 1)


def check_file_name(path: str) -> Iterator[Problem]:
    for part in Path(path).with_suffix("").parts:
        name = part.removeprefix("test_")
        better = module_replacement(name) if path.startswith(f"{PACKAGE}/") else replacement("", name)
        if better is not None:
            yield Problem(path, 1, f"the name {part}: rather {better}")


# Names in pages.


def check_page(path: str, text: str) -> Iterator[Problem]:
    """Check a page of the documentation: its sentences, the names that it quotes, its Python."""
    fence: str | None = None
    start = 0
    block: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if fence is None:
                fence, start, block = line.removeprefix("```").strip(), number + 1, []
            else:
                if fence == "python":
                    yield from check_python_names(path, "\n".join(block), start)
                fence = None
        elif fence is not None:
            block.append(line)
        else:
            yield from check_prose(path, number, line)
            yield from check_code_spans(path, number, line)


def check_code_spans(path: str, number: int, line: str) -> Iterator[Problem]:
    for span in _CODE_SPAN.findall(line):
        if span in _GOOD_SPANS:
            continue
        for name in re.findall(r"[A-Za-z_]\w*", span):
            # A word that is nowhere has been named by check_prose, unless it is a part of the name.
            better = replacement(path, name)
            if better is not None and not _WORD_IN_TEXT.fullmatch(name):
                yield Problem(path, number, f"`{span}`, {name}: rather {better}")


# Sizes.

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(tree: ast.AST) -> Iterator[tuple[Function, bool]]:
    """Yield each function of a module, and whether it is public: reached by names without a leading underscore."""

    def visit(node: ast.AST, public: bool, in_function: bool) -> Iterator[tuple[Function, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                shown = public and not in_function and (not child.name.startswith("_") or child.name == "__init__")
                yield child, shown
                yield from visit(child, shown, True)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, public and not in_function and not child.name.startswith("_"), in_function)
            else:
                yield from visit(child, public, in_function)

    yield from visit(tree, True, False)


def arguments_of(function: Function) -> list[str]:
    """Return the names of a function's arguments, without self and cls."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    names = [argument.arg for argument in named]
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    rest = [argument for argument in (arguments.vararg, *arguments.kwonlyargs, arguments.kwarg) if argument is not None]
    return names + [argument.arg for argument in rest]


def check_sizes(path: str, text: str) -> Iterator[Problem]:
    lines = len(text.splitlines())
    if lines > MAX_MODULE_LINES:
        yield Problem(path, 1, f"the module has {lines} lines, at most {MAX_MODULE_LINES} are good")
    for function, public in functions_of(ast.parse(text, path)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield Problem(
                path, function.lineno, f"{function.name}() has {length} lines, at most {MAX_FUNCTION_LINES} are good"
            )
        count = len(arguments_of(function))
        if public and count > MAX_ARGUMENTS:
            yield Problem(
                path, function.lineno, f"{function.name}() takes {count} arguments, at most {MAX_ARGUMENTS} are good"
            )


def check(root: Path) -> Iterator[Problem]:
    """Check a tree and yield what is to be changed, file by file."""
    for directory in PYTHON:
        for file in sorted((root / directory).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            if "node_modules" in path or "/migrations/" in path:
                continue
            text = file.read_text()
            if not path.startswith(LEFT_OUT) and path not in LEFT_OUT_FILES:
                yield from check_file_name(path)
                yield from check_python_names(path, text)
                yield from check_prose_of_python(path, text)
            if directory == PACKAGE:
                yield from check_sizes(path, text)
    for place in PAGES:
        for file in [root / place] if place.endswith(".md") else sorted((root / place).rglob("*.md")):
            if file.exists():
                yield from check_page(file.relative_to(root).as_posix(), file.read_text())


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    count = 0
    for problem in check(root):
        print(problem)
        count += 1
    print(f"{count} to change" if count else "every name and size is good", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
