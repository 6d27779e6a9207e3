#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes what Python's re says of patterns and names: name_pattern_cases.py > name_pattern_cases.h

The patterns are those of real adapters, in the forms in which PEFT asks them, and seeded random ones: some that follow
the grammar, and texts of the characters that mean something, many of which are malformed. Python 3.11, 3.12 and 3.13
give the same file. Possessive quantifiers are new in 3.11.
"""
import random
import re
import signal
import sys
import warnings

try:
    from re import _constants as sre, _parser
except ImportError:
    sys.exit("Python 3.11 or later is needed")

warnings.simplefilter("ignore")
N_GRAMMAR, N_SOUP = 1200, 600
UNSUPPORTED = (sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF, sre.GROUPREF_EXISTS, sre.ATOMIC_GROUP, sre.POSSESSIVE_REPEAT)

COLPALI = (r"(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$"
           r"|.*(custom_text_proj).*$)")
UNSLOTH = (r"(?:.*?(?:vision|image|visual|patch|embed|conv|encoder|decoder).*?(?:layers|layer|blocks|h)\.[\d]{1,}\."
           r"(?:self_attn|attention|mlp).*?(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2).*?)"
           r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn)\.(?:(?:q_proj|k_proj)))")
WHOLE = [
    COLPALI, UNSLOTH, r"^model\.language_model\.layers\.(1[0-7]|[0-9])\.self_attn\.(q|v)_proj$",
    r".*language_model.*\.(q_proj|v_proj)", r".*\.layers\.\d+\.mlp\..*", r"(?!.*vision_tower).*_proj", r".*proj",
    r"(?:model\.)?language_model\.(?:model\.)?layers\.(?P<layer>\d{1,2})\.(?:self_attn|mlp)\.\w+_proj",
    r"[^.]+(\.[^.]+)*\.(fc1|fc2)", r"(?i).*Q_PROJ", r"model.language_model.layers.[02468].mlp.(gate|up)_proj",
    r"multi_modal_projector\.linear|.*\blm_head\b", r".*layers\.([0-9]|1[01])\..*(?<!v)_proj", r".*?q_proj.*?",
    "all-linear", r"^(?:.*\.)?(?:[qkvo]_proj|gate_proj)$", r"", r"\A.*\.layers\.1?\d\.self_attn\.[qv]_proj\Z",
    "*.q_proj", r".*\.layers\.{0,1}\d+\.self_attn\.q_proj", r"(.+\.)+q_proj"]
KEYS = ["q_proj", "v_proj|o_proj", "lm_head", r"layers\.1\.self_attn\.q_proj", r"layers.1.self_attn.q_proj", r".*mlp.*",
        r"^model\..*q_proj", r"language_model", "custom_text_proj", r"embed_tokens|lm_head", r"layers\.\d+\.mlp",
        "q_proj$", r"self_attn\.(q|k)_proj", "proj", "mlp|"]
REAL_NAMES = """
    model.language_model.layers.0.self_attn.q_proj model.language_model.layers.9.self_attn.v_proj
    model.language_model.layers.10.self_attn.q_proj model.language_model.layers.17.self_attn.v_proj
    model.language_model.layers.18.self_attn.q_proj model.language_model.layers.1.self_attn.k_proj
    model.language_model.layers.11.self_attn.o_proj model.language_model.layers.2.mlp.gate_proj
    model.language_model.layers.3.mlp.up_proj model.language_model.layers.25.mlp.down_proj
    model.language_model.layers.4.mlp.act_fn model.language_model.layers.1.input_layernorm
    model.language_model.embed_tokens model.language_model.norm model.language_model lm_head model.lm_head
    model.lm_head.base_layer custom_text_proj base_model.custom_text_proj model.multi_modal_projector.linear
    multi_modal_projector.linear vision_tower.vision_model.encoder.layers.0.self_attn.q_proj
    model.vision_tower.vision_model.encoder.layers.26.self_attn.out_proj
    model.vision_tower.vision_model.encoder.layers.7.mlp.fc1
    model.vision_tower.vision_model.encoder.layers.13.mlp.fc2
    model.vision_tower.vision_model.embeddings.patch_embedding model.vision_tower.vision_model.post_layernorm
    language_model.model.layers.1.self_attn.q_proj language_model.model.layers.1.self_attn.v_proj
    language_model.lm_head model.layers.5.self_attn.q_proj model.layers.5.self_attn.k_proj
    model.layers.5.self_attn.v_proj xmodel.layers.5.self_attn.q_proj x.model.layers.5.self_attn.q_proj q_proj
    a.q_proj aq_proj a.q_proj.b q_proj.lora_A.default v_proj o_proj a.o_projx v_projx all-linear model.layers.1.mlp
    layers.1.mlp.experts.3 model.embed_tokens embed_tokens_2 mlp model.mlp. proj
""".split()
RANDOM_NAMES_OF = "aaabb.1_-"


def random_names(r):
    names = list("ab.1_-A]\n \x1f") + ["a\n", "\na"] + "aa ab ba aaa a.b a.b.1 {} a{ b{2} a{,b ^a a$".split()
    while len(names) < 64:
        name = "".join(r.choice(RANDOM_NAMES_OF) for _ in range(r.randint(2, 7))) + ("\n" if r.random() < 0.1 else "")
        if name not in names:
            names.append(name)
    return names


CLASS_PARTS = r"""
    a b 1 . _ a-b b-z 0-9 \d \w \W \S \s \. \- \] ^ { * \n
""".split()
ATOMS = r"""
    a a a b b 1 _ - \. . . \- \_ \w \W \d \D \s \S { } \n
""".split()
SOUP = r"""
    a b . 1 2 [ ] ( ) | * + ? { } , ^ $ - \ : (? (?: (?P< > x {1 [^ \d \b = ! # i \q \. P (?= ++ )* (?i
""".split()


def random_class(r):
    begin = r.choice(["", "", "", "", "]", "^", "^]"])
    text = "".join(r.choice(CLASS_PARTS) for _ in range(r.randint(1, 3)))
    return "[" + begin + text + r.choice(["", "", "", "-"]) + "]"


def random_quantifier(r):
    m, n = sorted(r.sample(range(4), 2))
    counts = [f"{{{m}}}", f"{{{m},}}", f"{{,{n}}}", f"{{{m},{n}}}", "{,}"]
    return r.choice(["*", "+", "?", "*", "+", "?"] + counts) + r.choice(["", "", "?"])


def random_atom(r, depth):
    if depth > 0 and r.random() < 0.35:
        return r.choice(["(", "(", "(?:", f"(?P<n{r.randint(0, 999)}>"]) + random_pattern(r, depth - 1) + ")"
    if r.random() < 0.15:
        return random_class(r)
    return r.choice(ATOMS)


def random_pattern(r, depth):
    def sequence():
        text = ""
        for _ in range(r.choice([0, 1, 1, 2, 2, 3, 4])):
            if r.random() < 0.1:
                text += r.choice(["^", "$", r"\b", r"\b", r"\B", r"\A", r"\Z"])
            else:
                text += random_atom(r, depth) + (random_quantifier(r) if r.random() < 0.4 else "")
        return text

    return "|".join(sequence() for _ in range(r.choice([1, 1, 1, 2, 2, 3])))


def random_soup(r):
    return "".join(r.choice(SOUP) for _ in range(r.randint(1, 9)))


def has_unsupported(tree):
    """Whether a part of the tree of Python's parser is one of UNSUPPORTED, or a group with flags."""
    if isinstance(tree, (list, tuple, _parser.SubPattern)):
        for part in tree:
            if isinstance(part, tuple) and len(part) == 2 and (
                    part[0] in UNSUPPORTED or part[0] is sre.SUBPATTERN and (part[1][1] or part[1][2])):
                return True
            if has_unsupported(part):
                return True
    return False


def judge(pattern):
    """"r": Python refuses the pattern; "u": it does not, but it has what we do not read; "=": it is ours."""
    try:
        tree = _parser.parse(pattern)
    except (re.error, OverflowError):
        return "r"
    # comments and numbers of characters leave nothing in the tree
    outside_classes = re.sub(r"\\.|\[\^?]?(\\.|[^]\\])*]", "", pattern)
    odd = "(?#" in outside_classes or re.search(r"\\[0-9xuUN]", pattern.replace(r"\\", ""))
    return "u" if has_unsupported(tree) or tree.state.flags & ~int(re.UNICODE) or odd else "="


def answers(pattern, names):
    """Two numbers with a bit for each name: re.fullmatch(), re.match()."""
    compiled = re.compile(pattern)
    return (sum(1 << i for i, name in enumerate(names) if compiled.fullmatch(name)),
            sum(1 << i for i, name in enumerate(names) if compiled.match(name)))


def too_slow(signum, frame):
    raise TimeoutError


def is_useful(pattern, names):
    """Ours, answered in seconds (a few of 100,000 would take hours), and mostly one that tells names apart."""
    if judge(pattern) != "=":
        return False
    signal.setitimer(signal.ITIMER_VIRTUAL, 2)
    try:
        constant = len(set(answers(pattern, names)) & {0, 2**64 - 1}) == 2
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return not constant or len(pattern) % 10 == 0


def literal(text, width):
    """Of C; on several lines where it is longer."""
    parts = [c if " " <= c <= "~" and c not in '"\\?' else "\\" + c if c in '"\\?' else f"\\{ord(c):03o}" for c in text]
    lines = [""]
    for part in parts:
        if len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n     ".join(f'"{line}"' for line in lines)


def real_patterns():
    """As target_modules; as a key of rank_pattern, of modules_to_save, and as layers_pattern."""
    forms = [r"(.*\.)?({})$", r"(^|.*\.){}($|\..*)", r".*\.{}\.(\d+)\."]
    return WHOLE + [form.format(key) for key in KEYS for form in forms]


def table(name, names, patterns):
    lines = [f"static const char *const {name}_names[] = {{"] + [f"    {literal(n, 110)}," for n in names] + ["};"]
    lines += [f"static const name_pattern_case {name}_cases[] = {{"]
    for pattern in patterns:
        what = judge(pattern)
        whole, begin = answers(pattern, names) if what == "=" else (0, 0)
        lines.append(f"    {{{literal(pattern, 66)}, '{what}', {whole:#x}, {begin:#x}}},")
    return "\n".join(lines + ["};", ""])


def main():
    signal.signal(signal.SIGVTALRM, too_slow)
    r = random.Random(20261127)
    grammar, soup = [], []
    names = random_names(r)
    while len(grammar) < N_GRAMMAR:
        pattern = random_pattern(r, 3)
        if len(pattern) < 90 and pattern not in grammar and is_useful(pattern, names):
            grammar.append(pattern)
    while len(soup) < N_SOUP:
        pattern = random_soup(r)
        if pattern not in soup and (judge(pattern) != "r" or r.random() < 0.2):
            soup.append(pattern)
    print(f"""/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What Python's re says of patterns and names: python3 name_pattern_cases.py > name_pattern_cases.h
 *
 * '=': bit i of the numbers is whether name i of the table matches as a whole (re.fullmatch) and with a beginning
 * (re.match). 'r': Python refuses the pattern. 'u': it does not, but the library may.
 */
#ifndef TESTS_UNIT_NAME_PATTERN_CASES_H
#define TESTS_UNIT_NAME_PATTERN_CASES_H

#include <stdint.h>

/* clang-format off */
typedef struct name_pattern_case {{
    const char *pattern;
    char what;
    uint64_t whole, begin;
}} name_pattern_case;

{table("real", REAL_NAMES, real_patterns())}
{table("random", names, grammar + soup)}
#endif""")


if __name__ == "__main__":
    main()
