#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Writes what torch and transformers compute for test_optimizer.c: optimizer_cases.py > optimizer_cases.h

torch.optim.AdamW, torch.nn.utils.clip_grad_norm_() and transformers' get_scheduler(), on a CPU with AVX2 or AVX-512 (its
kernels for older ones round differently). The sizes of the parameters are multiples of 32: what torch has left behind
whole vectors it does without FMA.
"""
import torch
from transformers import get_scheduler

SHAPES = {"a.lora_A.weight": (8, 16), "b.bias": (32,), "c.norm.weight": (64,)}
DECAYS = ("a.lora_A.weight",)
STEPS = 7
CASES = [  # learning rate, weight decay, betas, epsilon, limit of the norm, schedule, warmup, total
    (2e-4, 0.0, (0.9, 0.999), 1e-8, 1.0, "linear", 0, 0),
    (1e-2, 0.1, (0.9, 0.95), 1e-6, 0.25, "cosine", 2, 9),
    (5e-3, 0.01, (0.4, 0.5), 1e-8, 0.0, "linear", 3, 7),
    (3e-4, 0.5, (0.0, 0.9), 1e-3, 1e6, "constant", 1, 5),
]
SCHEDULES = [("constant", 0, 10), ("constant", 4, 0), ("linear", 0, 12), ("linear", 5, 12), ("linear", 12, 12), ("linear", 5, 0),
             ("cosine", 0, 12), ("cosine", 5, 12), ("cosine", 12, 12), ("cosine", 1, 1000), ("cosine", 3, 0)]


def drawn(i, scale):
    """Exact in f32; value_of() of the test draws the same."""
    return float((i * 2654435761 % 2**32 >> 12) - 2**19) * scale


def parameters():
    at, out = 0, []
    for name, shape in SHAPES.items():
        n = torch.Size(shape).numel()
        out.append(torch.nn.Parameter(torch.tensor([drawn(at + i, 2.0**-20) for i in range(n)]).reshape(shape)))
        at += n
    return out


def set_gradients(params, step):
    at = 0
    for p in params:
        values = [drawn((step + 1) * 1000 + at + i, 2.0**-23) for i in range(p.numel())]
        p.grad = torch.tensor(values).reshape(p.shape)
        at += p.numel()


def scheduler(optimizer, kind, warmup, total):
    if total == 0:  # no end
        kind = "constant"
    return get_scheduler("constant_with_warmup" if kind == "constant" else kind, optimizer, warmup, total)


def bits(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).view(torch.int32).tolist()


def words(name, numbers):
    texts = [f"0x{n & 0xFFFFFFFF:08x}" for n in numbers]
    lines = ["       " + ", ".join(texts[i:i + 9]) for i in range(0, len(texts), 9)]
    return f"     .{name} = {{\n" + ",\n".join(lines) + "},"


def case(rate, decay, betas, epsilon, limit, kind, warmup, total):
    params = parameters()
    groups = [{"params": [p for p, n in zip(params, SHAPES) if (n in DECAYS) == d], "weight_decay": decay * d} for d in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon)
    schedule = scheduler(optimizer, kind, warmup, total)
    norms, rates = [], []
    for step in range(STEPS):
        set_gradients(params, step)
        norms.append(torch.nn.utils.clip_grad_norm_(params, limit or 1e30).item())
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    state = [optimizer.state[p] for p in params]
    numbers = ", ".join(repr(float(x)) for x in (rate, decay, *betas, epsilon, limit))
    print(f"    {{{{{numbers}, PG_SCHEDULE_{kind.upper()}, {warmup}, {total}}},")
    print(f"     .norms = {{{', '.join(map(repr, norms))}}},")
    print(f"     .rates = {{{', '.join(map(repr, rates))}}},")
    print(words("gradients", bits(p.grad for p in params)))
    print(words("values", bits(params)))
    print(words("mean", bits(s["exp_avg"] for s in state)))
    print(words("square", bits(s["exp_avg_sq"] for s in state)) + "},")


def schedule_rates(kind, warmup, total):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = scheduler(optimizer, kind, warmup, total)
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    print(f"    {{PG_SCHEDULE_{kind.upper()}, {warmup}, {total}, {{{', '.join(map(repr, rates))}}}}},")


def main():
    n = sum(torch.Size(s).numel() for s in SHAPES.values())
    print(f"""/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What torch {torch.__version__.split("+")[0]} and transformers compute: python3 optimizer_cases.py > optimizer_cases.h */
#ifndef TESTS_UNIT_OPTIMIZER_CASES_H
#define TESTS_UNIT_OPTIMIZER_CASES_H

#include "train/optimizer.h"

/* clang-format off */
enum {{ N_STEPS = {STEPS}, N_VALUES = {n} }};

/* After N_STEPS updates; floats as their bits, the parameters one behind the other. */
typedef struct optimizer_case {{
    pgi_optimizer optimizer;
    double norms[N_STEPS], rates[N_STEPS];
    uint32_t gradients[N_VALUES], values[N_VALUES], mean[N_VALUES], square[N_VALUES];
}} optimizer_case;

static const optimizer_case optimizer_cases[] = {{""")
    for numbers in CASES:
        case(*numbers)
    print("""};

/* The rates of updates 0, 1, ...; the highest is 3e-4. */
static const struct {
    int32_t schedule;
    int64_t warmup, total;
    double rates[13];
} schedule_cases[] = {""")
    for numbers in SCHEDULES:
        schedule_rates(*numbers)
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
