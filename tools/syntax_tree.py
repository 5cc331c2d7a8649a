"""Parses Python into a syntax tree, whatever the garbage collector does meanwhile.

Python 3.11 before 3.11.8 counts the depth of a tree in one place for the whole process. The collector may run while a
tree is built, a finalizer that it calls may parse or let another thread parse, and the first parse then ends with
``SystemError: AST constructor recursion depth mismatch`` (https://github.com/python/cpython/issues/106905).
"""

from __future__ import annotations

import ast
import gc


def syntax_tree(source: str | bytes) -> ast.Module:
    """Return the tree of a module's source.

    Raises:
        SyntaxError: It is not Python.
        ValueError: It has a null character.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if collects:
            gc.enable()
