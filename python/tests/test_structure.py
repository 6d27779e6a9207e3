# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""How the package is built: no two of its modules import each other, by whatever way."""
import ast
import pathlib

import pytest

import paligemma

PACKAGE = pathlib.Path(paligemma.__file__).parent


def imports(folder):
    """{module: the modules of the same package that it imports}, those inside functions included."""
    names = {path.stem for path in folder.glob("*.py")}
    graph = {}
    for name in names:
        graph[name] = found = set()
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.Import):  # import package.module
                parts = [alias.name.split(".") for alias in node.names]
                found.update((part[1:2] or ["__init__"])[0] for part in parts if part[0] == folder.name)
            elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == folder.name):
                module = node.module if node.level else ".".join(node.module.split(".")[1:])
                if module:  # from .module import ...
                    found.add(module.split(".")[0])
                else:  # from . import ...
                    found.update(alias.name if alias.name in names else "__init__" for alias in node.names)
    return graph


def circle(graph):
    """Modules of which each imports the next and the last the first; [] when there are none."""
    done = set()

    def visit(name, path):
        if name in path:
            return path[path.index(name):]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            found = visit(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for found in (visit(name, []) for name in sorted(graph)) if found), [])


def test_no_module_imports_itself_by_way_of_others():
    graph = imports(PACKAGE)
    assert {"_library", "_handle", "_generate", "config"} <= graph["model"] and "model" in graph["__init__"]
    assert circle(graph) == []


@pytest.mark.parametrize("sources, expected", [
    (dict(a="from . import b, c", b="import os", c="from .b import x"), []),
    (dict(a="from . import b", b="from .c import x", c="def f():\n    from .a import y"), ["a", "b", "c"]),
    (dict(a="import box.b", b="from box import a"), ["a", "b"]),
    (dict(__init__="from .a import x", a="from . import version"), ["__init__", "a"]),
    (dict(__init__="from .a import x", a="import box"), ["__init__", "a"]),
])
def test_a_circle_is_seen(tmp_path, sources, expected):
    folder = tmp_path / "box"
    folder.mkdir()
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text + "\n")
    assert circle(imports(folder)) == expected


def test_messages_have_no_names_of_c():
    """Each name of C in a message of the library has one of this package's in its place."""
    import sys

    from conftest import ROOT

    from paligemma import _errors

    sys.path.insert(0, str(ROOT / "tests" / "support"))
    try:
        import messages
    finally:
        sys.path.pop(0)
    names = messages.names(ROOT)
    assert len(names) > 20
    for name in names:
        for text in (f"found {name}", f"({name} takes it as text)", f"pg_options.kind is 7, expected {name}, or less"):
            assert not messages.of_c(_errors.in_python(text)), name
    assert _errors.in_python("XPG_SIDE_LEFT and PG_SIDE_LEFTY of /pg_x/y.png") == "XPG_SIDE_LEFT and PG_SIDE_LEFTY of /pg_x/y.png"


def test_messages_name_keywords(processor, pixels):
    with pytest.raises(ValueError, match="literal=True takes"):
        processor(text="<image><image> a", image_counts=1)
    with pytest.raises(ValueError, match='keep_ends=True or truncation="only_second", keeps them'):
        processor(pixels, "a", truncation=True, max_length=9)
