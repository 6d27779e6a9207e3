#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Trains the demo model on images drawn as it goes; writes a Hugging Face checkpoint folder.

    train.py --run RUN --minutes 70          a run of 70 minutes of wall time
    train.py --run RUN --minutes 70          again after an interruption: goes on where RUN/state.pt stands
    train.py --run RUN2 --init RUN/state.pt --minutes 30 --rate 1e-3 --dense-share 0 --shares 0.15 1 0.35
                                             a second phase, from a first one's state, with more questions

RUN/latest is the newest complete checkpoint in bf16 (replaced at each save); RUN/state.pt is what resuming needs.

Four things make an hour of two cores enough, and none asks for anything at inference:
- a dense auxiliary loss on the projector's rows: every patch says which shape and colour covers it, where that shape's
  box lies and which place it takes from the left. The linear head that says so is dropped afterwards. The first part of
  the time trains the encoder on this alone (it is the cheaper half of the network and what the answers wait for);
- a second one on the image's rows inside the decoder, before its last layer: every patch says whether the prompt asks
  for what covers it. Without it, questions that name a shape stayed at 75% right. Its head is dropped as well;
- the encoder's position rows begin as sines and cosines of the patch's row and column: from the usual small random rows
  the boxes of the auxiliary loss are not learned at all for the first hundreds of steps;
- the <loc> rows of the embedding begin as Fourier features of their coordinate, so that neighbouring places are
  neighbouring rows before the first step.
The forward pass is written out here on the modules of `transformers`, for speed alone (one encoder pass per image,
only text rows in the last decoder layer); --check holds it against PaliGemmaForConditionalGeneration.forward.
"""
import argparse
import filecmp
import functools
import json
import math
import os
import queue
import shutil
import threading
import time

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import draw
import make_tokenizer

SHARES = (0.15, 0.6, 0.5, 0.35, 0)
FIRST_SEED = 1_000_000  # training images count up from here; evaluate.py uses seeds below
PATCH, SIDE = 14, draw.SIDE
PATCHES = (SIDE // PATCH) ** 2
BINS = SIDE // draw.GRID + 1
IGNORE = -100
# What is trained: who says it and the text's length in tokens (fixed: no shape changes from step to step).
# Questions that name a shape are asked more often than in the evaluation: they are the slowest to learn, because a colour
# alone mostly tells the shapes of an image apart in every other task.
QUESTIONS = ["color"] * 4 + ["count_shape"] * 4 + ["shape", "count", "count_color", "count_color"]
TASKS = {"caption": (draw.caption, 20), "question": (functools.partial(draw.question, kinds=QUESTIONS), 16), "detection": (draw.detection, 34),
         "segment": (draw.segmentation, 88), "everything": (draw.everything, 60)}


def new_model(tokenizer_size, seed):
    torch.manual_seed(seed)
    config = PaliGemmaConfig(
        vision_config=dict(model_type="siglip_vision_model", hidden_size=128, intermediate_size=512,
                           num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=PATCH,
                           projection_dim=160, vision_use_head=False),
        text_config=dict(model_type="gemma", hidden_size=160, intermediate_size=512, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=1, head_dim=64, vocab_size=tokenizer_size,
                         max_position_embeddings=512, initializer_range=0.05),
        image_token_index=tokenizer_size - 1, vocab_size=tokenizer_size, projection_dim=160, hidden_size=160,
        pad_token_id=0, eos_token_id=1, bos_token_id=2)
    return PaliGemmaForConditionalGeneration(config)


def grid_positions(embedding):
    """Position rows [64, 128]: half of each row says the patch's row, half its column."""
    n, quarter = SIDE // PATCH, embedding.shape[1] // 4
    v = (torch.arange(n)[:, None] + 0.5) / n
    angle = 2 * math.pi * 0.25 * 2 ** torch.linspace(0, 4, quarter)[None] * v
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    with torch.no_grad():
        embedding.copy_(torch.cat([axis[:, None].expand(n, n, -1), axis[None].expand(n, n, -1)], -1).flatten(0, 1))


def fourier_locations(embedding, first_loc):
    """Rows of <loc0000>..<loc1023>: sines and cosines of the coordinate at a range of frequencies."""
    width = embedding.shape[1]
    v = torch.arange(1024)[:, None] / 1023
    frequency = 0.5 * 2 ** torch.linspace(0, 6, width // 2)[None]  # half a turn to 32 turns over the image
    rows = torch.cat([torch.sin(2 * math.pi * frequency * v), torch.cos(2 * math.pi * frequency * v)], 1)
    with torch.no_grad():
        embedding[first_loc:first_loc + 1024] = rows * embedding[:first_loc].std() * math.sqrt(2)


# ---- data -----------------------------------------------------------------------------------------------------------

def patch_targets(s):
    """[64, 7]: shape, colour (0: nothing), y0 x0 y1 x1 in grid steps, place from the left, of the box covering most of it."""
    target = np.full((PATCHES, 7), IGNORE, np.int64)
    target[:, :2] = 0
    best = np.zeros(PATCHES)
    edge = np.arange(0, SIDE, PATCH)
    for place, o in enumerate(s["objects"]):
        y0, x0, y1, x1 = o["box"]
        covered = np.outer(np.clip(np.minimum(edge + PATCH, y1) - np.maximum(edge, y0), 0, None),
                           np.clip(np.minimum(edge + PATCH, x1) - np.maximum(edge, x0), 0, None)).ravel()
        mine = covered > best
        best = np.maximum(best, covered)
        target[mine] = [1 + draw.SHAPES.index(o["shape"]), 1 + list(draw.COLORS).index(o["color"]),
                        *(v // draw.GRID for v in o["box"]), place]
    return target


def asked_patches(prompt, target):
    """[64]: which of the things the prompt asks for covers the patch: 0 none, 1 the first, 2 the second, 3 the third."""
    names = [[""] + draw.SHAPES, [""] + list(draw.COLORS)]
    asked = np.zeros(PATCHES, np.int64)
    for i in np.flatnonzero(target[:, 0]):
        shape, color = names[0][target[i, 0]], names[1][target[i, 1]]
        if prompt.startswith("detect all"):
            asked[i] = 1
        elif prompt.startswith(("detect ", "segment ")):
            things = prompt.partition(" ")[2].split(" ; ")
            asked[i] = things.index(f"{color} {shape}") + 1 if f"{color} {shape}" in things else 0
        else:
            asked[i] = shape in prompt or color in prompt or prompt.endswith("how many objects are there?")
    return asked


def wanted(suffix, noise):
    """The ids of a suffix that have a loss: all but the four locs in front of the noise token."""
    return [IGNORE if noise in suffix[i + 1:i + 5] and token != noise else token for i, token in enumerate(suffix)]


def make_batch(step, size, sp, shares=SHARES):
    """Images and, per task, prompts on the given share of them (dealt out in turn, so shares may add up to over 1)."""
    rng = np.random.default_rng([step, 1])
    scenes = [draw.scene(FIRST_SEED + step * size + i) for i in range(size)]
    pixels = np.stack([draw.render(s) for s in scenes])
    targets = [patch_targets(s) for s in scenes]
    noise = sp.piece_to_id(draw.NOISE)
    batch = dict(pixels=torch.from_numpy(pixels), patches=torch.from_numpy(np.stack(targets)))
    next_image = 0
    for (task, (say, length)), share in zip(TASKS.items(), shares):
        count = round(size * share)
        if count == 0:
            continue
        which = (next_image + np.arange(count)) % size
        next_image += count
        rows, asked = [], []
        for i in which:
            prompt, suffix = say(scenes[i]) if say is draw.caption else say(scenes[i], rng)
            asked.append(asked_patches(prompt, targets[i]))
            rows.append(([sp.bos_id()] + sp.encode(prompt + "\n"), sp.encode(suffix) + [sp.eos_id()]))
        ids = torch.zeros(count, length, dtype=torch.long)
        labels = torch.full((count, length), IGNORE)
        for i, (p, s) in enumerate(rows):
            ids[i, :len(p) + len(s)] = torch.tensor(p + s)
            labels[i, len(p) - 1:len(p) + len(s) - 1] = torch.tensor(wanted(s, noise))  # already shifted
        batch[task] = dict(which=torch.from_numpy(which), ids=ids, labels=labels, asked=torch.from_numpy(np.stack(asked)),
                           prefix=torch.tensor([len(p) for p, _ in rows]))
    return batch


def prefetch(first, size, sp, shares):
    """Draws the next batches in a thread while torch computes."""
    ready = queue.Queue(maxsize=4)

    def work():
        step = first
        while True:
            ready.put(make_batch(step, size, sp, shares))
            step += 1
    threading.Thread(target=work, daemon=True).start()
    return ready


# ---- the network, on the modules of transformers ------------------------------------------------------------------------

def encode(model, pixels):
    """uint8 [B, 112, 112, 3] -> projector rows [B, 64, 160]."""
    vision = model.model.vision_tower
    vision = getattr(vision, "vision_model", vision)
    b, n = pixels.shape[0], SIDE // PATCH
    # (x / 255 - 0.5) / 0.5, cut into patches in the order of the convolution's weight: channel, y, x
    x = (pixels.float() / 127.5 - 1).view(b, n, PATCH, n, PATCH, 3).permute(0, 1, 3, 5, 2, 4).reshape(b, n * n, -1)
    e = vision.embeddings
    x = F.linear(x, e.patch_embedding.weight.flatten(1), e.patch_embedding.bias) + e.position_embedding.weight
    for layer in vision.encoder.layers:
        a = layer.self_attn
        h = layer.layer_norm1(x)
        q, k, v = (f(h).view(b, n * n, a.num_heads, -1).transpose(1, 2) for f in (a.q_proj, a.k_proj, a.v_proj))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n * n, -1)
        x = x + a.out_proj(h)
        x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layer_norm2(x)), approximate="tanh"))
    return model.model.multi_modal_projector.linear(vision.post_layernorm(x))


def rms_norm(x, norm):
    return F.rms_norm(x.float(), x.shape[-1:], 1.0 + norm.weight, norm.eps)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def decode(model, features, ids, prefix):
    """features [B, 64, 160], ids [B, T], prefix [B] text tokens in the prefix -> final rows of the text [B, T, 160] and the image's rows
    before the last layer [B, 64, 160]."""
    text = model.model.language_model
    b, t = ids.shape
    total = PATCHES + t
    heads, dim = text.config.num_attention_heads, text.config.head_dim
    x = torch.cat([features.float(), F.embedding(ids, text.embed_tokens.weight) * text.config.hidden_size ** 0.5], 1)
    place = torch.arange(total)
    frequency = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = (place[:, None] + 1) * frequency[None]
    cos, sin = torch.cat([angle.cos()] * 2, 1), torch.cat([angle.sin()] * 2, 1)
    seen = (place[None, None] < PATCHES + prefix[:, None, None]) | (place[None, None] <= place[None, :, None])
    for number, layer in enumerate(text.layers):
        a = layer.self_attn
        first = PATCHES if number == len(text.layers) - 1 else 0  # nobody reads the image's rows after the last layer
        if first:
            image = x[:, :PATCHES]
        h = rms_norm(x, layer.input_layernorm)
        q = rotate(a.q_proj(h[:, first:]).view(b, total - first, heads, dim).transpose(1, 2), cos[first:], sin[first:])
        k = rotate(a.k_proj(h)[:, None], cos, sin)
        v = a.v_proj(h)[:, None]
        h = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype).expand(-1, heads, -1, -1), v.expand(-1, heads, -1, -1),
                                           attn_mask=seen[:, None, first:])
        x = x[:, first:] + a.o_proj(h.transpose(1, 2).reshape(b, total - first, -1))
        h = rms_norm(x, layer.post_attention_layernorm)
        x = x + layer.mlp.down_proj(F.gelu(layer.mlp.gate_proj(h), approximate="tanh") * layer.mlp.up_proj(h))
    return rms_norm(x, text.norm), image


def task_loss(model, features, part, asked_head):
    """-> the suffix's loss, the share of its tokens that are right, the auxiliary loss on the decoder's image rows."""
    h, image = decode(model, features, part["ids"], part["prefix"])
    labels = part["labels"]
    wanted = labels != IGNORE
    logits = F.linear(h[wanted], model.model.language_model.embed_tokens.weight).float()
    asked = F.cross_entropy(asked_head(image).transpose(1, 2), part["asked"])
    return F.cross_entropy(logits, labels[wanted]), (logits.argmax(-1) == labels[wanted]).float().mean(), asked


def patch_loss(head, features, target):
    out = head(features).float()
    sizes = [len(draw.SHAPES) + 1, len(draw.COLORS) + 1, BINS, BINS, BINS, BINS, 3]
    losses = [F.cross_entropy(part.transpose(1, 2), target[..., i], ignore_index=IGNORE)
              for i, part in enumerate(out.split(sizes, -1))]
    return torch.stack(losses)


# ---- saving -----------------------------------------------------------------------------------------------------------

def save_checkpoint(model, processor, tokenizer_folder, folder):
    """A complete Hugging Face folder, weights rounded to bf16; appears whole or not at all."""
    fresh = folder + ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    rounded = PaliGemmaForConditionalGeneration(model.config)
    rounded.load_state_dict(model.state_dict())
    rounded.to(torch.bfloat16).save_pretrained(fresh)
    processor.save_pretrained(fresh)
    # transformers reads processor_config.json; older readers look for preprocessor_config.json and tokenizer.model
    processor.image_processor.save_pretrained(fresh)
    shutil.copy(os.path.join(tokenizer_folder, "tokenizer.model"), fresh)
    old = folder + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.isdir(folder):
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def check(model, processor, sp, asked_head):
    """The forward pass above against the one of transformers, f32."""
    model.eval()
    batch = make_batch(0, 8, sp)
    worst = 0
    for task in TASKS:
        part = batch.get(task, dict(ids=[]))
        for i in range(len(part["ids"])):
            pixels = batch["pixels"][part["which"][i]]
            prefix, used = int(part["prefix"][i]), int((part["labels"][i] != IGNORE).sum())
            ids = part["ids"][i, :prefix + used]
            inputs = processor(images=pixels.numpy(), text="<image>" + sp.decode(ids[1:prefix - 1].tolist()),
                               suffix=sp.decode(ids[prefix:-1].tolist()), return_tensors="pt")
            assert inputs["input_ids"][0, PATCHES:].tolist() == ids.tolist()
            with torch.no_grad():
                theirs = model(**inputs)
                mine = task_loss(model, encode(model, pixels[None]), {k: v[i, None] for k, v in part.items()}, asked_head)[0]
            worst = max(worst, abs(float(mine - theirs.loss)))
    model.train()
    return worst


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--run", required=True, help="folder for the state, the log and the newest checkpoint")
    args.add_argument("--minutes", type=float, default=70, help="wall time; the learning rate's schedule follows it")
    args.add_argument("--batch", type=int, default=40)
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--warmup", type=float, default=0.03, help="share of the time")
    args.add_argument("--dense-share", type=float, default=0.2, help="share of the time for the auxiliary loss alone")
    args.add_argument("--shares", type=float, nargs=len(TASKS), default=SHARES, metavar=tuple(TASKS), help="of a batch")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--bf16", action="store_true", help="matrix products in bfloat16: faster where the processor has them")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--save-every", type=float, default=4, help="minutes")
    args.add_argument("--init", help="state.pt of another run, or a checkpoint folder (without the heads), to begin from")
    args.add_argument("--first-step", type=int, default=0, help="with --init FOLDER: images of the steps before it are not drawn again")
    args.add_argument("--check", action="store_true", help="compare with the forward of transformers and stop")
    args.add_argument("--bench", type=int, default=0, help="time this many steps and stop")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.run, exist_ok=True)

    tokenizer_folder = os.path.join(args.run, "tokenizer")
    tokenizer = make_tokenizer.build(tokenizer_folder)
    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(tokenizer_folder, "tokenizer.model"))
    image = SiglipImageProcessorPil(size=dict(height=SIDE, width=SIDE), image_seq_length=PATCHES)
    image.image_seq_length = PATCHES
    processor = PaliGemmaProcessor(image, tokenizer)
    state_file = os.path.join(args.run, "state.pt")
    source = state_file if os.path.exists(state_file) else args.init
    model = new_model(len(tokenizer), args.seed)
    if args.init and os.path.isdir(args.init):  # it may be larger: grow.py
        model = PaliGemmaForConditionalGeneration(PaliGemmaConfig.from_pretrained(args.init))
    grid_positions(model.model.vision_tower.embeddings.position_embedding.weight)
    fourier_locations(model.model.language_model.embed_tokens.weight, sp.piece_to_id("<loc0000>"))
    hidden = model.config.text_config.hidden_size
    head = torch.nn.Linear(hidden, len(draw.SHAPES) + 1 + len(draw.COLORS) + 1 + 4 * BINS + 3)
    asked_head = torch.nn.Linear(hidden, 4)
    if args.check:
        print("largest difference of a loss:", check(model, processor, sp, asked_head))
        return
    model.train()

    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([dict(params=matrices, weight_decay=0.02),
                                   dict(params=vectors + list(head.parameters()) + list(asked_head.parameters()), weight_decay=0.0)],
                                  lr=args.rate, betas=(0.9, 0.98), fused=True)
    step, spent = 0, 0.0
    if source and os.path.isdir(source):
        assert filecmp.cmp(os.path.join(source, "tokenizer.model"), os.path.join(tokenizer_folder, "tokenizer.model"), False)
        model.load_state_dict(PaliGemmaForConditionalGeneration.from_pretrained(source, dtype=torch.float32).state_dict())
        step = args.first_step
    elif source:
        state = torch.load(source, weights_only=True)
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        asked_head.load_state_dict(state["asked_head"])
        step = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        if source == state_file:
            spent = state["spent"]

    def save():
        torch.save(dict(model=model.state_dict(), head=head.state_dict(), asked_head=asked_head.state_dict(), optimizer=optimizer.state_dict(),
                        step=step, spent=spent), state_file + ".new")
        os.replace(state_file + ".new", state_file)
        save_checkpoint(model, processor, tokenizer_folder, os.path.join(args.run, "latest"))

    log = open(os.path.join(args.run, "log.jsonl"), "a")
    batches = prefetch(step, args.batch, sp, args.shares)
    began, saved, budget, means, steps_done = time.time() - spent, time.time(), args.minutes * 60, {}, 0
    while spent < budget:
        # The schedule follows the clock, not the step: a slow machine ends at a rate of zero too.
        done = spent / budget
        rate = args.rate * (min(1, done / args.warmup) if done < args.warmup
                            else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - args.warmup) / (1 - args.warmup))))
        answering = done >= args.dense_share
        if steps_done == 0 or answering != was_answering:
            was_answering, ramp_from = answering, steps_done
        rate *= min(1, (steps_done - ramp_from + 1) / 50)  # Adam's averages are new: go gently
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batches.get()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            features = encode(model, batch["pixels"])
            dense = patch_loss(head, features, batch["patches"])
            loss = 0.3 * dense.sum()
            seen = dict(zip(["shape", "color", "y0", "x0", "y1", "x1", "place"], dense.tolist()))
            for task in [task for task in TASKS if answering and task in batch]:
                part = batch[task]
                task_mean, right, asked = task_loss(model, features[part["which"]], part, asked_head)
                loss = loss + task_mean + (asked if task != "caption" else 0)
                seen[task], seen[task + "_right"], seen[task + "_asked"] = task_mean.item(), right.item(), asked.item()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        steps_done += 1
        spent = time.time() - began
        for key, value in seen.items():
            means[key] = means.get(key, value) * 0.97 + value * 0.03
        if step % 50 == 0:
            log.write(json.dumps(dict(step=step, minutes=round(spent / 60, 2), rate=round(rate, 6),
                                      **{k: round(v, 4) for k, v in means.items()})) + "\n")
            log.flush()
        if args.bench and steps_done == 5:
            bench_from = time.time()
        if args.bench and steps_done == args.bench + 5:
            print(f"{(time.time() - bench_from) / args.bench * 1e3:.0f} ms a step")
            os._exit(0)
        if not args.bench and (time.time() - saved > args.save_every * 60 or steps_done == 20):
            save()
            saved = time.time()
    save()
    print("finished at step", step)


if __name__ == "__main__":
    main()
