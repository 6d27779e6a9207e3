# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""paligemma/_library.py against include/paligemma/paligemma.h: every function, struct, callback and constant, each type.

tests/abi/api.txt holds what the C compiler made of the header; the ABI tests keep it equal to the header.
"""
import ctypes
import pathlib
import re

import pytest

from paligemma import _library as c

ROOT = pathlib.Path(__file__).resolve().parents[2]
API = (ROOT / "tests/abi/api.txt").read_text()
HEADER = (ROOT / "include/paligemma/paligemma.h").read_text()
FUNCTIONS = {name: (result, arguments) for result, name, arguments in
             re.findall(r"^function (.*?)(\w+)\((.*)\)$", API, flags=re.M)}
# name: (bytes, [(offset, bytes, declaration)])
STRUCTS = {name: (int(size), [(int(offset), int(bytes_), declaration) for offset, bytes_, declaration in
                              re.findall(r"^ +(\d+) +(\d+) (.*)$", fields, flags=re.M)])
           for name, size, fields in re.findall(r"^struct (\w+): (\d+) bytes.*\n((?:  .*\n)+)", API, flags=re.M)}
CALLBACKS = {name: (result, arguments) for result, name, arguments in
             re.findall(r"^typedef (.*?)\(\*(\w+)\)\((.*)\)$", API, flags=re.M)}
OPAQUE = re.findall(r"^opaque (\w+)$", API, flags=re.M)
NUMBERS = {"uint8_t": ctypes.c_uint8, "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint32_t": ctypes.c_uint32,
           "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t, "float": ctypes.c_float, "double": ctypes.c_double,
           "pg_status": ctypes.c_int32}
VOID_P = ctypes.c_void_p


def camel(name):
    """pg_model_options -> ModelOptions"""
    return "".join(part.capitalize() for part in name.split("_")[1:])


def pointed(kind, stars):
    """What the binding may say for `kind` with so many stars; handles and bytes are void pointers."""
    if kind == "char" and stars:  # a written pointer may be asked for with its size, NULs included
        return {1: [ctypes.c_char_p], 2: [ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(VOID_P)]}[stars]
    if stars and (kind in ("void", "uint8_t") or kind in OPAQUE):
        return {1: [VOID_P], 2: [ctypes.POINTER(VOID_P)]}[stars]
    if kind == "void":
        return [None]
    base = NUMBERS.get(kind) or getattr(c, camel(kind))
    assert stars <= 1
    return [ctypes.POINTER(base) if stars else base]


def types(declaration, named=True):
    """The ctypes that fit a C declaration such as "const char *const *prompts" or "int64_t shape[4]"."""
    callback = re.fullmatch(r"(.*)\(\*(\w+)\)\((.*)\)", declaration)
    if callback:
        return [function_type(callback[1], callback[3])]
    kind, stars, length = re.fullmatch(r"(?:const )?(\w+) ?((?:\*|const| )*)" + (r"\w+" if named else "") +
                                       r"(?:\[(\d+)\])?", declaration).groups()
    found = pointed(kind, stars.count("*"))
    return [kind * int(length) for kind in found] if length else found


def split(arguments):
    return [] if arguments == "void" else arguments.split(", ")


def function_type(result, arguments):
    return ctypes.CFUNCTYPE(*types(result.strip(), named=False), *(types(argument)[0] for argument in split(arguments)))


def test_the_list_is_that_of_the_header():
    declared = set(re.findall(r"^PG_API [^;]*?(pg_\w+)\(", HEADER, flags=re.M))
    assert declared == set(FUNCTIONS) and len(declared) > 60
    assert set(STRUCTS) == set(re.findall(r"^} (pg_\w+);$", HEADER, flags=re.M))
    constants = {name for group in re.findall(r"^enum \{(.*?)\}", HEADER, flags=re.M | re.S)
                 for name in re.findall(r"\b(PG_\w+) =", group)}
    assert constants == set(re.findall(r"^constant (\w+)", API, flags=re.M)) and len(constants) > 70


def test_every_function_is_bound():
    assert {*c.STATUS_FUNCTIONS, *c.OTHER_FUNCTIONS} == set(FUNCTIONS)
    assert not c.STATUS_FUNCTIONS.keys() & c.OTHER_FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_the_header_says(name):
    result, arguments = FUNCTIONS[name]
    bound = getattr(c.lib, name)
    assert [bound.restype] == types(result.strip(), named=False)
    assert (result.strip() == "pg_status") == (name in c.STATUS_FUNCTIONS)
    arguments = split(arguments)
    assert len(bound.argtypes) == len(arguments)
    for found, declaration in zip(bound.argtypes, arguments):
        assert found in types(declaration), declaration


def test_every_struct_is_declared():
    ours = {kind.__name__ for kind in vars(c).values() if isinstance(kind, type) and issubclass(kind, c.Struct)}
    assert ours == {"Struct", *map(camel, STRUCTS)}


@pytest.mark.skipif(ctypes.sizeof(VOID_P) != 8, reason="the committed list is that of 64-bit systems")
@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_laid_out_as_the_header_says(name):
    kind, (size, fields) = getattr(c, camel(name)), STRUCTS[name]
    assert ctypes.sizeof(kind) == size
    assert len(kind._fields_) == len(fields)
    for (ours, our_type), (offset, n_bytes, declaration) in zip(kind._fields_, fields):
        assert ours == re.search(r"\(\*(\w+)\)|(\w+)(?:\[\d+\])?$", declaration)[1 if "(" in declaration else 2]
        assert (getattr(kind, ours).offset, getattr(kind, ours).size) == (offset, n_bytes)
        assert our_type in types(declaration), declaration


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_take_what_the_header_says(name):
    assert getattr(c, camel(name)) is function_type(*CALLBACKS[name])


def test_constants_are_those_of_the_header():
    theirs = {name: int(value) for name, value in re.findall(r"^constant PG_(\w+) = (-?\d+)$", API, flags=re.M)}
    theirs.update((name, int(value)) for name, value in re.findall(r"^macro PG_(CPU_\w+) = (\d+)u$", API, flags=re.M))
    ours = {name: value for name, value in vars(c).items() if name.isupper() and type(value) is int}
    del ours["API_MAJOR"], ours["API_MINOR"]  # what the package needs; test_library.py holds them to version.h
    assert ours == theirs


def test_a_struct_refuses_what_it_does_not_have():
    with pytest.raises(TypeError, match="RunOptions has no threads"):
        c.RunOptions(threads=1)
    with pytest.raises(ValueError, match="n_threads is 4294967297"):
        c.RunOptions(n_threads=2 ** 32 + 1)


def test_the_memory_of_a_session(model):
    memory = c.Memory(n_tokens=100, n_threads=1)
    c.check(c.lib.pg_model_get_memory(model._handle.pointer, ctypes.byref(memory)))
    assert memory.n_images == 1 and memory.weights > 0 and memory.activations > 0 and memory.kv_cache > 0
