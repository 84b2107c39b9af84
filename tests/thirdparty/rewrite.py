"""What changes in a copy of somebody's test before it runs here. Everything is done on the syntax tree, by these rules:

device      the string "cuda", and f"cuda:{rank}", name the device that the tests run on; "nccl" becomes "gloo"
tolerance   a name that ends in "atol" is at least `floor`, and so is the right side of `assert x.abs().max().item() <= y`
comparison  log("... diff", a - b) becomes log("... diff", a, b): a function that can compare, where theirs can only print
"""

from __future__ import annotations

import ast

DEVICE_STRINGS = {"cuda": "cpu", "nccl": "gloo"}


class Rewriter(ast.NodeTransformer):
    """One pass by the rules above; `floor` 0.0 leaves tolerances alone."""

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and node.value in DEVICE_STRINGS:
            return ast.Constant(DEVICE_STRINGS[node.value])
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and str(first.value).startswith("cuda:"):
            return ast.Constant(DEVICE_STRINGS["cuda"])
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name) and node.targets[0].id.endswith("atol"):
            node.value = self.at_least(node.value)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        test = node.test
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.LtE) and is_largest_difference(test.left):
            test.comparators[0] = self.at_least(test.comparators[0])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "log" and "diff" in ast.unparse(node.args[0]):
            difference = node.args[1]
            if not (isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub)):
                raise ValueError(f"line {node.lineno}: {ast.unparse(node)} is no difference of two tensors")
            node.args[1:] = [difference.left, difference.right]
        return node

    def at_least(self, value: ast.expr) -> ast.expr:
        if self.floor == 0.0:
            return value
        return ast.Call(ast.Name("max", ast.Load()), [value, ast.Constant(self.floor)], [])


def is_largest_difference(node: ast.expr) -> bool:
    return ast.unparse(node).endswith(".abs().max().item()")


def rewritten(source: str, floor: float = 0.0) -> str:
    """The program `source` by the rules of this module, without its comments."""
    return ast.unparse(ast.fix_missing_locations(Rewriter(floor).visit(ast.parse(source)))) + "\n"
