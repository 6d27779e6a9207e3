# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes numbers.txt: numbers of JSON's grammar and the bits of what Python's json makes of them as reals.

    python3 make_numbers.py
"""
import json
import math
import pathlib
import random
import struct
from fractions import Fraction


def exact(value):
    """All digits of a fraction whose denominator is a power of two."""
    n, d = value.numerator, value.denominator
    shift = d.bit_length() - 1
    digits = str(n * 5**shift)
    return f"{digits}e-{shift}"


def halves(r):
    """Texts at and beside the middle of two doubles that are next to each other."""
    low = struct.unpack("<d", struct.pack("<Q", r.choice([r.getrandbits(62), r.getrandbits(52), r.getrandbits(4)])))[0]
    if not math.isfinite(low):
        return
    high = math.nextafter(low, math.inf)
    if not math.isfinite(high):
        return
    text = exact((Fraction(low) + Fraction(high)) / 2)
    digits, exponent = text.split("e")
    yield text
    yield f"{digits}0000000000000000000000001e{int(exponent) - 25}"
    yield f"{digits[:-1]}{int(digits[-1]) - 1 if digits[-1] != '0' else '0'}9e{int(exponent) - 1}"


def numbers(r):
    yield from ["0", "-0", "0.0", "-0.0", "0e999999999999999999999", "1e400", "-1e400", "1e-400", "1e99999999999999999999",
                "1e-99999999999999999999", "1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308",
                "1.797693134862315807e308", "1.797693134862315808e308", "2.2250738585072014e-308", "2.2250738585072011e-308",
                "4.9406564584124654e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "5e-324", "3e-324", "2e-324",
                "9007199254740993", "9007199254740993.0000000000000001", "0." + "0" * 330 + "1", "0." + "0" * 300 + "123",
                "1" + "0" * 308, "1" + "0" * 309, "1" + "0" * 400 + "e-400", "0." + "0" * 400 + "1e400", "9" * 800 + "e-500",
                "1000000000000000019884624838656"]
    for _ in range(250):
        yield repr(struct.unpack("<d", struct.pack("<Q", r.getrandbits(63) % (0x7FF << 52)))[0])
        yield f"{r.getrandbits(64)}e{r.randint(-345, 300)}"
        yield f"{r.randint(0, 999)}.{r.getrandbits(r.choice([8, 30, 60, 200]))}E{r.choice(['+', ''])}{r.randint(0, 25)}"
        yield f"-{r.randint(0, 10**r.randint(1, 22))}e-{r.randint(0, 24)}"
    for _ in range(40):
        yield from halves(r)


def main():
    lines = []
    for text in numbers(random.Random(13)):
        value = float(json.loads(text, parse_int=float))
        lines.append(f"{text} {struct.unpack('<Q', struct.pack('<d', value))[0]:016x}\n")
    pathlib.Path(__file__).with_name("numbers.txt").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
