# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Processes that use torch or TensorFlow beside the library, whichever comes first: both bring OpenMP, threads and
protobuf of their own. Answers are those of a process without them, computed at the same time as the host computes, in a
forked child, too; the host's own results and threads stay as they were. Hosts that are not installed are skipped."""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ["caption en", "detect red circle", "what colour?"]

CODE = """
import concurrent.futures, ctypes, json, os, sys
import numpy as np

name, order, folder, image, prompts = sys.argv[1:]
VALUES = np.random.default_rng(1).standard_normal((2, 400, 400), np.float32)

def torch_host():
    import torch
    torch.set_num_threads(2)
    a, b = map(torch.from_numpy, VALUES)
    return lambda: (torch.softmax(a @ b, -1).numpy().tobytes(), torch.get_num_threads())

def tensorflow_host():
    import tensorflow as tf
    a, b = map(tf.constant, VALUES)
    product = tf.function(lambda: tf.nn.softmax(a @ b))
    return lambda: (product().numpy().tobytes(), tf.config.threading.get_intra_op_parallelism_threads())

def library():
    import paligemma
    processor = paligemma.AutoProcessor.from_pretrained(folder)
    model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder, n_threads=3)
    def answer(prompt):
        inputs = processor(text=prompt, images=image, return_tensors="np")
        return model.generate(**inputs, max_new_tokens=12).tolist()
    return answer

def ids_by_sentencepiece(text):
    from paligemma import _library as c
    from paligemma.tokenizer import open_processor
    ids, n = (ctypes.c_int64 * 100)(), ctypes.c_size_t()
    try:
        processor = open_processor(folder, c.PROCESSOR_SENTENCEPIECE)
    except Exception as error:
        return [str(error)]  # a library that is built without it
    with processor.use() as pointer:
        c.check(c.lib.pg_processor_tokenize(pointer, text.encode(), 0, ids, 100, ctypes.byref(n)))
    return ids[:n.value]

host = {"torch": torch_host, "tensorflow": tensorflow_host, "none": lambda: lambda: None}[name]
if order == "host first":
    compute = host()
    before = compute()
    answer = library()
else:
    answer = library()
    answer("caption en")
    compute = host()
    before = compute()
prompts = json.loads(prompts)
answers = [answer(prompt) for prompt in prompts]
answers += [ids_by_sentencepiece(prompt) for prompt in prompts]  # whose protobuf may be the host's
with concurrent.futures.ThreadPoolExecutor(6) as pool:  # all at once
    again = [pool.submit(answer, prompt) for prompt in prompts]
    computed = [pool.submit(compute) for _ in range(20)]
assert [a.result() for a in again] == answers[:len(again)], "other answers beside the host's threads"
assert all(c.result() == before for c in computed) and compute() == before, "the host computes something else"
child = os.fork()
if child == 0:
    os._exit(0 if [answer(prompt) for prompt in prompts] == answers[:len(again)] else 1)
assert os.waitpid(child, 0)[1] == 0, "a forked child"
print(json.dumps(answers))
"""


def answers_beside(host, order, folder, image):
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", CODE, host, order, folder, str(image), json.dumps(PROMPTS)],
                          env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(folder, image_path):
    return answers_beside("none", "host first", folder, image_path)


@pytest.mark.parametrize("order", ["host first", "library first"])
@pytest.mark.parametrize("host", ["torch", "tensorflow"])
def test_answers_are_those_of_a_process_without_a_host(host, order, folder, image_path, alone):
    if importlib.util.find_spec(host) is None:
        pytest.skip(f"{host} is not installed")
    assert len(alone) == 2 * len(PROMPTS) and all(alone)
    assert answers_beside(host, order, folder, image_path) == alone
