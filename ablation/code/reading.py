"""Reads from a function's source, without executing it, what it returns by name and which settings it takes."""

import ast
from collections.abc import Iterator
from typing import Any

from ablation.code.imports import function_in


def returned_names(content: bytes, function: str) -> tuple[str, ...]:
    """Return the keys of the mapping that a function returns, as its source has them; none where that does not tell.

    A mapping that is returned by its name counts where it is given that name once, as `{"rmse": …}`.
    """
    found = function_in(content, function)
    if found is None:
        return ()
    returns = [node.value for node in _own_nodes(found) if isinstance(node, ast.Return) and node.value is not None]
    return tuple(_keys(_meant(returns[-1], found))) if returns else ()


def settings_taken(content: bytes, function: str, section: str) -> dict[str, Any]:
    """Return the keys that a function takes of a section of its `settings`, or first argument; with defaults of `.get`.

    So `settings["training"]["width"]`, or `t = settings["training"]` and `t.get("width", 8)`. What has no default, or
    none that is a plain value, has an ellipsis.
    """
    found = function_in(content, function)
    if found is None:
        return {}
    arguments = [each.arg for each in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]
    settings = "settings" if "settings" in arguments else next(iter(arguments), "")
    names = {name for name, value in _assigned(found) if _is_section(value, settings, section)}

    def is_meant(node: ast.expr) -> bool:
        return _is_section(node, settings, section) or (isinstance(node, ast.Name) and node.id in names)

    taken: dict[str, Any] = {}
    for node in _own_nodes(found):
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value=str(key))) if is_meant(value):
                taken.setdefault(key, ...)
            case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(value=str(key)), *rest]) if (
                is_meant(value)
            ):
                taken[key] = _plain(rest[0]) if rest else ...
    return taken


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function in their order, without those of functions inside of it."""
    waiting: list[ast.AST] = list(reversed(function.body))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _meant(value: ast.expr, function: ast.FunctionDef) -> ast.expr:
    given = [one for name, one in _assigned(function) if isinstance(value, ast.Name) and name == value.id]
    return given[0] if len(given) == 1 else value


def _keys(value: ast.expr) -> Iterator[str]:
    for key in value.keys if isinstance(value, ast.Dict) else ():
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        yield from (one.arg for one in value.keywords if one.arg is not None)


def _assigned(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that are given a value, and the values; `a, b = x, y` gives two."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from ((to.id, of) for to, of in pairs if isinstance(to, ast.Name))


def _is_section(node: ast.expr, settings: str, section: str) -> bool:
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
            return (name, key) == (settings, section)
    return False


def _plain(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ...
