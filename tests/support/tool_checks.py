# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of programs, the command-line tool and the examples, share: expectations that are counted, lines of errors, files, terminals."""
import json
import os

failures = 0


def expect(name, condition, *found):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED: {name}: found {found}")


def left_out(name):
    """Whether TEST_LEAVE_OUT names this part of a test, as it names tests in C."""
    return name in os.environ.get("TEST_LEAVE_OUT", "").split()


def one_error_line(name, result, status, *words):
    code, out, err = result
    expect(name, code == status and out == "" and err.startswith("paligemma") and err.count("\n") == 1
           and all(word in err for word in words), *result)


def write_lines(path, *lines):
    with open(path, "wb") as f:
        for line in lines:
            f.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    return path


def shown_on(master):
    """All that a terminal shows until nobody has its other end open."""
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # Linux says so at the end
        pass
    return shown
