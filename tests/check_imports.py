"""Check the imports against docs/architecture.md: python -m tests.check_imports [--files].

The rows of its table are in order: a module imports only from its own row and from those below.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE_ROW = re.compile(r"^\| (`[^|]+`) \|", re.MULTILINE)
NOT_SOURCE = {"tests", "benchmarks", "build", "demo"}


def read_rows(page: str) -> list[list[str]]:
    """The first column of the page's table: modules such as 'engine.runner', packages 'engine'."""
    cells = [re.findall(r"`([^`]+)`", cell) for cell in TABLE_ROW.findall(page)]
    return [[n.removesuffix(".py").rstrip("/").replace("/", ".") for n in cell] for cell in cells]


def find_modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of the source."""
    files = [*root.glob("*.py"), *root.glob("*/*.py")]
    paths = {path: path.relative_to(root).with_suffix("").parts for path in sorted(files)}
    return {
        ".".join(parts): path
        for path, parts in paths.items()
        if parts[0] not in NOT_SOURCE and parts[-1] != "__init__"
    }


def imports_of(path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """(module of the source, line) of each import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name in modules)


def find_faults(rows: Sequence[Sequence[str]], modules: Mapping[str, Path]) -> Iterator[str]:
    """One line for each import that runs upward, each cycle, and each module without a row."""
    rank = {name: number for number, row in enumerate(rows) for name in row}
    graph: dict[str, list[str]] = {}
    for module, path in modules.items():
        row = rank.get(module, rank.get(module.partition(".")[0]))
        if row is None:
            yield f"{path.name}: has no row in docs/architecture.md"
            continue
        found = list(imports_of(path, modules))
        graph[module] = [imported for imported, _ in found]
        for imported, line in found:
            other = rank.get(imported, rank.get(imported.partition(".")[0], len(rows)))
            if other < row:
                yield f"{path}:{line}: {module} imports {imported}, which is above it"
    yield from (f"cycle: {' -> '.join(cycle)}" for cycle in find_cycles(graph))


def find_cycles(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Cycles of a graph, found by depth-first search; none if there are none."""
    done: set[str] = set()
    cycles = []

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            cycles.append([*trail[trail.index(module) :], module])
        elif module not in done:
            for imported in graph.get(module, ()):
                visit(imported, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return cycles


def describe(modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield each file with the first line of its docstring."""
    for path in modules.values():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        yield f"{path.relative_to(ROOT)}: {text.partition(chr(10))[0]}"


def main() -> int:
    modules = find_modules(ROOT)
    if "--files" in sys.argv:
        print("\n".join(describe(modules)))
        return 0
    rows = read_rows((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    faults = list(find_faults(rows, modules))
    print("\n".join(faults) or f"imports: {len(rows)} layers, none runs upward")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
