"""Code cells that only hand numbers to the text: sentences show what they show, and no cell in sight needs them."""

import ast
from collections.abc import Iterator, Sequence

HIDDEN = "hide-input"
FUNCTIONS = (ast.FunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def only_quoting(cells: Sequence) -> list[str]:
    """The ids of such cells of a notebook: they `quote`, show nothing else, and bind no name for a cell that shows.

    A name that only cells of this kind take is none that a reader would miss, so they are looked for from the end.
    """
    code = [cell for cell in cells if cell.cell_type == "code"]
    needed: set[str] = set()
    found = []
    for cell in reversed(code):
        tree = ast.parse(cell.source)
        if _hands_over(tree) and not needed & bound_by(tree):
            found.append(cell.id)
            continue
        needed = (needed - bound_by(tree)) | taken_by(tree)
    return found[::-1]


def _hands_over(tree: ast.Module) -> bool:
    calls = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "quote"}
    bare = [id(node.value) for node in tree.body if isinstance(node, ast.Expr)]
    return bool(calls) and set(bare) <= calls


def _name(node: ast.AST) -> str:
    return getattr(node, "id", "")


def bound_by(tree: ast.Module) -> set[str]:
    """The names that a cell leaves to the cells after it."""
    return set().union(*map(_bound, tree.body))


def taken_by(tree: ast.Module) -> set[str]:
    """The names that a cell has from the cells before it."""
    taken: set[str] = set()
    own: set[str] = set()
    for statement in tree.body:
        taken |= _taken(statement) - own
        own |= _bound(statement)
    return taken


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {one.asname or one.name.partition(".")[0] for one in statement.names}
    return {node.id for node in _outside(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _outside(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement outside its comprehensions and functions, whose names are their own."""
    yield node
    if not isinstance(node, FUNCTIONS + COMPREHENSIONS):
        for child in ast.iter_child_nodes(node):
            yield from _outside(child)


def _taken(statement: ast.stmt) -> set[str]:
    nodes = list(ast.walk(statement))
    inside = {node.arg for node in nodes if isinstance(node, ast.arg)}
    scopes = [node for node in nodes if isinstance(node, FUNCTIONS + COMPREHENSIONS)]
    bound = [node for scope in scopes for node in ast.walk(scope) if isinstance(getattr(node, "ctx", None), ast.Store)]
    inside |= {_name(node) for node in bound}
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    read |= {_name(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    return read - inside
