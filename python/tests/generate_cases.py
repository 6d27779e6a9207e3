# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The calls of test_generate_options.py, which tests/oracle/generate_options.py makes with transformers."""
import pathlib

import numpy as np

IMAGE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "demo" / "images" / "shapes.png"
PROMPTS = ["caption en", "detect red circle ; yellow triangle", "answer en what color is the star?"]
DICT = dict(return_dict_in_generate=True)


def case(rows=1, **settings):
    """rows: 1, or 3 with padding. A value {"object": name} stands for one of objects()."""
    return {"rows": rows, "settings": {"max_new_tokens": 16, **settings}}


def drawn(**settings):
    """Of a draw the scores alone can be compared, those of the first step."""
    return {**case(3, max_new_tokens=1, do_sample=True, return_dict_in_generate=True, output_scores=True, **settings),
            "drawn": True}


def name_of(name):
    return {"object": name}


CASES = {
    "plain": case(),
    "plain rows": case(3, max_new_tokens=24),
    "eos id": case(eos_token_id=412),
    "eos ids": case(eos_token_id=[1, 421]),
    "eos ids of rows": case(3, max_new_tokens=24, eos_token_id=[1, 412, 610]),
    "eos not the checkpoint's, rows": case(3, eos_token_id=397),
    "no eos": case(eos_token_id=None),
    "no eos, rows": case(3, eos_token_id=None),
    "an eos that never comes": case(eos_token_id=-1),
    "no eos ids": case(eos_token_id=[]),
    "pad": case(3, pad_token_id=77, max_new_tokens=24),
    "stop string": case(stop_strings=["circle"]),
    "stop strings of rows": case(3, stop_strings=["circle", "loc"], max_new_tokens=24),
    "stop string as a text": case(stop_strings=", a"),
    "no time": case(max_time=0.0),
    "a lot of time": case(max_time=1000),
    "scores": case(**DICT, output_scores=True),
    "logits": case(**DICT, output_logits=True),
    "scores and logits of rows": case(3, **DICT, output_scores=True, output_logits=True, max_new_tokens=24),
    "scores without a dictionary": case(output_scores=True),
    "a dictionary without scores": case(**DICT),
    "scores, eos of rows": case(3, **DICT, output_scores=True, eos_token_id=[1, 412, 610], max_new_tokens=24),
    "scores, stop strings of rows": case(3, **DICT, output_scores=True, stop_strings=["circle", "loc"],
                                         max_new_tokens=24),
    "scores, no eos, rows": case(3, **DICT, output_scores=True, eos_token_id=None, max_new_tokens=10),
    "criterion of rows": case(3, stopping_criteria=name_of("at 423"), max_new_tokens=24),
    "criterion": case(stopping_criteria=name_of("at 423")),
    "criterion of the whole batch": case(3, stopping_criteria=name_of("80 tokens")),
    "criterion and no eos": case(3, stopping_criteria=name_of("at 423"), eos_token_id=None, max_new_tokens=12),
    "criterion that sees scores": case(3, **DICT, output_scores=True, stopping_criteria=name_of("3 scores")),
    "criterion that sees scores, one row": case(**DICT, output_scores=True, stopping_criteria=name_of("3 scores")),
    "criterion that sees no scores": case(3, stopping_criteria=name_of("3 scores"), max_new_tokens=5),
    "processor": case(logits_processor=name_of("not 423")),
    "processor of rows": case(3, logits_processor=name_of("not 423"), max_new_tokens=24),
    "two processors": case(3, logits_processor=name_of("two"), max_new_tokens=24),
    "processor and scores": case(3, **DICT, output_scores=True, output_logits=True, max_new_tokens=24,
                                 logits_processor=name_of("not 423")),
    "processor and criterion": case(3, logits_processor=name_of("not 423"), stopping_criteria=name_of("at 421"),
                                    max_new_tokens=24),
    "processor that sees the prompt": case(3, logits_processor=name_of("not in the prompt"), max_new_tokens=24),
    "prefix": case(prefix_allowed_tokens_fn=name_of("only three"), max_new_tokens=5),
    "prefix of rows": case(3, prefix_allowed_tokens_fn=name_of("by row"), max_new_tokens=6),
    "prefix and scores": case(3, **DICT, output_scores=True, prefix_allowed_tokens_fn=name_of("by row"),
                              max_new_tokens=6),
    "min_new_tokens": case(min_new_tokens=14),
    "min_new_tokens of rows": case(3, min_new_tokens=12, max_new_tokens=24),
    "min_new_tokens of rows, scores": case(3, **DICT, output_scores=True, min_new_tokens=12, max_new_tokens=24),
    "min_length": case(min_length=82),
    "min_length of rows": case(3, min_length=86, max_new_tokens=24),
    "min_length and min_new_tokens": case(min_length=80, min_new_tokens=14),
    "eos kept out at first": case(eos_token_id=[1, 517], min_new_tokens=2),
    "suppress_tokens": case(suppress_tokens=[423, 517, 99999]),
    "begin_suppress_tokens": case(begin_suppress_tokens=[517]),
    "bad words": case(bad_words_ids=[[423], [517, 382], [1]]),
    "bad words of two": case(bad_words_ids=[[517, 423], [397, 539]], **DICT, output_scores=True),
    "repetition_penalty": case(repetition_penalty=5.0, **DICT, output_scores=True, output_logits=True),
    "repetition_penalty of rows": case(3, repetition_penalty=3.0, **DICT, output_scores=True, max_new_tokens=24),
    "no_repeat_ngram_size": case(no_repeat_ngram_size=1),
    "no_repeat_ngram_size of rows": case(3, no_repeat_ngram_size=2, max_new_tokens=24),
    "sequence_bias": case(sequence_bias={(423,): -50.0, (517, 421): -50.0}),
    "sequence_bias as lists": case(sequence_bias=[[[517], -50.0]]),
    "decay": case(exponential_decay_length_penalty=(2, 1.5)),
    "forced_eos_token_id": case(forced_eos_token_id=1, max_new_tokens=4),
    "forced_eos_token_ids": case(forced_eos_token_id=[5, 1], max_new_tokens=4, **DICT, output_scores=True),
    "forced_bos_token_id": case(forced_bos_token_id=7),
    "remove_invalid_values": case(remove_invalid_values=True),
    "renormalize_logits": case(renormalize_logits=True, **DICT, output_scores=True),
    "many at once": case(3, **DICT, output_scores=True, max_new_tokens=20, min_new_tokens=9, repetition_penalty=1.3,
                         suppress_tokens=[397], bad_words_ids=[[517, 421]], stopping_criteria=name_of("at 421"),
                         logits_processor=name_of("not 423")),
    "first scores": drawn(),
    "first scores, hot": drawn(temperature=2.5, top_k=7),
    "first scores, top_k None": drawn(top_k=None),
    "first scores, top_p": drawn(top_k=0, top_p=0.9, temperature=4.0),
    "first scores, top_p 0": drawn(top_k=0, top_p=0.0),
    "first scores, min_p": drawn(top_k=0, min_p=0.05, temperature=4.0),
    "first scores, typical_p": drawn(top_k=0, typical_p=0.7, temperature=4.0),
    "first scores, top_h": drawn(top_k=0, top_h=0.5, temperature=4.0),
    "first scores, cutoffs": drawn(top_k=0, epsilon_cutoff=0.01, eta_cutoff=0.02, temperature=4.0),
    "first scores, off": drawn(top_k=0, top_p=2.0, typical_p=2.0, epsilon_cutoff=2.0, min_p=0.0),
    "first scores, normalized": drawn(temperature=0.5, renormalize_logits=True),
    "beams": case(num_beams=4),
    "beams of rows": case(3, num_beams=3, max_new_tokens=24),
    "beams, several": case(num_beams=5, num_return_sequences=3, **DICT, output_scores=True, output_logits=True),
    "beams of rows, several": case(3, num_beams=3, num_return_sequences=2, max_new_tokens=24, **DICT),
    "beams, long": case(num_beams=4, length_penalty=2.0, early_stopping="never", **DICT, output_scores=True),
    "beams, short": case(num_beams=3, num_return_sequences=3, length_penalty=-1.0, early_stopping=True, **DICT,
                         output_scores=True),
    "beams, eos ids": case(num_beams=3, eos_token_id=[1, 421, 412], num_return_sequences=2, **DICT, output_scores=True),
    "beams, no eos": case(num_beams=3, eos_token_id=None, max_new_tokens=5, **DICT, output_scores=True),
    "beams, stop string": case(num_beams=3, stop_strings=["circle"], num_return_sequences=2),
    "beams, processor": case(num_beams=3, logits_processor=name_of("not 423"), **DICT, output_scores=True),
    "beams, prefix": case(num_beams=2, prefix_allowed_tokens_fn=name_of("only three"), max_new_tokens=5),
    "beams, penalties": case(num_beams=4, repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=12, **DICT,
                             output_scores=True),
    "beams, pad": case(3, num_beams=2, pad_token_id=77, max_new_tokens=24),
    "beams, criterion": case(num_beams=3, stopping_criteria=name_of("at 423")),
    "beams, criterion, several": case(num_beams=4, num_return_sequences=3, stopping_criteria=name_of("at 421"), **DICT,
                                      output_scores=True),
    "beams, criterion and no eos": case(3, num_beams=3, stopping_criteria=name_of("at 423"), eos_token_id=None,
                                        max_new_tokens=12, **DICT),
    "beams, criterion of the batch": case(num_beams=3, stopping_criteria=name_of("80 tokens"), eos_token_id=None, **DICT),
    "one beam": case(num_beams=1, length_penalty=3.0, early_stopping=True),
    "sampling settings without sampling": case(temperature=0.3, top_k=3, top_p=0.5),
}


def objects(library):
    """Callables on tensors ("pt") or arrays ("np")."""
    if library == "pt":
        import torch as xp
    else:
        xp = np

    def without(*ids):
        def process(seen, scores):
            scores = scores.clone() if library == "pt" else scores.copy()
            scores[:, list(ids)] = -float("inf")
            return scores
        return process

    def not_in_prompt(seen, scores):
        scores = scores.clone() if library == "pt" else scores.copy()
        for row in range(len(seen)):
            last = [int(i) for i in seen[row][-4:]]
            scores[row, [i for i in last if i < scores.shape[1]]] -= 30
        return scores

    def at(token):
        return lambda ids, scores, **unused: (xp.tensor if library == "pt" else np.array)(
            [bool(row[-1] == token) for row in ids])

    return {
        "not 423": [without(423)], "two": [without(423), without(421, 397)], "not in the prompt": [not_in_prompt],
        "at 423": [at(423)], "at 421": [at(421)],
        "80 tokens": [lambda ids, scores, **unused: ids.shape[1] >= 80],
        "3 scores": [lambda ids, scores, **unused: scores is not None and len(scores) >= 3 and
                     tuple(scores[2].shape) == (len(ids), 1763)],
        "only three": lambda row, ids: [412, 423, 1],
        "by row": lambda row, ids: [[412, 423], [421, 397, 1], [365, int(ids[-1]) % 100 + 300]][row],
    }


def arguments(of, tokenizer, known):
    """The keywords of a case; a stop string comes with a tokenizer."""
    keywords = {name: known[value["object"]] if isinstance(value, dict) and "object" in value else value
                for name, value in of["settings"].items()}
    return {**keywords, "tokenizer": tokenizer} if "stop_strings" in keywords else keywords


def inputs_of(processor, rows):
    """The inputs, numpy arrays, of one row, or of three with padding on the left."""
    if rows == 1:
        return dict(processor(str(IMAGE), PROMPTS[0], return_tensors="np"))
    return dict(processor([str(IMAGE)] * rows, PROMPTS[:rows], padding=True, return_tensors="np"))
