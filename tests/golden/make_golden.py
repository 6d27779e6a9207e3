#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes the golden cases: what transformers gives at every stage, for two small random models and the demo model.

    make_golden.py [--only NAME]

models/gemma1 (tied head) and models/gemma2 (a head of its own) are checkpoints from tests/oracle/checkpoints.py; the
demo lies in examples/demo/model.
cases/NAME/ holds case.json (inputs, ids, text, bounds) and model.safetensors (the stages, f32; of a stage with more
than MAX_ROWS rows every stride-th one, the last always). Bounds are those of tests/oracle/README.md. The script refuses
a case in which the reference's own choice of a token is within float noise.
"""
import argparse
import json
import os
import shutil
import sys

import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", "oracle"), os.path.join(ROOT, "examples", "demo")]
import checkpoints  # noqa: E402
import draw  # noqa: E402
import reference  # noqa: E402

MAX_ROWS = 40
SPECS = {
    "gemma1": dict(
        checkpoints.draw(0), seed=101, generation=1, layout="before 4.52", dtype="BF16", head="tied", shards=1,
        unaligned=True, config="sparse", files="official", pooling_head=False, n_learned=40, extra_rows=8, resample=3,
        rope_theta=10000.0, save_pretrained=False, eos=1, padding_rows="zero",
        image={}, generation_file=True,
        vision=dict(hidden_size=36, num_attention_heads=2, num_hidden_layers=2, intermediate_size=61, patch_size=14,
                    image_size=56, layer_norm_eps=1e-6),
        text=dict(hidden_size=43, num_attention_heads=4, num_key_value_heads=1, head_dim=12, num_hidden_layers=2,
                  intermediate_size=70, rms_norm_eps=1e-6)),
    "gemma2": dict(
        checkpoints.draw(0), seed=102, generation=2, layout="5.23", dtype="mixed", head="own", shards=2,
        unaligned=False, config="5.23", files="5.23", pooling_head=False, n_learned=40, extra_rows=0, resample=3,
        rope_theta=10000.0, save_pretrained=False, eos=1, padding_rows="zero",
        image={}, generation_file=True,
        vision=dict(hidden_size=24, num_attention_heads=2, num_hidden_layers=2, intermediate_size=50, patch_size=7,
                    image_size=45, layer_norm_eps=1e-6),  # 45 = 6 * 7 + 3: the convolution leaves a margin
        text=dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=10, num_hidden_layers=3,
                  intermediate_size=57, rms_norm_eps=1e-6, query_pre_attn_scalar=17, sliding_window=12,
                  attn_logit_softcapping=50.0, final_logit_softcapping=30.0)),
}
# model, image, prompt, new tokens
CASES = [
    ("gemma1", "shapes.png", "caption en", 12),
    ("gemma1", "shapes.jpg", "", 6),
    ("gemma1", "shapes.png", "detect <loc0012> ; caf\u00e9\n\n\u6709 <bos>x", 10),
    ("gemma2", "shapes.jpg", "caption en", 20),
    ("gemma2", "shapes.png", "answer en  what <image>is <b>this</b>?", 16),
    ("demo", "shapes.png", "caption en", 40),
    ("demo", "shapes.jpg", "answer en how many objects are there?", 8),
]


def make_images(folder):
    os.makedirs(folder, exist_ok=True)
    for name, seed, scale in [("shapes.png", 7, 1), ("shapes.jpg", 11, 2)]:
        image = Image.fromarray(draw.render(draw.scene(seed), scale))
        image.save(os.path.join(folder, name), **({"quality": 90} if name.endswith("jpg") else {}))


def model_folder(name):
    return os.path.join(ROOT, "examples", "demo", "model") if name == "demo" else os.path.join(HERE, "models", name)


def make_case(name, model, image, prompt, n_new):
    ref = reference.Reference(model_folder(model))
    result = ref.run(reference.open_image(os.path.join(HERE, "photos", image)), prompt, n_new)
    limits = reference.bounds(ref.probe(result))
    if reference.first_open_step(result, limits) < len(result.ids):
        sys.exit(f"{name}: a margin of {min(result.margins):.1e} is within float noise; choose another prompt")
    strides, kept = {}, {}
    for stage, value in result.stages.items():
        stride = -(-value.shape[0] // MAX_ROWS)
        if stage == "pixels":
            stride = -(-value.shape[0] // 64)
        strides[stage] = stride
        kept[stage] = torch.from_numpy(value[(value.shape[0] - 1) % stride::stride].copy())
    folder = os.path.join(HERE, "cases", name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    checkpoints.write_safetensors(os.path.join(folder, "model.safetensors"), kept)
    eos = ref.model.generation_config.eos_token_id
    stages = {stage: dict(rows=result.stages[stage].shape[0], stride=strides[stage],
                          relative=limits.get(stage, (0.0, 0.0))[0], largest=limits.get(stage, (0.0, 0.0))[1])
              for stage in kept}
    with open(os.path.join(folder, "case.json"), "w", encoding="utf-8") as f:
        json.dump(dict(model=model, image=image, prompt=prompt, max_new_tokens=n_new, text=result.text,
                       ids=result.ids, stop="eos" if result.ids[-1] in (eos if isinstance(eos, list) else [eos])
                       else "length", prompt_ids=result.prompt_ids, stages=stages), f, indent=1)
    print(f"{name}: {result.text!r}, smallest margin {min(result.margins):.1e}")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", help="the cases of this model alone")
    args = args.parse_args()
    torch.set_num_threads(1)
    make_images(os.path.join(HERE, "photos"))
    for name, spec in SPECS.items():
        if args.only in (None, name):
            shutil.rmtree(model_folder(name), ignore_errors=True)
            checkpoints.write(spec, model_folder(name))
    for i, (model, image, prompt, n_new) in enumerate(CASES):
        if args.only not in (None, model):
            continue
        if not os.path.exists(os.path.join(model_folder(model), "config.json")):
            print(f"{model}: no checkpoint in {os.path.relpath(model_folder(model), ROOT)}, its cases are left out")
            continue
        make_case(f"{model}-{i}", model, image, prompt, n_new)


if __name__ == "__main__":
    main()
