#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Completions of bash, zsh and fish, made of what the tool's own --help says.

    generate.py TOOL FOLDER    writes paligemma (bash), _paligemma (zsh) and paligemma.fish
"""
import os
import re
import subprocess
import sys

# Values that are words. An option that no help has is an error: a verb may have words of its own.
WORDS = {"--weights": "stored int8 int4", "convert --weights": "int8 int4", "--arithmetic": "f32 bf16", "--kv": "f32 bf16", "--alpha": "drop white",
         "--schedule": "linear cosine constant", "--task": "text detect",
         "--convention": "1024 1023", "--cpu": "baseline avx2 avx512 avx_vnni avx512_vnni avx512_bf16 amx_int8 amx_bf16 "
                                              "neon neon_dotprod neon_i8mm neon_bf16"}
FILES, FOLDERS = {"FILE", "OUT", "ADAPTER"}, {"FOLDER"}  # names of values in the help
TOP = [("", "--help", "", "tell what the verbs do"), ("", "--version", "", "print the versions")]
NOTE = "# Completions of paligemma, made by examples/tool/completions. SPDX-License-Identifier: Apache-2.0\n"

BASH = r'''
_paligemma_models() { # folders, and ids in the local Hugging Face cache
    local hub=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}} folder
    compgen -d -- "$1"
    for folder in "$hub"/models--*; do
        test -d "$folder" || continue
        folder=${folder##*/models--}
        compgen -W "${folder/--//}" -- "$1"
    done
}

_paligemma() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} options words valued i n=0 IFS=$' \t\n'
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "@VERBS@ help --help --version" -- "$cur"))
        return
    fi
    if [[ $cur == = ]]; then # --weights=int8 is three words to bash
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $verb in
@CASES@        help) ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -W "@VERBS@" -- "$cur")); return ;;
        *) return ;;
    esac
    case $verb:$prev in
@VALUES@        *)
            if [[ " $valued " == *" $prev "* ]]; then return; fi
            if [[ $cur == -* ]]; then
                COMPREPLY=($(compgen -W "$options" -- "$cur"))
                return
            fi
            for ((i = 2; i < COMP_CWORD; i++)); do # arguments so far
                if [[ " $valued " == *" ${COMP_WORDS[i]} "* ]]; then
                    ((i++))
                elif [[ ${COMP_WORDS[i]} != -* ]]; then
                    ((n++))
                fi
            done
            IFS=$'\n'
            if ((n == 0)); then
                COMPREPLY=($(_paligemma_models "$cur"))
            else
                COMPREPLY=($(compgen -f -- "$cur"))
            fi
            ;;
    esac
}
complete -o filenames -F _paligemma paligemma
'''

ZSH = r'''
_paligemma_models() { # folders, and ids in the local Hugging Face cache
    local hub=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}}
    local -a ids
    ids=($hub/models--*(N/:t))
    ids=(${ids#models--})
    ids=(${ids/--//})
    _alternative 'folders:folder:_files -/' "ids:model id:compadd -a ids"
}

_paligemma() {
    local curcontext=$curcontext state line
    local -a verbs
    verbs=(
@VERBS@    )
    _arguments -C '--help[tell what the verbs do]' '--version[print the versions]' '1:verb:->verb' '*::argument:->arguments' && return
    case $state in
        verb) _describe -t verbs verb verbs ;;
        arguments)
            case $words[1] in
@CASES@                help) _describe -t verbs verb verbs ;;
            esac
            ;;
    esac
}

if [[ $funcstack[1] == _paligemma ]]; then _paligemma "$@"; else compdef _paligemma paligemma; fi
'''

FISH = r'''
function __paligemma_models # ids in the local Hugging Face cache, and folders
    set -l hub $HOME/.cache/huggingface/hub
    set -q XDG_CACHE_HOME; and set hub $XDG_CACHE_HOME/huggingface/hub
    set -q HF_HOME; and set hub $HF_HOME/hub
    set -q HUGGINGFACE_HUB_CACHE; and set hub $HUGGINGFACE_HUB_CACHE
    set -q HF_HUB_CACHE; and set hub $HF_HUB_CACHE
    for folder in $hub/models--*/
        string replace -r '.*/models--(.*)/$' '$1' $folder | string replace -- -- /
    end
    __fish_complete_directories (commandline -ct)
end

complete -c paligemma -n __fish_use_subcommand -f
'''


def help_of(tool, *arguments):
    return subprocess.run([tool, *arguments, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()


def clause(text):
    """The beginning of a description: without what is in brackets, one line."""
    text = re.split(r"; |\. ", re.sub(r" ?\([^()]*\)", "", " ".join(text.split())))[0].rstrip(" ;.,:")
    return text if len(text) <= 72 else text[:text.rindex(" ", 0, 70)].rstrip(",:") + " ..."


def options_of(text):
    """(letter, name, value, description) of each option in a help text."""
    found = re.findall(r"^ +(?:(-\w), )?(--[a-z][a-z0-9-]*)(?: ([A-Z]+))? {2,}((?:.*\n {8,}(?! *-))*.*)$", text, re.MULTILINE)
    return [(letter, name, value, clause(what)) for letter, name, value, what in found]


def verbs_of(tool):
    """{verb: (what it does, its options)}"""
    found = {}
    for verb, what in re.findall(r"^  paligemma (\w+)[^\n]*?(?:\n {8,}|  +)(\S[^\n]*)$", help_of(tool), re.MULTILINE):
        options = options_of(help_of(tool, verb)) + [("-h", "--help", "", "tell about this verb")]
        found[verb] = (what, options)
    for key in WORDS:
        verb, _, name = key.rpartition(" ")
        if not any(name == o[1] for v, (_, options) in found.items() if verb in ("", v) for o in options):
            sys.exit(f"generate.py: WORDS has {key}, which no help has")
    return found


def words_of(verb, name):
    return WORDS.get(f"{verb} {name}", WORDS.get(name, ""))


def bash(verbs):
    cases = values = ""
    for verb, (_, options) in verbs.items():
        names = " ".join(n for o in options for n in (o[1], o[0]) if n)
        valued = " ".join(n for o in options if o[2] for n in (o[1], o[0]) if n)
        cases += f'        {verb}) options="{names}" valued="{valued}" ;;\n'
        for letter, name, value, _ in options:
            pattern = f"{verb}:{name}" + (f" | {verb}:{letter}" if letter else "")
            if words_of(verb, name):
                values += f'        {pattern}) COMPREPLY=($(compgen -W "{words_of(verb, name)}" -- "$cur")) ;;\n'
            elif value in FILES:
                values += f"        {pattern}) IFS=$'\\n' COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
            elif value in FOLDERS:
                values += f"        {pattern}) IFS=$'\\n' COMPREPLY=($(_paligemma_models \"$cur\")) ;;\n"
    return NOTE + BASH.replace("@VERBS@", " ".join(verbs)).replace("@CASES@", cases).replace("@VALUES@", values)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def zsh(verbs):
    cases = ""
    for verb, (_, options) in verbs.items():
        cases += f"                {verb}) _arguments -s -S"
        for letter, name, value, what in options:
            what = re.sub(r"([\[\]:\\])", r"\\\1", what)
            action = f"({words_of(verb, name)})" if words_of(verb, name) else "_files" if value in FILES else \
                "_paligemma_models" if value in FOLDERS else " "
            tail = f"[{what}]" + (f":{value}:{action}" if value else "")
            names = [(name + ("=" if value else "")), letter + ("+" if value else "")] if letter else [name + ("=" if value else "")]
            for spelled in names:
                cases += " \\\n                    " + quoted((f"({letter} {name})" if letter else "") + spelled + tail)
        cases += " \\\n                    '1:model:_paligemma_models' '*:argument:_files' ;;\n"
    named = "".join(f"        {quoted(verb + ':' + what.replace(':', chr(92) + ':'))}\n" for verb, (what, _) in verbs.items())
    return "#compdef paligemma\n" + NOTE + ZSH.replace("@VERBS@", named).replace("@CASES@", cases)


def fish(verbs):
    def string(text):
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = [f"complete -c paligemma -n __fish_use_subcommand -l {name[2:]} -d {string(what)}" for _, name, _, what in TOP]
    for verb, (what, options) in verbs.items():
        lines.append(f"complete -c paligemma -n __fish_use_subcommand -a {verb} -d {string(what)}")
        lines.append(f"complete -c paligemma -n '__fish_seen_subcommand_from help' -f -a {verb}")
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        lines.append(f"complete -c paligemma {seen} -a '(__paligemma_models)'")
        for letter, name, value, what in options:
            kind = f" -x -a {string(words_of(verb, name))}" if words_of(verb, name) else " -r -F" if value in FILES else \
                " -x -a '(__paligemma_models)'" if value in FOLDERS else " -x" if value else ""
            lines.append(f"complete -c paligemma {seen} -l {name[2:]}" + (f" -s {letter[1:]}" if letter else "") + kind
                         + f" -d {string(what)}")
    return NOTE + FISH + "\n".join(lines) + "\n"


def main():
    tool, folder = sys.argv[1:3]
    verbs = verbs_of(tool)
    for name, text in [("paligemma", bash(verbs)), ("_paligemma", zsh(verbs)), ("paligemma.fish", fish(verbs))]:
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


main()
