# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The library's names of C that stand in its messages, for the tests of those who put their own in place of them."""
import pathlib
import re


def of_c(text):
    """The names of C in a text."""
    return re.findall(r"\bPG_\w+(?:\*|\b)|\bpg_\w+\(\)", text)


def names(source):
    """-> {"PG_ENCODE_LITERAL", "PG_SIDE_*", "pg_generate()", ...}: constants and calls in string literals of lib/."""
    found = set()
    for path in pathlib.Path(source, "lib").rglob("*"):
        if path.suffix not in (".c", ".h", ".inc", ".cc"):
            continue
        code = re.sub(r"^\s*#\s*include.*$", "", path.read_text(), flags=re.MULTILINE)
        # comments, characters and strings in one pass, so that none is taken for the other
        for token in re.finditer(r'/\*.*?\*/|//[^\n]*|\'(?:[^\'\\\n]|\\.)*\'|"((?:[^"\\\n]|\\.)*)"', code, re.DOTALL):
            found.update(of_c(token.group(1) or ""))
    return found
