#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What llvm-mca makes of the inner loops of the AArch64 kernels, beside what each CPU multiplies at most.

    python tests/bench/estimate_arm.py BUILD [--mca llvm-mca-19]

BUILD is a cross build (docs/TESTING.md). The loop of a kernel is the innermost one with most of its multiplying
instruction. Neoverse N1 stands for Cortex-A76, of which it is the server's form. An estimate knows no caches and no
memory: everything is found in the first level.
"""
import argparse
import pathlib
import re
import subprocess

CPUS = ("neoverse-n1", "neoverse-v1", "neoverse-v2")
# Instruction set, function, what multiplies (expression), multiply-adds of one, the instruction alone for the peak.
LOOPS = (
    ("neon", "gemm", "fmla", 4, "fmla D.4s, v24.4s, v25.s[1]"),
    ("neon", "gemv_bf16", "fmla", 4, "fmla D.4s, v24.4s, v25.4s"),
    ("neon_bf16", "gemm_bf16", "bfmmla", 16, "bfmmla D.4s, v24.8h, v25.8h"),
    ("neon", "product_int8_4", "smull|smlal", 8, "smlal D.8h, v24.8b, v25.8b"),
    ("neon_dotprod", "product_int8_12", "sdot", 16, "sdot D.4s, v24.16b, v25.4b[1]"),
    ("neon_dotprod", "product_int8_1", "sdot", 16, "sdot D.4s, v24.16b, v25.4b[1]"),
    ("neon_i8mm", "product_int8_12", "usmmla", 32, "usmmla D.4s, v24.16b, v25.16b"),
)
BRANCH = re.compile(r"(?:b\.\w+|cbn?z|tbn?z)\s.*?([0-9a-f]+) <")


def loops(file):
    """[(function, instructions)] of the loops without a loop in them."""
    text = subprocess.run(["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", file], capture_output=True, text=True,
                          check=True).stdout
    found = []
    for part in re.split(r"^[0-9a-f]+ <(?=.*>:$)", text, flags=re.MULTILINE)[1:]:
        name, lines = part.split(">:", 1)
        code = [(int(address, 16), instruction.split("//")[0].strip().replace("\t", " "))
                for address, instruction in re.findall(r"^\s+([0-9a-f]+):\s+(.*)$", lines, re.MULTILINE)]
        place = {address: i for i, (address, _) in enumerate(code)}
        for i, (_, instruction) in enumerate(code):
            branch = BRANCH.match(instruction)
            begin = place.get(int(branch.group(1), 16), i + 1) if branch else i + 1
            body = [text for _, text in code[begin:i + 1]]
            if body and sum(bool(BRANCH.match(text)) for text in body) == 1:
                found.append((name.split(".")[0], body))
    return found


def cycles(body, cpu, mca):
    """Of one turn."""
    turns = 400
    text = ".L0:\n" + "\n".join(re.sub(r"[0-9a-f]+ <.*>", ".L0", line) for line in body) + "\n"
    said = subprocess.run([mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm,+bf16", f"-iterations={turns}"],
                          input=text, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", said).group(1)) / turns


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--mca", default="llvm-mca-19")
    args = parser.parse_args()
    print(f"| loop | instructions, of them multiply | {' | '.join(CPUS)} |\n|---|---|{'---|' * len(CPUS)}")
    for isa, function, expression, products, alone in LOOPS:
        file = args.build / f"lib/kernels/libpgi_kernels_{isa}.a.p/arm_{isa}.c.o"
        def multiply(body):
            return sum(bool(re.match(expression, line)) for line in body)
        body = max((body for name, body in loops(file) if name == function), key=multiply)
        peak = [alone.replace("D", f"v{i}") for i in range(24)] + ["subs x0, x0, #1", "b.ne 0 <>"]
        cells = []
        for cpu in CPUS:
            rate = products * multiply(body) / cycles(body, cpu, args.mca)
            roof = products * 24 / cycles(peak, cpu, args.mca)
            cells.append(f"{rate:.1f} of {roof:.0f}, {100 * rate / roof:.0f}%")
        print(f"| {isa}: {function} | {len(body)}, {multiply(body)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
