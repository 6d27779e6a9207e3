# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The library's JSON reader beside Python's json: random documents, whole and damaged, as one field of a config.json.

    python3 tests/oracle/json_live.py [--seed S] [--count N]

pg_checkpoint_get_config() gives the field back as the library read it. Both take a document and hold the same values,
types and bits of numbers; or both refuse it. What the library alone refuses, as it says in lib/checkpoint/json.h, is
counted by itself: two values under one key, U+0000, lone surrogates, NaN and Infinity, numbers too large for 64 bits or a
double, depth above 32.
"""
import ctypes
import json
import math
import os
import random
import struct
import tempfile

import pglib
import seeded


class Strict(Exception):
    """Python takes it, the library says that it does not."""


def unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Strict("two values under one key")
    return found


def constant(text):
    raise Strict(text)


def integer(text):
    value = int(text)
    if not -2**63 <= value < 2**63:
        raise Strict("an integer of more than 64 bits")
    return value


def real(text):
    value = float(text)
    if math.isinf(value):
        raise Strict("too large for a double")
    return value


def check_text(text):
    if "\0" in text or any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise Strict("U+0000, or half of a pair")


def check(value, depth=1):
    """The rules of which json knows nothing."""
    if depth > 32:
        raise Strict("too deep")
    if isinstance(value, str):
        check_text(value)
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        check(item, depth + isinstance(item, (list, dict)))
    for key in value if isinstance(value, dict) else ():
        check_text(key)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


class Writer:
    """Random documents, written in random ways."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def space(self):
        return self.r.choice(["", "", "", " ", "\n", "\t\r\n "])

    def number(self):
        r = self.r
        form = r.randrange(8)
        if form == 0:
            return str(r.randint(-9, 99))
        if form == 1:
            return str(r.getrandbits(r.choice([31, 62, 63, 64])) * r.choice([1, -1]))
        if form == 2:
            return repr(struct.unpack("<d", struct.pack("<Q", r.getrandbits(64) % (0x7FF << 52)))[0])
        if form == 3:
            return f"{r.getrandbits(r.choice([20, 53, 64, 90, 400]))}e{r.randint(-420, 320)}"
        if form == 4:
            return f"{r.choice(['-', ''])}{r.randint(0, 999)}.{'0' * r.randint(0, 30)}{r.getrandbits(r.choice([8, 60, 300]))}"
        if form == 5:
            return f"-{r.randint(0, 9)}{r.choice(['e', 'E'])}{r.choice(['', '+', '-'])}{r.randint(0, 400)}"
        if form == 6:  # at and beside the middle of two doubles
            low = struct.unpack("<d", struct.pack("<Q", (r.getrandbits(10) + 700) << 52 | r.getrandbits(52)))[0]
            a, b = low.as_integer_ratio(), math.nextafter(low, math.inf).as_integer_ratio()
            n, d = a[0] * b[1] + b[0] * a[1], 2 * a[1] * b[1]
            shift = d.bit_length() - 1
            return f"{n * 5**shift + r.choice([-1, 0, 0, 1])}e-{shift}"
        return r.choice(["0", "-0", "-0.0", "0e5", "1E400", "NaN", "-Infinity", "1e-400"])

    def text(self):
        r, out = self.r, '"'
        for _ in range(r.choice([0, 1, 3, 8, 60])):
            c = r.choice([r.randrange(0x20, 0x7F), r.randrange(0x80, 0x800), r.randrange(0x800, 0xD800), 0x1F431])
            escapes = ['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", f"\\u{c & 0xFFFF:04x}", "\\ud83d\\uDC31"]
            out += r.choice(escapes) if r.random() < 0.2 or chr(c) in '"\\' else chr(c)
        return out + '"'

    def value(self, depth):
        r, s = self.r, self.space
        form = r.randrange(4 if depth < 5 else 2)
        if r.random() < 0.01:
            deep = r.randint(25, 35)
            return "[" * deep + "]" * deep
        if form == 0:
            return self.number()
        if form == 1:
            return r.choice([self.text(), self.text(), "true", "false", "null"])
        n = r.choice([0, 1, 2, 5, 20])
        if form == 2:
            return "[" + s() + ",".join(s() + self.value(depth + 1) + s() for _ in range(n)) + "]"
        return "{" + s() + ",".join(f"{s()}{self.text()}{s()}:{s()}{self.value(depth + 1)}" for _ in range(n)) + "}"

    def damaged(self, data):
        r = self.r
        for _ in range(r.choice([1, 1, 2, 5])):
            at = r.randrange(len(data) + 1)
            piece = r.choice([b"", bytes([r.randrange(256)]), r.choice([b",", b"]", b"}", b'"', b"\\", b"-", b".", b"e"])])
            data = data[:at] + piece + data[at + r.randrange(3):]
        return data


def ours(folder):
    binding = pglib.binding()
    needed = ctypes.c_size_t()
    binding.check(binding.lib.pg_checkpoint_get_config(folder.encode(), None, 0, ctypes.byref(needed)))
    text = ctypes.create_string_buffer(needed.value)
    binding.check(binding.lib.pg_checkpoint_get_config(folder.encode(), text, needed.value, None))
    return json.loads(text.value.decode())["zz"]


def theirs(data):
    whole = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=constant, parse_int=integer,
                       parse_float=real)
    if not isinstance(whole, dict) or list(whole) != ["zz"]:
        raise ValueError("another field")
    check(whole["zz"], 1 + isinstance(whole["zz"], (list, dict)))
    return whole["zz"]


def compare(folder, data, counts):
    with open(os.path.join(folder, "config.json"), "wb") as file:
        file.write(data)
    try:
        found = ours(folder)
    except Exception as error:  # noqa: BLE001, of whatever kind the status makes it
        found = error
    try:
        wanted = theirs(data)
    except Strict:
        counts["strict"] += 1
        return isinstance(found, Exception)
    except (ValueError, RecursionError):
        counts["refused"] += 1
        return isinstance(found, Exception)
    counts["taken"] += 1
    return not isinstance(found, Exception) and same(found, wanted)


def main():
    args = seeded.arguments(__doc__, 3000).parse_args()
    pglib.Library(args.build)
    counts = {"taken": 0, "refused": 0, "strict": 0}
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeded.seeds(args.seed, args.count):
            writer = Writer(seed)
            data = ("{" + writer.space() + '"zz":' + writer.value(0) + "}").encode("utf-8", "surrogatepass")
            if seed % 3 == 0:
                data = writer.damaged(data)
            if compare(folder, data, counts):
                passed += 1
            else:
                failed += 1
                print(f"seed {seed}: {data[:200]!r}", flush=True)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
