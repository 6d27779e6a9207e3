#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes what PEFT's LoraConfig.save_pretrained() writes, for test_train_state.c: peft_config_cases.py > peft_config_cases.h"""
import os
import tempfile

import peft

ALPHABET = "\u00e9\u0416\u6f22\U0001f600 \"\\\t\n\r\x01\x7f/"
CASES = [
    {"base_model_name_or_path": "google/paligemma-3b-mix-224", "target_modules": ["q_proj", "v_proj"]},
    {"base_model_name_or_path": ALPHABET, "r": 64, "lora_alpha": 128, "lora_dropout": 0.05, "use_rslora": True,
     "target_modules": ["model.language_model.layers.0.mlp.up_proj"], "modules_to_save": ["lm_head", "multi_modal_projector.linear"]},
    {"lora_alpha": 0.1, "lora_dropout": 0.30000000000000004, "target_modules": r".*language_model.*\.(q|v)_proj"},
    {"r": 1, "lora_alpha": 32, "lora_dropout": 0.0001, "target_modules": "all-linear"},
    {"target_modules": "dummy-target-modules", "modules_to_save": ["norm"]},
]


def literal(text):
    """Of C, a line of the text on a line."""
    parts = ["".join(c if c not in '"\\' else "\\" + c for c in line) for line in text.split("\n")]
    return "\n    ".join(f'"{part}\\n"' for part in parts[:-1]) + f'\n    "{parts[-1]}"'


def written(options):
    config = peft.LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **options)
    if not isinstance(options["target_modules"], str):
        config.target_modules = options["target_modules"]  # a set, which has no order
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        with open(os.path.join(folder, "adapter_config.json"), encoding="ascii") as f:
            return f.read()


def main():
    print(f"""/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What PEFT {peft.__version__} writes: python3 peft_config_cases.py > peft_config_cases.h */
#ifndef TESTS_UNIT_PEFT_CONFIG_CASES_H
#define TESTS_UNIT_PEFT_CONFIG_CASES_H

/* clang-format off */
static const char *const peft_config_cases[] = {{""")
    for options in CASES:
        print(f"    {literal(written(options))},")
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
