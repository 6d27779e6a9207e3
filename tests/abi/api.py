#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The public API as a list of declarations, read from the headers alone, and what a change of it means.

    api.py program FOLDER COMPILER...   writes a C program that prints what only a compiler and the library know: sizes,
                                        offsets, values and, with -DABI_DEFAULTS, what every _init function sets

read() joins the headers and the output of that program; load() and save() keep it in a text file, api.txt; compare() says
for each difference whether it breaks programs. Nothing here names a struct or a function of the library.
"""
import dataclasses
import os
import re
import subprocess
import sys

BREAK, ADDED, RENAMED = "BREAK", "ADDED", "RENAMED"
QUALIFIERS = ("const", "volatile")
WORDS = ("void", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "_Bool")
FIXED = re.compile(r"u?int(8|16|32|64)_t|float|double")
VERSION = ("MAJOR", "MINOR", "PATCH")


class Unreadable(Exception):
    """The headers hold something that this reader does not know: teach it, or leave it out of them."""


@dataclasses.dataclass
class Declaration:
    name: str
    type: str  # without the names of parameters: "pg_status (const char *, int64_t *)"
    names: list  # of the parameters, in order
    text: str  # as C, with the names
    function: tuple = None  # (return type, [Declaration of each parameter])


@dataclasses.dataclass
class Field:
    offset: int
    size: int
    declaration: Declaration


@dataclasses.dataclass
class Struct:
    size: int = 0
    alignment: int = 0
    fields: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Api:
    version: list = dataclasses.field(default_factory=lambda: [0, 0, 0])
    opaque: dict = dataclasses.field(default_factory=dict)
    typedef: dict = dataclasses.field(default_factory=dict)  # name: Declaration
    constant: dict = dataclasses.field(default_factory=dict)  # name: value, as text
    macro: dict = dataclasses.field(default_factory=dict)  # name: value; NAME(arguments): replacement
    struct: dict = dataclasses.field(default_factory=dict)  # name: Struct
    function: dict = dataclasses.field(default_factory=dict)  # name: Declaration
    default: dict = dataclasses.field(default_factory=dict)  # init function, a dot, field: value; empty where not known

    def resolve(self, type_):
        """A type's text with a leading typedef name replaced by what it stands for."""
        first, _, rest = type_.removeprefix("const ").partition(" ")
        return self.resolve(self.typedef[first].type + rest) if first in self.typedef else type_

    def init_functions(self):
        """name: struct, of each pg_x_init(struct *, size_t)."""
        found = {}
        for name, declaration in self.function.items():
            types = [p.type for p in declaration.function[1]]
            if name.endswith("_init"):
                if len(types) != 2 or types[1] != "size_t" or types[0].removesuffix(" *") not in self.struct:
                    raise Unreadable(f"{name} takes {types}, expected a struct of this header and a size_t")
                found[name] = types[0].removesuffix(" *")
        return found


# ---- reading C ----


def tokens_of(text):
    return re.findall(r'[A-Za-z_]\w*|"(?:\\.|[^"])*"|\d[\w.]*|\.\.\.|\S', text)


def closing(tokens, i):
    """The index of the bracket that closes tokens[i]."""
    depth = 0
    for j in range(i, len(tokens)):
        depth += (tokens[j] in "([{") - (tokens[j] in ")]}")
        if depth == 0:
            return j
    raise Unreadable("no end of " + " ".join(tokens[i:i + 12]))


def split(tokens, separator):
    """Parts between the separators that stand outside all brackets."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token in "([{") - (token in ")]}")
        if token == separator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def read_base(tokens):
    """(`const pg_model`, the tokens after it)."""
    qualifiers, words, i = [], [], 0
    while i < len(tokens):
        token = tokens[i]
        if token in QUALIFIERS:
            qualifiers.append(token)
        elif token in WORDS:
            words.append(token)
        elif not words and token in ("struct", "union", "enum"):
            words += tokens[i:i + 2]
            i += 1
        elif not words and re.match(r"[A-Za-z_]", token):
            words.append(token)
        else:
            break
        i += 1
    if not words:
        raise Unreadable("no type in: " + " ".join(tokens))
    return " ".join(sorted(qualifiers) + words), tokens[i:]


def read_declarator(base, tokens):
    """What follows the base, `*(*name)(void *user)`: (Declaration, the tokens after it)."""
    stars, i = "", 0
    while i < len(tokens) and tokens[i] in ("*", "const", "volatile", "restrict", "__restrict"):
        stars += "*" if tokens[i] == "*" else tokens[i] + " "
        i += 1
    name, type_, text, names, function = "", "", "", [], None
    nested = i + 1 < len(tokens) and tokens[i] == "(" and tokens[i + 1] in ("*", "(")
    if nested:
        end = closing(tokens, i)
        inner, rest = read_declarator("", tokens[i + 1:end])
        if rest:
            raise Unreadable("not understood: " + " ".join(tokens))
        name, type_, text, names = inner.name, f"({inner.type})", f"({inner.text})", inner.names
        i = end + 1
    elif i < len(tokens) and re.match(r"[A-Za-z_]", tokens[i]):
        name = text = tokens[i]
        i += 1
    while i < len(tokens) and tokens[i] in ("[", "("):
        end = closing(tokens, i)
        inside = tokens[i + 1:end]
        if tokens[i] == "[":
            type_ += f"[{''.join(inside)}]"
            text += f"[{''.join(inside)}]"
        else:
            parameters = [] if inside == ["void"] else [read_declaration(part) for part in split(inside, ",")]
            if not nested and function is None:
                function = (f"{base} {stars}".strip(), parameters)
            type_ += f"({', '.join(p.type for p in parameters)})"
            text += f"({', '.join(p.text for p in parameters) or 'void'})"
            names = names + [n for p in parameters for n in [p.name, *p.names]]
        i = end + 1
    joined = [f"{base} {stars}{part}".strip() if base else f"{stars}{part}" for part in (type_, text)]
    return Declaration(name, joined[0], names, joined[1], function), tokens[i:]


def read_declarations(tokens):
    """`int32_t a, *b`: a Declaration for each."""
    if tokens == ["..."]:
        return [Declaration("", "...", [], "...")]
    base, rest = read_base(tokens)
    found = []
    for part in split(rest, ","):
        declaration, after = read_declarator(base, part)
        if after:
            raise Unreadable("not understood: " + " ".join(tokens))
        found.append(declaration)
    return found


def read_declaration(tokens):
    found = read_declarations(tokens)
    if len(found) != 1:
        raise Unreadable("several where one is expected: " + " ".join(tokens))
    return found[0]


def own_lines(folder, compiler):
    """What the preprocessor makes of the headers of the folder, system headers left out; #defines are kept."""
    names = sorted(n for n in os.listdir(os.path.join(folder, "paligemma")) if n.endswith(".h"))
    source = "".join(f"#include <paligemma/{name}>\n" for name in names)
    output = subprocess.run([*compiler, "-x", "c", "-std=c11", "-E", "-dD", "-I", folder, "-"], input=source, check=True,
                            capture_output=True, text=True).stdout
    ours, lines = False, []
    for line in output.splitlines():
        marker = re.match(r'#(?:line)? ?\d+ "(.*?)"', line)
        if marker:
            ours = os.path.dirname(os.path.abspath(marker[1])) == os.path.abspath(os.path.join(folder, "paligemma"))
        elif ours:
            lines.append(line)
    return lines


def read_macro(api, line):
    name, arguments, value = re.match(r"#define (\w+)(\([^)]*\))? ?(.*)", line).groups()
    part = re.fullmatch(r"PG_API_VERSION_(\w+)", name)
    if part:
        api.version[VERSION.index(part[1])] = int(value)
    elif arguments is not None:
        api.macro[name + arguments] = " ".join(value.split())
    elif value and "__attribute__" not in value:  # others mark declarations, or guard a header
        api.macro[name] = None


def read_statement(api, tokens):
    while "__attribute__" in tokens:
        i = tokens.index("__attribute__")
        tokens = tokens[:i] + tokens[closing(tokens, i + 1) + 1:]
    tokens = [t for t in tokens if t not in ("extern", "__extension__")]
    typedef = tokens[:1] == ["typedef"]
    if typedef:
        tokens = tokens[1:]
    if "{" in tokens:
        start = tokens.index("{")
        end = closing(tokens, start)
        kind, tag, body, after = tokens[0], tokens[1], tokens[start + 1:end], tokens[end + 1:]
        if kind == "enum":
            for part in split(body, ","):
                if part:
                    api.constant[part[0]] = None
            if after:
                api.typedef[after[0]] = Declaration(after[0], "enum", [], f"enum {after[0]}")
        elif kind == "struct" and start == 2 and after in ([tag], []):
            fields = [d for part in split(body, ";") if part for d in read_declarations(part)]
            api.struct[tag] = Struct(fields=[Field(0, 0, d) for d in fields])
            api.opaque.pop(tag, None)
        else:
            raise Unreadable("not understood: " + " ".join(tokens))
    elif typedef and tokens[0] == "struct" and tokens[1:] == [tokens[1]] * 2:
        if tokens[1] not in api.struct:
            api.opaque[tokens[1]] = True
    else:
        for declaration in read_declarations(tokens):
            if typedef:
                api.typedef[declaration.name] = declaration
            elif declaration.function:
                api.function[declaration.name] = declaration
            else:
                raise Unreadable("neither a type nor a function: " + " ".join(tokens))


def parse(folder, compiler):
    """The declarations, without what only the C program knows."""
    api, code = Api(), []
    for line in own_lines(folder, compiler):
        if line.startswith("#define"):
            read_macro(api, line)
        elif not line.startswith("#"):
            code.append(line)
    for statement in split(tokens_of("\n".join(code)), ";"):
        if statement:
            read_statement(api, statement)
    return api


# ---- the C program ----

PROGRAM = """\
/* Written by tests/abi/api.py from the public headers. */
#include <paligemma/paligemma.h>
#include <stdio.h>
#include <string.h>

static void print_signed(const char *name, long long value) { printf("value %s %lld\\n", name, value); }
static void print_unsigned(const char *name, unsigned long long value) { printf("value %s %lluu\\n", name, value); }
static void print_float(const char *name, double value) { printf("value %s %.17g\\n", name, value); }
static void print_text(const char *name, const char *value) { printf("value %s \\"%s\\"\\n", name, value); }
#define VALUE(x)                                                                                                   \\
    _Generic((x), char *: print_text, const char *: print_text, float: print_float, double: print_float,           \\
        unsigned: print_unsigned, unsigned long: print_unsigned, unsigned long long: print_unsigned,               \\
        default: print_signed)(#x, x);
#define STRUCT(s) printf("struct %s %zu %zu\\n", #s, sizeof(s), _Alignof(s));
#define FIELD(s, f) printf("field %s %s %zu %zu\\n", #s, #f, offsetof(s, f), sizeof(((s *)0)->f));
"""


def print_field(api, init, declaration):
    """C that prints the default of a field; an array's elements one after the other."""
    type_ = api.resolve(declaration.type)
    element, array = re.fullmatch(r"(.*?)(?: ?\[\w+\])?", type_)[1], type_.endswith("]")
    value = f"o.{declaration.name}" + ("[i]" if array else "")
    if "*" in element or "(" in element:
        form, value = " %s", f'{value} ? "set" : "NULL"'
    elif element in ("float", "double"):
        form, value = " %.17g", f"(double){value}"
    elif element.startswith("u"):
        form, value = " %llu", f"(unsigned long long){value}"
    else:
        form, value = " %lld", f"(long long){value}"
    loop = f"for (size_t i = 0; i < sizeof o.{declaration.name} / sizeof *o.{declaration.name}; i++) " if array else ""
    return (f'        printf("default {init}.{declaration.name}");\n        {loop}printf("{form}", {value});\n'
            '        printf("\\n");\n')


def seeded_init(api):
    """C that, with -DABI_SEEDED, changes one default, for the test that such a change is seen."""
    for init, struct in api.init_functions().items():
        for field in api.struct[struct].fields[1:]:
            if field.declaration.type == "int32_t":
                return (f"#ifdef ABI_SEEDED\nstatic pg_status seeded_init({struct} *o, size_t size) {{\n"
                        f"    pg_status status = {init}(o, size);\n    o->{field.declaration.name}++;\n    return status;\n}}\n"
                        f"#define {init} seeded_init\n#endif\n")
    raise Unreadable("no _init function of a struct with an int32_t")


def program(api):
    text = [PROGRAM, "#ifdef ABI_DEFAULTS\n", seeded_init(api), "static int defaults(void) {\n"]
    for init, struct in api.init_functions().items():
        text.append(f"    {{\n        {struct} o;\n        memset(&o, 0xAA, sizeof o);\n"
                    f"        if ({init}(&o, sizeof o) != 0) return 1;\n")
        text += [print_field(api, init, f.declaration) for f in api.struct[struct].fields[1:]]
        text.append("    }\n")
    text.append("    return 0;\n}\n#else\nstatic int defaults(void) { return 0; }\n#endif\n\nint main(void) {\n")
    for name, struct in api.struct.items():
        text.append(f"    STRUCT({name})\n")
        text += [f"    FIELD({name}, {f.declaration.name})\n" for f in struct.fields]
    text += [f"    VALUE({name})\n" for name in [*api.constant, *(n for n, v in api.macro.items() if v is None)]]
    text.append("    return defaults();\n}\n")
    return "".join(text)


def read(folder, compiler, output):
    """The API of the headers with what their program printed."""
    api = parse(folder, compiler)
    values = {}
    for line in output.splitlines():
        kind, name, rest = line.split(" ", 2)
        if kind == "struct":
            api.struct[name].size, api.struct[name].alignment = map(int, rest.split())
        elif kind == "field":
            field_name, offset, size = rest.split()
            field = next(f for f in api.struct[name].fields if f.declaration.name == field_name)
            field.offset, field.size = int(offset), int(size)
        elif kind == "value":
            values[name] = rest
        elif kind == "default":
            api.default[name] = rest
    api.constant = {name: values[name] for name in api.constant}
    api.macro = {name: values[name] if value is None else value for name, value in api.macro.items()}
    return api


# ---- the text file ----


def save(api):
    lines = ["# The public API, written by `tests/abi/check.py api ... --update`. The rules: docs/ABI.md.",
             "# Below a struct: offset, size and declaration of each field (64-bit, little-endian).",
             "version " + ".".join(map(str, api.version))]
    lines += [f"opaque {name}" for name in sorted(api.opaque)]
    lines += [f"typedef {d.text}" for _, d in sorted(api.typedef.items())]
    lines += [f"constant {name} = {value}" for name, value in sorted(api.constant.items())]
    lines += [f"macro {name} = {value}" for name, value in sorted(api.macro.items())]
    for name, struct in sorted(api.struct.items()):
        lines.append(f"struct {name}: {struct.size} bytes, aligned to {struct.alignment}")
        lines += [f"  {f.offset:3} {f.size:2} {f.declaration.text}" for f in struct.fields]
    lines += [f"function {d.text}" for _, d in sorted(api.function.items())]
    by_function = sorted(api.default.items(), key=lambda item: item[0].split(".")[0])  # stable: fields stay in order
    lines += [f"default {name} = {value}" for name, value in by_function]
    return "".join(line + "\n" for line in lines)


def load(text):
    api, current = Api(), None
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind.isdigit():
            size, declaration = rest.split(maxsplit=1)
            current.fields.append(Field(int(kind), int(size), read_declaration(tokens_of(declaration))))
        elif kind == "version":
            api.version = [int(part) for part in rest.split(".")]
        elif kind == "opaque":
            api.opaque[rest] = True
        elif kind == "struct":
            name, size, alignment = re.fullmatch(r"(\w+): (\d+) bytes, aligned to (\d+)", rest).groups()
            current = api.struct[name] = Struct(int(size), int(alignment))
        elif kind in ("typedef", "function"):
            declaration = read_declaration(tokens_of(rest))
            getattr(api, kind)[declaration.name] = declaration
        elif kind in ("constant", "macro", "default"):
            name, value = rest.split(" = ", 1)
            getattr(api, kind)[name] = value
        elif kind != "#":
            raise Unreadable(f"not a line of a list of declarations: {line}")
    return api


# ---- what a change means ----


def compare_declarations(what, old, new):
    """Parameters of one type that change places show in their names alone, so names count where they are the same ones."""
    if old.type != new.type:
        return [(BREAK, f"{what}: `{old.text}` became `{new.text}`")]
    if old.names == new.names:
        return []
    if sorted(old.names) == sorted(new.names):
        return [(BREAK, f"{what}: parameters changed places: `{old.text}` became `{new.text}`")]
    return [(RENAMED, f"{what}: `{old.text}` became `{new.text}`")]


def compare_structs(name, old, new):
    changes = []
    for i, field in enumerate(old.fields):
        what = f"struct {name}, {field.declaration.name}"
        if i == len(new.fields):
            return [*changes, (BREAK, f"{what}: is gone")]
        other = new.fields[i]
        if (field.declaration.name, field.offset, field.size) != (other.declaration.name, other.offset, other.size):
            return [*changes, (BREAK, f"{what}: offset {field.offset}, {field.size} bytes; in its place stands "
                                      f"{other.declaration.name}: offset {other.offset}, {other.size} bytes")]
        changes += compare_declarations(what, field.declaration, other.declaration)
    grown = new.fields[len(old.fields):]
    may_grow = old.fields[0].declaration.text == "uint32_t struct_size"
    for field in grown:
        after = field.offset >= old.size
        changes.append((ADDED if may_grow and after else BREAK, f"struct {name}, {field.declaration.name}: is new"))
    if old.alignment != new.alignment or (not grown and old.size != new.size):
        changes.append((BREAK, f"struct {name}: {old.size} bytes, aligned to {old.alignment}, became {new.size}, {new.alignment}"))
    return changes


def compare(old, new):
    """[(BREAK | ADDED | RENAMED, text)]. Defaults are left out where `new` has none (no library was asked)."""
    changes = []
    for kind in ("opaque", "typedef", "constant", "macro", "struct", "function", "default"):
        before, after = getattr(old, kind), getattr(new, kind)
        if kind == "default" and not after:
            continue
        changes += [(BREAK, f"{kind} {name}: is gone") for name in before if name not in after]
        changes += [(ADDED, f"{kind} {name}: is new") for name in after if name not in before]
        for name in (n for n in before if n in after):
            if kind == "struct":
                changes += compare_structs(name, before[name], after[name])
            elif isinstance(before[name], Declaration):
                changes += compare_declarations(f"{kind} {name}", before[name], after[name])
            elif before[name] != after[name]:
                changes.append((BREAK, f"{kind} {name}: {before[name]} became {after[name]}"))
    return changes


def version_refused(released, version, changes):
    """Why this version may not bring the changes since the released one, or None (docs/ABI.md)."""
    kinds = {kind for kind, _ in changes}
    if version < released:
        return "the version is older than the released one"
    if version[0] > released[0]:
        return None
    if BREAK in kinds and version[0] > 0:
        return "programs break, so MAJOR has to rise"
    if kinds & {BREAK, ADDED} and version[1] == released[1]:
        return "the API changed, so MINOR has to rise"
    return None


def flaws(api):
    """What no public header may have: padding holes, types of no fixed size in structs, bool."""
    found = []
    for name, struct in api.struct.items():
        filled = 0
        for field in struct.fields:
            if field.offset != filled:
                found.append(f"struct {name}: {field.offset - filled} bytes of padding before {field.declaration.name}")
            filled = field.offset + field.size
            type_ = api.resolve(field.declaration.type)
            if "*" not in type_ and not FIXED.fullmatch(type_.split(" ")[0]):
                found.append(f"struct {name}, {field.declaration.name}: `{field.declaration.type}` is no fixed-size plain type")
        if filled != struct.size:
            found.append(f"struct {name}: {struct.size - filled} bytes of padding at the end")
        if struct.fields[0].declaration.text != "uint32_t struct_size":
            found.append(f"struct {name} does not begin with struct_size")
    for name, declaration in {**api.typedef, **api.function}.items():
        if re.search(r"\b_Bool\b|\benum\b", declaration.type):
            found.append(f"{name}: bool and enum have no fixed size: {declaration.text}")
    return found


if __name__ == "__main__":
    sys.stdout.write(program(parse(sys.argv[2], sys.argv[3:])))
