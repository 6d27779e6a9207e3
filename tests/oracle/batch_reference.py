# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""transformers on a batch: forward with every stage kept, generate(), and how far rounding noise carries in each row.

The bounds are those of reference.py, with noise injected into the same computation; what is new here is that each row
of a batch, its padding, and the loss have bounds of their own.
"""
import numpy as np
import torch

import reference


class Forward:
    """What one pass gave: {stage: array}, stages "features" [n, N, H], "hidden.i" [B, T, H], "attentions.i" [B, T, heads, T]
    (the queries before the heads, as parts() picks tokens), "logits" [B, K, V]."""

    def __init__(self, stages, loss=None):
        self.stages, self.loss = stages, loss

    @classmethod
    def of(cls, out):
        """out: of HF's forward."""
        images = out.get("image_outputs")  # transformers 5.24; 5.23 has its pooler_output alone
        features = out.get("image_hidden_states") if images is None else images.pooler_output
        stages = {"features": features, "logits": out.logits}
        stages.update({f"hidden.{i}": hidden for i, hidden in enumerate(out.hidden_states)})
        stages.update({f"attentions.{i}": layer.transpose(1, 2) for i, layer in enumerate(out.attentions or ())})
        return cls({name: value.float().numpy() for name, value in stages.items() if value is not None},
                   None if out.loss is None else float(out.loss))

    def last(self, n):
        """The same with the logits of the last n tokens alone."""
        return Forward(dict(self.stages, logits=self.stages["logits"][:, -n:]), self.loss)


class BatchReference(reference.Reference):
    def forward(self, arrays, output_attentions=True, **options):
        """arrays: {name: numpy} as HF's forward takes them. -> Forward"""
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        for name in ("pixel_values", "inputs_embeds"):
            if name in tensors:
                tensors[name] = tensors[name].to(self.model.dtype)
        with torch.inference_mode():
            return Forward.of(self.model(**tensors, output_hidden_states=True,
                                         output_attentions=output_attentions, use_cache=False, **options))

    def noise(self, arrays, n_probes=reference.N_PROBES, **options):
        """-> [Forward with rounding noise]"""
        out = []
        for seed in range(n_probes):
            with reference._Noise(self.model, seed):
                out.append(self.forward(arrays, **options))
        return out

    def generate(self, arrays, max_new_tokens):
        """Greedy. -> (ids of each row, up to and with its eos; logits [B, steps, V])"""
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        with torch.inference_mode():
            out = self.model.generate(**tensors, max_new_tokens=max_new_tokens, do_sample=False, output_logits=True,
                                      return_dict_in_generate=True)
        eos = self.model.generation_config.eos_token_id
        eos = set(eos if isinstance(eos, list) else [eos])
        rows = []
        for ids in out.sequences[:, arrays["input_ids"].shape[1]:].tolist():
            end = next((i + 1 for i, token in enumerate(ids) if token in eos), len(ids))
            rows.append(ids[:end])
        return rows, torch.stack(out.logits, 1).float().numpy()

    def open_steps(self, arrays, rows, logits):
        """For each row the first step whose choice is within float noise: ids must be equal before it.
        The tokens that were generated are forced in one pass with noise; see Reference.probe()."""
        n_new, n_prompt = logits.shape[1], arrays["input_ids"].shape[1]
        n_rows = len(rows)
        forced = np.array([ids + [0] * (n_new - len(ids)) for ids in rows], np.int64)[:, :n_new - 1]
        ids = np.concatenate([arrays["input_ids"], forced], 1)
        mask = np.concatenate([arrays["attention_mask"], np.ones_like(forced)], 1)
        types = np.concatenate([arrays["token_type_ids"], np.ones_like(forced)], 1)
        places = torch.from_numpy((ids == self.model.config.image_token_id) & (np.arange(ids.shape[1]) < n_prompt))
        self.model.model.get_placeholder_mask = lambda *_args, **_kwargs: places[..., None]
        whole = dict(input_ids=ids, attention_mask=mask, token_type_ids=types, pixel_values=arrays["pixel_values"])
        try:
            probes = [probe.stages["logits"] for probe in self.noise(whole, logits_to_keep=n_new)]
        finally:
            del self.model.model.get_placeholder_mask
        steps = []
        for row in range(n_rows):
            best = np.sort(logits[row], -1)[:, -2:]
            margins = best[:, 1] - best[:, 0]
            off = np.max([np.abs(p[row] - logits[row]).max(-1) for p in probes], 0) * reference.FACTOR
            open_ = np.flatnonzero(margins <= 2 * off)
            steps.append(int(min(open_[0] if len(open_) else n_new, len(rows[row]))))
        return steps


def token_losses(logits, labels):
    """Cross entropy of each label under the logits of the token before it, in float64. -> (losses, [B, T - 1] where)"""
    logits, labels = logits[:, :-1].astype(np.float64), labels[:, 1:]
    where = labels != -100
    largest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(-1)) + largest[..., 0]
    chosen = np.take_along_axis(logits, np.where(where, labels, 0)[..., None], -1)[..., 0]
    return np.where(where, log_sum - chosen, 0.0), where


def mean_loss(logits, labels, per_row):
    """HF: mean over all labels of the batch, NaN without any. per_row (big_vision, trainers/proj/paligemma/train.py):
    over each row's labels, 0 where there are none, then over all rows."""
    losses, where = token_losses(logits, labels)
    if per_row:
        return float((losses.sum(1) / np.maximum(where.sum(1), 1)).mean())
    return float(losses.sum() / where.sum()) if where.any() else float("nan")


def loss_bound(exact, probes, labels):
    """How far two f32 losses may lie apart. One number has too few draws to measure its noise by, so the noise is the
    root mean square of the single tokens' or of the labelled tokens' logits, the larger: a mean is never noisier. To
    that the rounding of the cross entropy itself: one u of the largest logit and of log V."""
    logits = exact.stages["logits"]
    losses, where = token_losses(logits, labels)
    if not where.any():
        return 0.0
    single, all_logits = [], []
    for probe in probes:
        noisy, _ = token_losses(probe.stages["logits"], labels)
        single.append((noisy - losses)[where])
        all_logits.append((probe.stages["logits"] - logits)[:, :-1][where])
    noise = max(float(np.sqrt(np.mean(np.square(d)))) for d in (np.concatenate(single), np.concatenate(all_logits)))
    own = reference.UNIT_ROUNDOFF * (float(np.abs(logits).max()) + np.log(logits.shape[-1]))
    return reference.FACTOR * (noise + own)


def seeing(arrays, config):
    """[B, T]: whether a query sees any key in every kind of layer. One that sees none attends, in transformers, to
    everything alike, which is of no meaning: the library leaves such rows (padding all) undefined."""
    mask = np.asarray(arrays["attention_mask"]) == 1
    n = mask.shape[1]
    q, k = np.arange(n)[:, None], np.arange(n)[None]
    shapes = [k <= q]
    window = getattr(config, "sliding_window", None)
    if window is not None and "sliding_attention" in config.layer_types:
        shapes.append((k <= q) & (q - k < window))
    block = np.zeros((mask.shape[0], n, n), bool)
    if "token_type_ids" in arrays:
        prefix = np.asarray(arrays["token_type_ids"]) == 0
        block = prefix[:, :, None] & prefix[:, None, :]
    return np.all([((shape | block) & mask[:, None, :]).any(-1) for shape in shapes], 0)


def parts(arrays, config):
    """-> [(name, row, [T] which tokens)]: each row's own tokens, and its padding as far as it sees anything."""
    mask, sees = np.asarray(arrays["attention_mask"]) == 1, seeing(arrays, config)
    for row in range(len(mask)):
        yield f"row {row}", row, mask[row]
        if (~mask[row] & sees[row]).any():
            yield f"row {row} padding", row, ~mask[row] & sees[row]


def picker(part, arrays, config):
    """-> a function that takes from a stage the tokens of one of compare_stages()'s parts."""
    found = [(row, tokens) for name, row, tokens in parts(arrays, config) if name == part]
    return (lambda stage: stage[found[0][0]][found[0][1]]) if found else (lambda stage: stage)


def compare_stages(ours, exact, probes, arrays, config):
    """-> [(stage, part, relative L2, its bound, max abs, its bound, sound)]; ours: {stage: array}."""
    table = []

    def one(stage, part, mine, right, noisy):
        sizes = [reference.distance(probe, right) for probe in noisy]
        limits = [reference.FACTOR * max(size[i] for size in sizes) for i in (0, 1)]
        if mine.shape != right.shape:
            table.append((stage, part, np.inf, limits[0], np.inf, limits[1], False))
            return
        relative, largest = reference.distance(mine, right)
        sound = bool(np.isfinite(mine).all()) and relative <= limits[0] and largest <= limits[1]
        table.append((stage, part, relative, limits[0], largest, limits[1], sound))

    for stage, mine in ours.items():
        right, noisy = exact.stages[stage], [probe.stages[stage] for probe in probes]
        if stage == "features" or mine.shape != right.shape:
            one(stage, "all", mine, right, noisy)
            continue
        for part, row, tokens in parts(arrays, config):
            tokens = tokens[-right.shape[1]:]  # logits_to_keep
            if tokens.any():
                one(stage, part, mine[row][tokens], right[row][tokens], [n[row][tokens] for n in noisy])
    return table
