# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What tests/abi/api.txt says of the header, and what Rust and C# declare by hand, in one shape that can be compared."""
import re

NUMBERS = {"uint8_t": "u8", "int32_t": "i32", "uint32_t": "u32", "int64_t": "i64", "uint64_t": "u64", "size_t": "usize",
           "float": "f32", "double": "f64", "char": "c_char", "void": "c_void", "pg_status": "pg_status"}
RUST_SIZES = {"u8": 1, "i32": 4, "u32": 4, "f32": 4, "i64": 8, "u64": 8, "usize": 8, "f64": 8, "pg_status": 4}
SHARP_SIZES = {"byte": 1, "int": 4, "uint": 4, "float": 4, "long": 8, "ulong": 8, "double": 8, "IntPtr": 8, "UIntPtr": 8}


def split(parameters):
    """Those of a C function, at the commas outside brackets."""
    return [] if parameters == "void" else re.split(r",\s*(?![^(]*\))", parameters)


def rust(declaration):
    """(name, type) as Rust has it, of a C declaration with a name."""
    pointer = re.fullmatch(r"(.+?)\(\*(\w+)\)\((.*)\)", declaration)
    if pointer:
        given = rust(pointer[1] + "_")[1]
        arguments = ", ".join(f"{n}: {t}" for n, t in map(rust, split(pointer[3])))
        arrow = "" if given == "c_void" else f" -> {given}"
        return pointer[2], f"Option<unsafe extern \"C\" fn({arguments}){arrow}>"
    constant, base, stars, name, size = re.fullmatch(r"(const )?(\w+) ?((?:\*(?:const )?)*)(\w+)(?:\[(\d+)\])?", declaration).groups()
    type_, constant = NUMBERS.get(base, base), bool(constant)
    for star in re.findall(r"\*(?:const)?", stars):
        type_ = f"*{'const' if constant else 'mut'} {type_}"
        constant = star == "*const"
    return name, f"[{type_}; {size}]" if size else type_


class Header:
    """api.txt."""

    def __init__(self, text):
        self.constants = {n: int(v.rstrip("u")) for n, v in re.findall(r"^(?:constant|macro) (PG_\w+) = (-?\d+u?)$", text, flags=re.M)}
        self.opaque = re.findall(r"^opaque (\w+)$", text, flags=re.M)
        self.callbacks = {d[0]: d[1] for d in map(rust, re.findall(r"^typedef (.*\(\*.*)$", text, flags=re.M))}
        self.structs, self.c_structs, self.sizes = {}, {}, {}
        for name, size, block in re.findall(r"^struct (\w+): (\d+) bytes[^\n]*\n((?: +\d[^\n]*\n)+)", text, flags=re.M):
            fields = [re.fullmatch(r" *(\d+) +(\d+) (.*)", line).groups() for line in block.splitlines()]
            self.sizes[name] = int(size)
            self.c_structs[name] = [(int(at), int(n), rust(c)[0]) for at, n, c in fields]
            self.structs[name] = [rust(c) for _, _, c in fields]
        self.functions = {}
        for declaration in re.findall(r"^function (.*)$", text, flags=re.M):
            start, parameters = re.fullmatch(r"([^(]*)\((.*)\)", declaration).groups()
            name, given = rust(start)
            self.functions[name] = ([rust(p) for p in split(parameters)], given)


def aligned(at, alignment):
    return (at + alignment - 1) // alignment * alignment


def layout(fields, size_of):
    """[(offset, bytes, name)] and the size of a struct in the order of C; size_of: (bytes, alignment) of a type."""
    at, most, placed = 0, 1, []
    for name, type_ in fields:
        size, alignment = size_of(type_)
        at = aligned(at, alignment)
        placed.append((at, size, name))
        at, most = at + size, max(most, alignment)
    return placed, aligned(at, most)


def rust_size(type_):
    array = re.fullmatch(r"\[(.*); (\d+)\]", type_)
    if array:
        size, alignment = rust_size(array[1])
        return size * int(array[2]), alignment
    size = 8 if type_.startswith(("*", "Option<")) or re.fullmatch(r"pg_\w+_fn", type_) else RUST_SIZES[type_]
    return size, size


def sharp_size(type_):
    array = re.fullmatch(r"(\w+)\[(\d+)\]", type_)
    size = SHARP_SIZES[array[1] if array else type_]
    return size * int(array[2] if array else 1), size


def one_line(type_):
    """A type without the line breaks and the commas that rustfmt puts into long ones."""
    return re.sub(r",?\s*([)>])", r"\1", re.sub(r"([(<])\s+", r"\1", " ".join(type_.split())))


def read_rust(text):
    """Constants, structs and functions of the sys crate."""
    text = re.sub(r"//[^\n]*", "", text)
    constants = {n: int(eval(v.replace("_", ""), {})) for n, v in re.findall(r"pub const (PG_\w+): \w+ = ([-\d_ <]+);", text)}
    structs = {}
    for attributes, name, body in re.findall(r"((?:#\[[^\]]*\]\s*)*)pub struct (pg_\w+) \{(.*?)^\}", text, flags=re.S | re.M):
        fields = [(n, one_line(t)) for n, t in re.findall(r"pub (?:r#)?(\w+): (.*?),\n(?=    pub|$)", body, flags=re.S)]
        structs[name] = ("repr(C)" in attributes, fields)
    functions = {}
    for name, parameters, given in re.findall(r"pub fn (pg_\w+)\((.*?)\)(?: -> ([^;]+))?;", text, flags=re.S):
        pairs = [tuple(" ".join(p.split()).split(": ", 1)) for p in parameters.split(",") if p.strip()]
        functions[name] = (pairs, given or "c_void")
    callbacks = {n: one_line(t) for n, t in re.findall(r"pub type (pg_\w+_fn) =\s*(Option<.*?>);", text, flags=re.S)}
    return constants, structs, functions, callbacks


def read_sharp(text):
    """Constants, structs and functions of the C# file."""
    text = re.sub(r"//[^\n]*", "", text)
    constants = {n: int(v) for n, v in re.findall(r"const u?(?:int|long) (PG_\w+) = (-?\d+);", text)}
    structs = {}
    for attributes, name, body in re.findall(r"((?:\[[^\]]*\]\s*)*)(?:internal|public)(?: unsafe)? struct (pg_\w+)\s*\{(.*?)\n    \}", text, flags=re.S):
        fields = []
        for fixed, type_, names in re.findall(r"public (fixed )?(\w+) ([^;]+);", body):
            for name_, size in re.findall(r"(\w+)(?:\[(\d+)\])?", names):
                fields.append((name_, f"{type_}[{size}]" if fixed else type_))
        structs[name] = ("LayoutKind.Sequential" in attributes, fields)
    functions = {n: (t, [" ".join(p.split()[:-1]) for p in a.split(",") if p.strip()])
                 for t, n, a in re.findall(r"static extern (\w+) (pg_\w+)\((.*?)\);", text, flags=re.S)}
    return constants, structs, functions
