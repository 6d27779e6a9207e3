#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The completions of bash, zsh and fish: each shell that is here loads them, and they offer what the tool takes.

    completions.py TOOL FOLDER SOURCE
"""
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

TOOL, FOLDER, SOURCE = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import tool_checks
from tool_checks import expect


def help_of(*words):
    return subprocess.run([TOOL, *words, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()


VERBS = re.findall(r"^  paligemma (\w+)", help_of(), re.MULTILINE)
OPTIONS = {verb: re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]*)", help_of(verb), re.MULTILINE) for verb in VERBS}


def environment(home):
    hub = os.path.join(home, "hub")
    for name in ("models--google--paligemma-3b", "models--my--own", "datasets--no--model"):
        os.makedirs(os.path.join(hub, name), exist_ok=True)
    os.makedirs(os.path.join(home, "work", "photos"), exist_ok=True)
    for name in ("a b.png", "list.txt"):
        open(os.path.join(home, "work", name), "w").close()
    return {**os.environ, "HOME": home, "HF_HUB_CACHE": hub, "TERM": "dumb", "LC_ALL": "C.UTF-8", "ZDOTDIR": home,
            "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}


def in_bash(home, *words):
    """What is offered for the last word; bash divides words at "=", too."""
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _paligemma; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "--norc", "-u", "-c", script, "bash", os.path.join(FOLDER, "paligemma"), *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home), cwd=os.path.join(home, "work"))
    expect(f"bash {words}", done.returncode == 0 and done.stderr == b"", done)
    return set(done.stdout.decode().split("\n")) - {""}


def in_fish(home, *words):
    line = " ".join(words)
    done = subprocess.run(["fish", "--no-config", "-c", f"source {FOLDER}/paligemma.fish; complete -C '{line}'"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment(home), cwd=os.path.join(home, "work"))
    expect(f"fish {words}", done.returncode == 0 and done.stderr == b"", done)
    return {line.split("\t")[0].rstrip("/").replace("\\ ", " ") for line in done.stdout.decode().splitlines()}


def offers(name, of):
    """The same for each shell that lists what it offers."""
    with tempfile.TemporaryDirectory() as home:
        expect(f"{name}: verbs", {*VERBS, "help"} - {"help"} <= of(home, "paligemma", ""), of(home, "paligemma", ""))
        for verb in VERBS:
            found = of(home, "paligemma", verb, "--")
            expect(f"{name}: options of {verb}", {*OPTIONS[verb], "--help"} == {o for o in found if o.startswith("--")}, found)
        expect(f"{name}: words", of(home, "paligemma", "run", "--weights", "") == {"stored", "int8", "int4"}
               and of(home, "paligemma", "convert", "--weights", "") == {"int8", "int4"})
        expect(f"{name}: a number", of(home, "paligemma", "run", "--threads", "") == set())
        models = of(home, "paligemma", "run", "")
        expect(f"{name}: models", {"google/paligemma-3b", "my/own", "photos"} <= models and not any("datasets" in m for m in models), models)
        expect(f"{name}: images", {"a b.png", "photos"} <= of(home, "paligemma", "detect", "m", "--threads", "2", ""),
               of(home, "paligemma", "detect", "m", "--threads", "2", ""))
        expect(f"{name}: a file", "list.txt" in of(home, "paligemma", "run", "--images-from", ""))
        expect(f"{name}: help of verbs", {*VERBS} <= of(home, "paligemma", "help", ""))


def bash():
    with tempfile.TemporaryDirectory() as home:
        expect("bash: --weights=", in_bash(home, "paligemma", "run", "--weights", "=") == {"stored", "int8", "int4"}
               and in_bash(home, "paligemma", "run", "--weights", "=", "i") == {"int8", "int4"})
        expect("bash: an unknown verb", in_bash(home, "paligemma", "fly", "") == set())
    offers("bash", in_bash)


def zsh():
    """A zsh that a person types into: what it offers cannot be asked for otherwise."""
    with tempfile.TemporaryDirectory() as home:
        env = environment(home)
        master, slave = pty.openpty()
        process = subprocess.Popen(["zsh", "-f", "-i"], stdin=slave, stdout=slave, stderr=slave, env={**env, "COLUMNS": "200"},
                                   cwd=os.path.join(home, "work"), start_new_session=True)
        os.close(slave)

        def type_in(keys, *words):
            os.write(master, keys.encode())
            shown, end = "", time.monotonic() + 20
            while time.monotonic() < end and not all(word in shown for word in words):
                if select.select([master], [], [], 0.2)[0]:
                    shown += os.read(master, 65536).decode(errors="replace")
            return all(word in shown for word in words), shown

        type_in(f"PS1='READY''> '; fpath=({FOLDER} $fpath); autoload -Uz compinit; compinit -u -D; "
                "LISTMAX=10000; print LOA''DED\n", "LOADED", "READY> ")
        for n, (keys, words) in enumerate([("paligemma \t\t", VERBS), ("paligemma detect --\t\t", OPTIONS["detect"]),
                            ("paligemma run --weights \t\t", ["int4", "int8", "stored"]), ("paligemma convert --weights=\t\t", ["int4", "int8"]),
                            ("paligemma run \t\t", ["google/paligemma-3b", "my/own", "photos/"]), ("paligemma run m \t\t", ["a\\ b.png", "photos/"])]):
            found, shown = type_in(keys, *words)
            expect(f"zsh: {keys!r}", found and "command not found" not in shown and "_arguments:" not in shown, shown)
            type_in(f"\x15print SY''NC{n}\n", f"SYNC{n}", "READY> ")  # Ctrl-U: instead of what stands there
        process.kill()
        process.wait()
        os.close(master)


def words_are_taken():
    """No word that is offered is a usage error."""
    sys.path.insert(0, os.path.join(SOURCE, "examples", "tool", "completions"))
    with open(os.path.join(SOURCE, "examples", "tool", "completions", "generate.py")) as file:
        table = dict(re.findall(r'"((?:\w+ )?--[a-z0-9-]+)": "([^"]*)"', file.read()))
    expect("a table of words", len(table) >= 6, table)
    for key, words in table.items():
        of, _, name = key.rpartition(" ")
        for verb in [of] if of else [v for v in VERBS if name in OPTIONS[v] and f"{v} {name}" not in table]:
            given = ["/nowhere" if not word.startswith("-") else word for word in re.findall(r" (--[a-z]+|[A-Z]+)\b", help_of(verb).split("\n")[0])]
            for word in words.split():
                done = subprocess.run([TOOL, verb, *given, name, word], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
                expect(f"{verb} {name} {word}", done.returncode == 1, done)
            done = subprocess.run([TOOL, verb, *given, name, "nonsense"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            expect(f"{verb} {name} nonsense", done.returncode == 2, done)


def main():
    words_are_taken()
    for shell, check in [("bash", bash), ("zsh", zsh), ("fish", lambda: offers("fish", in_fish))]:
        if shutil.which(shell):
            check()
        else:
            print(f"skipped: {shell} is not here")
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


sys.exit(main())
