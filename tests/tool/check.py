#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The command-line tool as a person and a script use it, on a tiny random checkpoint.

    check.py TOOL MAKE_TINY SOURCE
"""
import json
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

TOOL, MAKE_TINY, SOURCE = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import messages
import signals
import tool_checks
from tool_checks import expect, one_error_line, shown_on



def run(*arguments, stdin=b"", stdout=subprocess.PIPE, env=None):
    done = subprocess.run([TOOL, *arguments], input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=1200, env=env)
    return done.returncode, (done.stdout or b"").decode(), done.stderr.decode()


def json_error(name, result, *words):
    """--json: the error line on stderr, and the same as an object on stdout."""
    code, out, err = result
    expect(name, code == 1 and out.count("\n") == 1 and err.count("\n") == 1 and set(json.loads(out)) == {"error"}
           and err == "paligemma: " + json.loads(out)["error"] + "\n" and all(word in err for word in words), *result)


def usage(folder, image):
    for arguments in [(), ("fly",), ("run",), ("run", folder, image), ("run", folder, image, "a", "b"),
                      ("run", "--what", folder, image, "a"), ("run", "--json=1", folder, image, "a"),
                      ("run", folder, image, "a", "--threads"), ("run", folder, image, "a", "--threads", "two"),
                      ("run", folder, image, "a", "-n", "0"), ("run", folder, image, "a", "-n", "-1"),
                      ("run", folder, image, "a", "-n", "99999999999999999999"), ("detect",), ("detect", folder, image), ("ask",), ("ask", folder), ("ask", folder, image, "a"), ("ask", folder, "-"), ("ask", folder, image, "--top-p", "2"), ("detect", folder, image, "a", "--json", "--csv"),
                      ("detect", folder, image, ""), ("detect", folder, image, " ; "), ("segment", folder, image, "segment \t"), ("detect", folder, image, "detect ;;"),
                      ("detect", folder, image, "a", "--alpha", "black"), ("ask", folder, image, "--alpha", ""),
                      ("detect", folder, image, "a", "--max-iou", "1"), ("detect", folder, image, "a", "--max-iou", "nan"),
                      ("detect", folder, image, "a", "--max-iou", ".5x"), ("detect", folder, image, "a", "--max-iou="),
                      ("detect", folder, image, "a", "--convention", "1000"), ("info",), ("info", "a", "b"),
                      ("score", folder, image, "a"), ("score", folder, image, "a", "b", "--json", "--csv"),
                      ("convert",), ("convert", folder), ("convert", folder, "a", "b"), ("convert", folder, "a", "--weights", "int5"),
                      ("convert", folder, "a", "--weights", "stored"), ("convert", folder, "a", "--max-file-size", "0"),
                      ("bench",), ("bench", folder, "a"), ("bench", folder, "--rounds", "0"),
                      ("bench", folder, "--prompt-tokens", "1"), ("bench", folder, "--weights", "int5"),
                      ("bench", folder, "--arithmetic", "f16"), ("info", folder, "--arithmetic", "default"),
                      ("run", folder, image, "a", "--arithmetic", ""), ("bench", folder, "--cpu", "avx9"), ("bench", folder, "--cpu", "baseline,"), ("bench", folder, "--cpu", ""),
                      ("run", folder, image, "a", "-n0"), ("run", folder, image, "a", "-n5x"), ("run", folder, image, "a", "-v5"),
                      ("run", folder, image, "a", "--temperature", "-1"), ("run", folder, image, "a", "--temperature", "hot"),
                      ("run", folder, image, "a", "--top-p", "0"), ("run", folder, image, "a", "--top-p", "1.1"),
                      ("run", folder, image, "a", "--top-p", "nan"), ("run", folder, image, "a", "--top-k", "-1"),
                      ("run", folder, image, "a", "--seed", "-1"), ("run", folder, image, "a", "--stop", ""),
                      ("run", folder, image, "a", "--scores"), ("run", folder, image, "a", "--beams", "65"),
                      ("run", folder, image, "a", "--length-penalty", "2"), ("run", folder, image, "a", "--texts", "0"),
                      ("run", folder, image, "a", "--beams", "2", "--texts", "3"),
                      ("run", folder, image, "a", "--beams", "2", "--length-penalty", "x"),
                      ("run", folder, image, "a", "-x5"), ("run", folder, image, "a", "--processor"),
                      ("tokens", folder), ("tokens", "--json", folder), ("tokens", folder, "a", "--suffix"), ("help", "fly"),
                      ("run", folder, image, "a", "--alpha", "black"), ("info", "--json"), ("bench", "--rounds", "0", folder, "--json"),
                      ("run", folder, "--json", "--what")]:
        code, out, err = run(*arguments)
        told = json.loads(out)["error"] in err if "--json" in arguments else out == ""
        expect(f"usage {arguments}", code == 2 and told and "paligemma" in err, code, out, err)
    for arguments in [("--help",), ("-h",), ("help",), ("help", "run"), ("help", "bench"), ("detect", "--help"), ("segment", "--help"), ("ask", "--help"), ("convert", "--help"), ("run", "--help"), ("info", "-h"),
                      ("tokens", "a", "--help"), ("--version",)]:
        code, out, err = run(*arguments)
        expect(f"help {arguments}", code == 0 and "paligemma" in out and err == "", code, out, err)
    code, out, _ = run("run", "--help")
    expect("run's help speaks of EXIF", "EXIF" in out and "--no-exif" in out)


def errors(folder, image, temporary):
    damaged = os.path.join(temporary, "damaged.png")
    with open(image, "rb") as f:
        data = f.read()
    with open(damaged, "wb") as f:
        f.write(data[:len(data) // 2])
    one_error_line("no model", run("run", "/nowhere/at-all", image, "a"), 1, "/nowhere/at-all", "checkpoint")
    one_error_line("no model id", run("info", "nobody/nothing"), 1, "nobody/nothing")
    one_error_line("no model for tokens", run("tokens", "/nowhere/at-all", "a"), 1, "/nowhere/at-all")
    one_error_line("no model to bench", run("bench", "/nowhere/at-all"), 1, "/nowhere/at-all", "checkpoint")
    one_error_line("no image", run("run", folder, "/nowhere.png", "a"), 1, "/nowhere.png", "PNG")
    one_error_line("damaged image", run("run", folder, damaged, "a"), 1, damaged)
    one_error_line("empty stdin", run("run", folder, "-", "a"), 1)
    one_error_line("no UTF-8", run("run", folder, image, b"a\xff"), 1, "UTF-8")
    json_error("--json: no model", run("run", "/nowhere/at-all", image, "a", "--json"), "/nowhere/at-all", "checkpoint")
    json_error("--json: no image", run("run", folder, "/nowhere.png", "a", "--json"), "/nowhere.png")
    json_error("--json: info", run("info", "/nowhere/at-all", "--json"), "/nowhere/at-all")
    json_error("--json: tokens", run("tokens", "/nowhere/at-all", "a", "--json"), "/nowhere/at-all")
    json_error("--json: bench", run("bench", "/nowhere/at-all", "--json"), "/nowhere/at-all")
    one_error_line("a URL for a model", run("run", "https://huggingface.co/google/x", image, "a"), 1, "a URL", "hf download")
    one_error_line("a URL for an image", run("run", folder, "https://x/y.png", "a"), 1, "a URL", "download it first")
    one_error_line("the tool's names", run("run", folder, image, "<image>" * 3 + "a"), 1, "--literal")
    one_error_line("too long", run("run", folder, image, "word " * 20000, "--max-context", "8192"), 1, "--max-context, 8192")
    one_error_line("no name of C", run("run", folder, image, "<image>" * 3 + "a"), 1, "(--literal takes `<image>` as text)")
    broken = os.path.join(temporary, "damaged weights")
    shutil.copytree(folder, broken)
    with open(os.path.join(broken, "model.safetensors" if os.path.exists(os.path.join(broken, "model.safetensors")) else
                           next(n for n in os.listdir(broken) if n.endswith(".safetensors"))), "r+b") as f:
        f.write(b"\xff" * 8)
    for arguments in [("run", broken, image, "a"), ("info", broken), ("bench", broken)]:
        json_error(f"--json: damaged weights {arguments[0]}", run(*arguments, "--json"), ".safetensors")
    shutil.rmtree(broken)
    strange = os.path.join(temporary, "no\x1b[31m\u202e\u0085folder\udcff")
    for arguments in [("info", strange), ("run", folder, strange, "a"), ("tokens", folder, "a", "--" + strange)]:
        code, out, err = run(*(os.fsencode(a) for a in arguments))
        expect(f"no control characters of {arguments[0]}", code and not any(c in err for c in "\x1b\u202e\x85")
               and err.count("\n") == 1, err)
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            for arguments in [("info", folder), ("tokens", folder, "a"), ("run", folder, image, "a"),
                              ("run", "--json", folder, image, "a"), ("--help",)]:
                code, _, err = run(*arguments, stdout=full)
                expect(f"full disk {arguments}", code == 1 and err.count("\n") == 1, code, err)
    reader, writer = os.pipe()
    os.close(reader)
    code, _, err = run("run", folder, image, "a", stdout=writer)
    os.close(writer)
    expect("closed pipe", code == 1 and err == "", code, err)


def answers(folder, image):
    code, out, err = run("run", folder, image, "a b", "--max-new-tokens", "12", "--json")
    expect("run --json", code == 0 and err == "" and out.count("\n") == 1, code, out, err)
    answer = json.loads(out.splitlines()[-1])
    expect("keys", {"text", "ids", "prompt_ids", "stop", "load_s", "image_s", "prefill_s", "decode_s",
                    "tokens_per_s"} <= set(answer), answer)
    expect("stop", answer["stop"] in ("eos", "length") and 1 <= len(answer["ids"]) <= 12
           and (answer["stop"] == "eos" or len(answer["ids"]) == 12), answer)
    expect("ids are whole numbers", all(type(i) is int for i in answer["ids"] + answer["prompt_ids"]), answer)
    expect("times", all(isinstance(answer[k], (int, float)) and 0 <= answer[k] < 60
                        for k in ("load_s", "image_s", "prefill_s", "decode_s")), answer)

    n = len(answer["prompt_ids"])
    code, out, err = run("run", folder, image, "a b", "-n", "12", "--max-context", str(n + 1), "--json")
    short = json.loads(out)
    expect("max-context", code == 0 and (short["stop"] == "context" or answer["ids"] == short["ids"])
           and short["ids"] == answer["ids"][:1], code, out, err)
    code, out, err = run("run", folder, image, "a b", f"--max-context={n - 1}")
    expect("max-context is too small", code == 1 and f"is {n} tokens long" in err
           and f"at most --max-context, {n - 1}" in err, code, out, err)

    code, text, err = run("run", folder, image, "a b", "-n", "12")
    expect("run", code == 0 and err == "" and text == answer["text"] + "\n", code, text, err, answer["text"])
    for options in [("--threads=1",), ("-t", "3"), ("--max-new-tokens=12",)]:
        again = json.loads(run("run", *options, "-n", "12", "--json", "--", folder, image, "a b")[1])
        expect(f"the same with {options}", again["ids"] == answer["ids"], again, answer)
    stored = json.loads(run("run", "--no-exif", "-n", "12", "--json", "--", folder, image, "a b")[1])
    expect("EXIF", (stored["ids"] == answer["ids"]) == image.endswith(".png"), stored, answer)  # only the JPEG has one
    with open(image, "rb") as f:
        piped = run("run", folder, "-", "a b", "-n", "12", "--json", stdin=f.read())
    expect("stdin", json.loads(piped[1])["ids"] == answer["ids"], piped)
    for prompt in ["", "-x", "--json"]:
        code, out, err = run("run", "-n", "1", "--json", "--", folder, image, prompt)
        expect(f"prompt {prompt!r}", code == 0 and len(json.loads(out)["ids"]) == 1, code, out, err)
    code, out, err = run("run", folder, image, "a b", "-n", "1", "--json")
    one = json.loads(out)
    expect("one token", len(one["ids"]) == 1 and one["tokens_per_s"] == 0, one)
    code, out, err = run("run", folder, image, "a b", "-n", "2", "-v")
    expect("--verbose", code == 0 and "prompt tokens" in err and " s" in err, code, err)

    def sampled(*options):
        code, out, err = run("run", folder, image, "a b", "-n", "12", "--json", *options)
        expect(f"run {options}", code == 0 and err == "", code, out, err)
        return json.loads(out)

    beams = sampled("--beams", "4", "--texts", "3")
    expect("--beams --texts", len(beams["texts"]) == 3 and beams["texts"][0]["ids"] == beams["ids"]
           and beams["texts"][0]["score"] >= beams["texts"][1]["score"] >= beams["texts"][2]["score"], beams)
    long = sampled("--beams=4", "--texts=4", "--length-penalty=9")
    expect("--length-penalty", len(long["ids"]) >= len(beams["ids"]), long)
    texts = sampled("--texts", "3", "--temperature", "5", "--seed", "3")["texts"]
    expect("--texts draws", len({tuple(text["ids"]) for text in texts}) > 1 and "score" not in texts[0], texts)
    drawn = sampled("--temperature", "3", "--top-k", "0", "--seed", "7")
    expect("--seed is the draw", drawn["ids"] == sampled("--temperature=3", "--top-k=0", "--seed=7", "-t", "3")["ids"]
           != sampled("--temperature=3", "--top-k=0", "--seed=8")["ids"], drawn)
    for cold in [("--temperature", "0"), ("--top-k", "1"), ("--top-p", "1e-9")]:
        expect(f"{cold} is greedy", sampled(*cold)["ids"] == answer["ids"], answer)
    scored = sampled("--scores")
    expect("--scores", scored["ids"] == answer["ids"] and len(scored["log_probs"]) == len(scored["ids"])
           and all(value <= 0 for value in scored["log_probs"])
           and [step[0] for step in scored["alternatives"]] == list(map(list, zip(scored["ids"], scored["log_probs"])))
           and all(len(step) == 5 for step in scored["alternatives"]) and "log_probs" not in answer, scored)
    pieces = [json.loads(run("run", folder, image, "a b", "-n", str(n), "--json")[1])["text"] for n in (1, 2, 3)]
    if pieces[2] and "\ufffd" not in pieces[2]:
        stopped = sampled("--stop", pieces[2])
        expect("--stop", stopped["stop"] == "string" and stopped["ids"] == answer["ids"][:len(stopped["ids"])]
               and len(stopped["ids"]) <= 3 and pieces[2] in stopped["text"], stopped, pieces)

    code, out, err = run("tokens", folder, "a b", "--json")
    tokens = json.loads(out)
    expect("tokens are what run feeds", code == 0 and tokens["ids"] == answer["prompt_ids"]
           and len(tokens["pieces"]) == len(tokens["ids"]), tokens, answer)
    code, out, err = run("tokens", folder, "a b")
    listed = []
    for line in out.splitlines():
        places, number, piece = line.split("\t")
        first, _, last = places.partition("-")
        listed += [int(number)] * (int(last or first) - int(first) + 1)
    expect("the table of tokens", code == 0 and listed == tokens["ids"], out)
    code, out, err = run("tokens", folder, "a b", "--suffix", "b a", "--json")
    row = json.loads(out)
    labelled = [i for i, label in zip(row["ids"], row["labels"]) if label >= 0]
    expect("--suffix follows the prompt", row["ids"] == tokens["ids"] + labelled and labelled
           and row["pieces"][-1] == "<eos>" and row["token_type_ids"] == [int(l >= 0) for l in row["labels"]], row)
    code, out, err = run("tokens", folder, "a b", "--suffix=b a")
    expect("labels in the table", [line.split("\t")[1] for line in out.splitlines() if line.endswith("\tlabel")]
           == [str(i) for i in labelled], out, labelled)
    merged = [json.loads(run("tokens", folder, "a\n", "--json", *o)[1])["ids"] for o in [(), ("--big-vision",)]]
    expect("--big-vision", len(merged[0]) <= len(merged[1]) and merged[1][-2:] == merged[1][-1:] * 2, merged)
    plain = json.loads(run("tokens", folder, "<eos>", "--json")[1])["ids"]
    literal = json.loads(run("tokens", folder, "<eos>", "--json", "--literal")[1])["ids"]
    expect("--literal", len(literal) > len(plain), plain, literal)
    fed = json.loads(run("run", folder, image, "<eos>", "-n", "1", "--json", "--literal")[1])["prompt_ids"]
    expect("run --literal", fed == literal, fed, literal)

    code, out, err = run("info", folder, "--json")
    info = json.loads(out)
    expect("info --json", code == 0 and err == "" and info["path"] == folder and info["gemma_version"] in (1, 2)
           and info["config"]["text_config"]["hidden_size"] > 0 and info["memory"]["weights"] > 0
           and info["image"]["size"] > 0 and set(info["dtypes"]) <= {"f32", "bf16", "f16"} and info["dtypes"], info)
    expect("image tokens", answer["prompt_ids"].count(info["tokenizer"]["image_id"]) == info["image"]["tokens"], info)
    is_colpali = folder.endswith("colpali")
    expect("ColPali", ("ColPali" in info["architecture"], info["embedding_dim"] > 0) == (is_colpali, is_colpali), info)
    more = json.loads(run("info", folder, "--json", "--tokens", "4000")[1])
    expect("--tokens", more["memory"]["kv_cache"] > info["memory"]["kv_cache"], more["memory"], info["memory"])
    code, out, err = run("info", folder)
    expect("info of ColPali", ("ColPali" in out and "of 10 values" in out) == is_colpali, out)
    expect("info", code == 0 and err == "" and f"Gemma {info['gemma_version']}" in out
           and str(info["tokenizer"]["image_id"]) in out, code, out, err)


def two_folders(folder, image, temporary):
    """--processor: a folder of weights alone, as a Trainer saves them, with the base's tokenizer and image settings."""
    weights, files = os.path.join(temporary, "weights"), os.path.join(temporary, "files")
    names = [name for name in os.listdir(folder) if "safetensors" in name or name in ("config.json", "generation_config.json")]
    os.mkdir(weights)
    for name in names:
        shutil.copy(os.path.join(folder, name), weights)
    shutil.copytree(folder, files, ignore=lambda _, all: names)
    whole_run, parts = (json.loads(run("run", *f, image, "a b", "-n5", "--json")[1])
                        for f in [(folder,), (weights, "--processor", files)])
    expect("run --processor", parts["ids"] == whole_run["ids"] and parts["prompt_ids"] == whole_run["prompt_ids"], parts, whole_run)
    listed = [run("tokens", *f, "a b") for f in [(folder,), (weights, "--processor", files), (files,)]]
    expect("tokens --processor", listed[0][0] == 0 and listed.count(listed[0]) == 3, *listed)
    told = [json.loads(run("info", *f, "--json")[1]) for f in [(folder,), (weights, f"--processor={files}")]]
    expect("info --processor", told[0]["tokenizer"] == told[1]["tokenizer"] and told[0]["image"] == told[1]["image"], *told)
    for arguments in [("run", weights, image, "a"), ("tokens", weights, "a"), ("info", weights)]:
        one_error_line("no processor", run(*arguments), 1, weights, "image settings", "--processor FOLDER")
    one_error_line("no such processor", run("run", weights, image, "a", "--processor", "/nowhere"), 1, "/nowhere", "folder")

    adapter = os.path.join(temporary, "adapter")
    os.mkdir(adapter)
    with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "base_model_name_or_path": "google/paligemma-3b-pt-224"}, f)
    for arguments in [("run", adapter, image, "a"), ("tokens", adapter, "a"), ("info", adapter), ("bench", adapter),
                      ("run", adapter, image, "a", "--processor", files), ("convert", adapter, adapter + "-out")]:
        one_error_line("an adapter", run(*arguments), 1, "a PEFT adapter of google/paligemma-3b-pt-224", "--adapter FOLDER")
    # The image is looked at before the model: here the weights are damaged.
    with open(os.path.join(weights, [name for name in names if name.endswith(".safetensors")][0]), "w") as f:
        f.write("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    one_error_line("image first", run("run", weights, "/nowhere.png", "a", "--processor", files), 1, "/nowhere.png")
    code, out, err = run("run", weights, image, "a", "--processor", files)
    expect("no second advice", code == 1 and err.endswith("fetch the file with 'git lfs pull'\n"), code, out, err)


def on_terminal(*arguments):
    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, *arguments], stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    shown = shown_on(master)
    process.communicate(timeout=1200)
    os.close(master)
    return shown


def steering_text(folder, image, temporary):
    """A model that writes ESC and CSI: a terminal gets them as text, a pipe as they are."""
    ids = json.loads(run("run", folder, image, "a b", "-n3", "--json")[1])["ids"]
    expect("three other ids", len(set(ids)) == 3 and min(ids) > 2, ids)
    for name, written, shown in [("<0x1B>", b"\x1b", b"\\x1B"), ("<0x7F>", b"\x7f", b"\\x7F"), ("<0x07>", b"\x07", b"\\x07"),
                                 (("<0xE2>", "<0x80>", "<0xAE>"), b"\xe2\x80\xae", b"\\u202E"),
                                 (("<0xC2>", "<0x9B>"), b"\xc2\x9b", b"\\x9B"), (("<0xC2>", "<0xA9>"), b"\xc2\xa9", b"\xc2\xa9"),
                                 ("<0x09>", b"\t", b"\t")]:
        changed = os.path.join(temporary, "steering")
        shutil.copytree(folder, changed)

        def swap(tokenizer, names=(name,) if isinstance(name, str) else name):
            vocab = tokenizer["model"]["vocab"]
            for token, byte in zip(ids, names):  # the byte's piece gets the id that the model gives
                piece = next(p for p, i in vocab.items() if i == token)
                vocab[piece], vocab[byte] = vocab[byte], vocab[piece]

        change(changed, "tokenizer.json", swap)
        n = "-n1" if isinstance(name, str) else f"-n{len(name)}"
        piped = subprocess.run([TOOL, "run", changed, image, "a b", n], capture_output=True, timeout=1200).stdout
        expect(f"{name} to a pipe", piped == written + b"\n", piped)
        seen = on_terminal("run", changed, image, "a b", n)
        as_json = on_terminal("run", changed, image, "a b", n, "--json")
        expect(f"{name} as JSON to a terminal", json.loads(as_json)["text"] and not any(c in as_json for c in (b"\x1b", b"\x7f", b"\xc2\x9b", b"\xe2\x80\xae"))
               if name != "<0x7F>" else b"\x7f" not in as_json, as_json)
        expect(f"{name} to a terminal", seen.replace(b"\r", b"").rstrip(b" ") in (shown + b"\n", shown.expandtabs() + b"\n"), seen)
        shutil.rmtree(changed)
    score = ("score", folder, image, "a b", "\x1b[2J\u202e,", "--csv")
    expect("CSV to a pipe", ',"\x1b[2J\u202e,",' in run(*score)[1], run(*score))
    seen = on_terminal(*score)
    expect("CSV to a terminal", b',"\\x1B[2J\\u202E,",' in seen, seen)


def bench(folder):
    """Sound numbers in a sound order; how fast, no test can say."""
    small = ("--rounds", "2", "--new-tokens", "5", "--prompt-tokens", "9", "--threads", "2")
    code, out, err = run("bench", folder, "--json", *small)
    expect("bench --json", code == 0 and err == "" and out.count("\n") == 1, code, out, err)
    b = json.loads(out)
    info = json.loads(run("info", folder, "--json")[1])
    expect("what was run", b["threads"] == 2 and b["prompt_tokens"] == 9 and b["new_tokens"] == 5 and b["rounds"] == 2
           and b["weights"] == "stored" and b["kernels"] == info["kernels"] and b["image_size"] == info["image"]["size"], b)
    for name in ["frame_s", "image_s", "prefill_s", "first_token_s", "step_s"]:
        expect(f"bench: {name}", 0 < b[name]["best"] <= b[name]["median"] < 60, b[name])
    expect("rounds", b["image_s"]["n"] == b["first_token_s"]["n"] == 2 <= b["prefill_s"]["n"]
           and b["step_s"]["n"] <= 10, b)  # a random model may end its text at once, again and again
    expect("first token", b["first_token_s"]["best"] > 0.999 * (b["image_s"]["best"] + b["prefill_s"]["best"]), b)
    expect("roofs", all(b["roofs"][roof]["per_s"] > 0 for roof in ("f32", "read"))
           and b["roofs"]["int8"]["per_s"] >= 0, b["roofs"])
    most = 1.5 if "qemu" not in os.environ.get("MESON_EXE_WRAPPER", "") else 100  # an emulator's roofs hold nothing up
    expect("parts of the roofs", 0 < b["share_of_roof"]["image"] < most and 0 < b["share_of_roof"]["prefill"] < most,
           b["share_of_roof"])
    text, vision = info["config"]["text_config"], info["config"]["vision_config"]
    d, mlp, patches = vision["hidden_size"], vision["intermediate_size"], info["image"]["tokens"]
    flop = 2 * patches * (vision["num_hidden_layers"] * (4 * d * d + 2 * d * mlp) + 3 * vision["patch_size"] ** 2 * d
                          + d * text["hidden_size"]) + vision["num_hidden_layers"] * 4 * patches ** 2 * d
    expect("the image's operations", b["work"]["image_flop"] == flop, b["work"], flop)
    m = b["memory"]
    expect("memory", 0 < m["own"] and m["own"] + m["mapped"] <= m["resident_peak"] * 1.1 and m["kv_cache"] > 0, m)
    code, out, err = run("bench", folder, "--no-roofs", "--cpu", "baseline", *small)
    expect("bench", code == 0 and err == "" and "first token" in out and "decode" in out and "roofs" not in out
           and "kernels baseline\n" in out, code, out, err)


def change(folder, name, edit):
    with open(os.path.join(folder, name)) as f:
        config = json.load(f)
    edit(config)
    with open(os.path.join(folder, name), "w") as f:
        json.dump(config, f)


def cannot_end(folder):
    """Gives the checkpoint an eos that it never says."""
    change(folder, "generation_config.json", lambda config: config.update(eos_token_id=0))


def fill(writer):
    """Writes until no byte more is taken."""
    os.set_blocking(writer, False)
    for size in (512, 1):
        try:
            while os.write(writer, b"x" * size):
                pass
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)


def nobody_reads(folder, image):
    """A full pipe, and a full terminal: the first signal ends what waits there, with its own line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for verb, prompt in [("run", ["a"]), ("ask", [])]:
            for kind, (reader, writer) in [("pipe", os.pipe()), ("terminal", pty.openpty())]:
                fill(writer)
                process = subprocess.Popen([TOOL, verb, folder, image, *prompt, "-n", "2000000000"], stdin=subprocess.PIPE,
                                           stdout=writer, stderr=subprocess.PIPE)
                os.close(writer)
                process.stdin.write(b"a\n" * (verb == "ask"))
                process.stdin.flush()
                end, waits = time.monotonic() + 30, 0
                while waits < 5 and time.monotonic() < end:
                    with open(f"/proc/{process.pid}/syscall") as f:  # write() to stdout
                        waits = waits + 1 if re.match(r"\d+ 0x1 ", f.read()) else 0
                    time.sleep(0.02)
                process.send_signal(number)
                try:
                    code = process.wait(20)
                except subprocess.TimeoutExpired:
                    code = "alive"
                    process.kill()
                err = process.stderr.read()
                expect(f"{verb}: nobody reads a {kind}, signal {number}", waits and code == -number and err == b"paligemma: interrupted\n",
                       waits, code, err)
                process.communicate()
                os.close(reader)


def closed_files(folder, image, temporary):
    """With stderr closed its messages are lost, and go into no file that is opened later."""
    out = os.path.join(temporary, "closed.json")
    code = subprocess.run([TOOL, "detect", "-v", "--json", "-o", out, folder, image, "/nonexistent.png", "circle"],
                          preexec_fn=lambda: os.close(2), timeout=1200).returncode
    with open(out) as f:
        lines = f.read().splitlines()
    expect("closed stderr", code == 1 and lines and all(line.startswith("{") for line in lines), code, lines)


def stacks_of_threads(folder, image):
    """OpenMP's stacks count when its threads are tried: those that do not fit, and those that are too small, are done without."""
    def limited(size, megabytes):
        limits = (megabytes << 20, megabytes << 20)
        done = subprocess.run([TOOL, "run", "-t", "8", "-n", "3", folder, image, "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=1200, env=dict(os.environ, **({"OMP_STACKSIZE": size} if size else {})),
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits) if megabytes else None)
        return done.returncode, done.stdout, done.stderr
    wanted = limited(None, 0)
    expect("threads", wanted[0] == 0, *wanted)
    for size in ("16k", "20 K", "100G", "65536B"):
        expect(f"OMP_STACKSIZE {size}", limited(size, 0)[:2] == wanted[:2], size)
    if limited(None, 2000)[0] == 0:  # a sanitizer takes more address space than that
        for size in ("512M", "1G"):
            found = limited(size, 2000)
            expect(f"OMP_STACKSIZE {size}, little address space", found[:2] == wanted[:2], *found)


def terminal(folder, image):
    """Progress is for terminals only; Ctrl-C stops a run with one line, and it dies of the signal, as a shell wants it."""
    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, "run", folder, image, "a", "-n", "3"], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    process.stdout.read()
    expect("on a terminal", process.wait(60) == 0)
    shown = os.read(master, 65536).decode()
    os.close(master)
    expect("progress on a terminal", "\r" in shown and "image" in shown, shown)

    master, slave = pty.openpty()
    subprocess.run([TOOL, "run", folder, image, "a", "-n", "3"], stdout=subprocess.PIPE, stderr=slave, timeout=1200,
                   env={**os.environ, "TERM": "dumb"})
    os.write(slave, b".")
    os.close(slave)
    shown = os.read(master, 65536)
    os.close(master)
    expect("no progress on a dumb terminal", b"\x1b" not in shown and b"\r" not in shown.replace(b"\r\n", b""), shown)

    cannot_end(folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen([TOOL, "run", folder, image, "a", "-n", "2000000000"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.read(1)  # it has begun; now it would go on for long
        process.send_signal(number)
        _, err = process.communicate(timeout=1200)
        expect(f"signal {number}", process.returncode == -number and err == b"paligemma: interrupted\n", process.returncode, err)
    if os.path.exists("/proc/self/syscall"):
        nobody_reads(folder, image)
    process = subprocess.Popen([TOOL, "run", folder, image, "a", "-n", "2000000000", "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)  # under nohup it stays ignored
    time.sleep(0.2)
    expect("ignored signals stay so", process.poll() is None)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=1200)
    expect("--json: interrupted", process.returncode == -signal.SIGTERM and json.loads(out) == {"error": "interrupted"}, out, err)


def detections(temporary):
    """On the demo model, whose answers are known."""
    model, images = os.path.join(SOURCE, "examples", "demo", "model"), os.path.join(SOURCE, "examples", "demo", "images")
    shapes, stripes, missing = os.path.join(images, "shapes.png"), os.path.join(images, "stripes.jpg"), "/nowhere.png"
    code, out, err = run("detect", model, shapes, "red circle ; yellow triangle", "--json")
    found = json.loads(out)
    expect("detect --json", code == 0 and err == "" and out.count("\n") == 1 and found["image"] == shapes
           and (found["width"], found["height"]) == (336, 336) and found["broken"] == [] and found["stop"] == "eos", out, err)
    expect("detect's objects", [o["category"] for o in found["objects"]] == ["red circle", "yellow triangle"]
           and found["objects"][0]["bbox"] == [0.0, 23.953, 95.813, 95.813]
           and found["objects"][0]["locs"] == [73, 0, 365, 292]
           and all(0.9 < o["score"] <= 1 and o["flags"] == [] for o in found["objects"]), found)
    text = json.loads(run("run", model, shapes, "detect red circle ; yellow triangle", "--json")[1])["text"]
    expect("detect and run say the same", text == found["text"], text, found)
    again = run("detect", model, shapes, "detect red circle ; yellow triangle", "--json", "--constrain")
    expect("'detect ' is put in front once", json.loads(again[1]) == found, again, found)
    wide = json.loads(run("detect", model, shapes, "red circle ; yellow triangle", "--json", "--convention", "1023")[1])
    expect("--convention", wide["objects"][0]["bbox"][2] == round(292 / 1023 * 336, 3), wide)
    code, out, err = run("detect", model, shapes, missing, stripes, "red circle", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    expect("a bad image between two", code == 1 and [line["image"] for line in lines] == [shapes, missing, stripes]
           and set(lines[1]) == {"image", "error"} and "1 of 3 images failed" in err and missing in err
           and all(line["objects"] for line in lines[::2]), code, out, err)
    code, out, err = run("detect", model, shapes, missing, "red circle", "--csv")
    rows = out.splitlines()
    expect("detect --csv", code == 1 and rows[0] == "image,label,score,x0,y0,x1,y1" and rows[1].startswith(shapes + ",red circle,0.")
           and rows[1].endswith(",0.000,23.953,95.812,119.766") and len(rows) == 2, code, out, err)
    odd = os.path.join(temporary, 'a "b",c.png')
    shutil.copy(shapes, odd)
    code, out, err = run("detect", model, odd, "red circle", "--csv")
    expect("quotes in CSV", code == 0 and out.splitlines()[1].startswith('"' + odd.replace('"', '""') + '",red circle,'), out, err)
    code, out, err = run("detect", model, shapes, "red circle")
    expect("detect's table", code == 0 and out.splitlines()[0].split() == ["score", "x0", "y0", "x1", "y1", "label"]
           and out.splitlines()[1].endswith("  red circle") and "119.8" in out, out, err)
    with open(shapes, "rb") as f:
        piped = run("detect", model, "-", "red circle", stdin=f.read())
    expect("detect from stdin", piped == (code, out, err), piped)
    one_error_line("detect: no image", run("detect", model, missing, "red circle"), 1, missing)
    one_error_line("detect: no model", run("detect", "/nowhere", shapes, "red circle"), 1, "/nowhere")
    json_error("detect --json: no model", run("detect", "/nowhere", shapes, "red circle", "--json"), "/nowhere")
    code, out, err = run("detect", model, shapes, "red circle", "-n", "3")
    expect("a box that is broken off", code == 0 and "partial, unfinished" in out, code, out, err)
    cut = json.loads(run("detect", model, shapes, "red circle", "-n", "3", "--json")[1])
    expect("the same as JSON", cut["objects"] == [] and cut["broken"][0]["locs"] == [73, 0, 365] and cut["stop"] == "length"
           and "bbox" not in cut["broken"][0], cut)
    said = [json.loads(run("detect", model, shapes, things, "--json")[1]) for things in ("red circle ; purple star", " detect red circle;;purple\tstar".replace("\t", " ") + " ; ")]
    expect("names are joined by \" ; \"", said[0]["objects"] and said[0] == said[1], said)


def coco_mask(segmentation):
    """Rows of booleans of COCO's run lengths."""
    (height, width), text, counts, at = segmentation["size"], segmentation["counts"], [], 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            c = ord(text[at]) - 48
            value |= (c & 31) << shift
            more, shift, at = c & 32, shift + 5, at + 1
        if c & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    flat = [n % 2 == 1 for n, count in enumerate(counts) for _ in range(count)]
    return [[flat[x * height + y] for x in range(width)] for y in range(height)]


def segment():
    """On the demo model, whose shapes are known."""
    model, images = os.path.join(SOURCE, "examples", "demo", "model"), os.path.join(SOURCE, "examples", "demo", "images")
    shapes = os.path.join(images, "shapes.png")
    first = code, out, err = run("segment", model, shapes, "red circle ; yellow triangle", "--json")
    found = json.loads(out) if code == 0 else {}
    expect("segment --json", code == 0 and [o["category"] for o in found["objects"]] == ["red circle", "yellow triangle"], code, out, err)
    for o in found["objects"]:
        mask, (x, y, w, h) = coco_mask(o["segmentation"]), o["bbox"]
        inside = [(i, k) for k, row in enumerate(mask) for i, value in enumerate(row) if value]
        expect(f"the mask of {o['category']}", len(inside) == o["area"] and len(mask) == found["height"]
               and all(x - 1 <= i <= x + w and y - 1 <= k <= y + h for i, k in inside), o)
        share = {"red circle": 0.785, "yellow triangle": 0.5}[o["category"]]  # of the box
        expect(f"how much of its box {o['category']} has", abs(o["area"] / (w * h) - share) < 0.05, o["area"] / (w * h))
    again = run("segment", model, shapes, "red circle ; yellow triangle", "--json", "--constrain")
    expect("segment --constrain", again == first, again)
    code, out, err = run("segment", model, shapes, "red circle")
    expect("segment: a table", code == 0 and "area" in out.splitlines()[0] and len(out.splitlines()) == 2, out)
    code, out, err = run("segment", model, shapes, "red circle", "--csv")
    expect("segment --csv", code == 0 and out.splitlines()[0] == "image,label,score,x0,y0,x1,y1,area"
           and out.splitlines()[1].split(",")[-1].isdigit(), out)
    decoder = os.path.join(model, "vae-oid.safetensors")
    expect("--mask-decoder", run("segment", model, shapes, "red circle", "--csv", "--mask-decoder", decoder)[1] == out)
    one_error_line("segment: no decoder", run("segment", model, shapes, "red circle", "--mask-decoder", "/nowhere"), 1, "/nowhere")
    one_error_line("segment: a folder without one", run("segment", model, shapes, "red circle", "--mask-decoder", images), 1, "vae-oid.npz")
    code, out, err = run("segment", model, shapes, "red circle", "-n", "8")
    expect("segment: a mask that was cut off", code == 0 and "no mask" in out, out)
    cut = json.loads(run("segment", model, shapes, "red circle", "-n", "8", "--json")[1])
    objects = cut["objects"] + cut["broken"]
    expect("segment --json: no member for a mask that is not there", len(objects) == 1 and len(objects[0]["segs"]) == 4
           and not {"area", "segmentation"} & set(objects[0]), cut)
    with open(os.path.join(SOURCE, "python", "paligemma", "answers.py")) as f:
        defaults = re.findall(r"max_new_tokens: int = (\d+)", f.read())
    told = [re.search(r"after N tokens \(default (\d+)\)", run(verb, "--help")[1]).group(1) for verb in ("detect", "segment")]
    expect("as many tokens as Python's", told == defaults == ["256", "1024"], told, defaults)


def scores(temporary):
    """On the demo model: the answer that it gives is the likeliest, and its numbers are those of `run --scores`."""
    model, images = os.path.join(SOURCE, "examples", "demo", "model"), os.path.join(SOURCE, "examples", "demo", "images")
    shapes, missing, question = os.path.join(images, "shapes.png"), "/nowhere.png", "answer en what color is the star?"
    answers = ["red", "purple", "a purple star", ""]
    code, out, err = run("score", model, shapes, question, *answers, "--json")
    line = json.loads(out)
    found = {s["answer"]: s for s in line["scores"]}
    expect("score --json", code == 0 and err == "" and out.count("\n") == 1 and line["image"] == shapes
           and list(found) == answers and abs(sum(s["probability"] for s in found.values()) - 1) < 1e-9
           and all(abs(sum(s["log_probs"]) - s["log_prob"]) < 1e-5 and len(s["ids"]) == len(s["log_probs"])
                   and abs(s["log_prob"] / len(s["ids"]) - s["mean_log_prob"]) < 1e-9 for s in found.values()), out, err)
    said = json.loads(run("run", model, shapes, question, "--json", "--scores")[1])
    expect("score and run say the same", said["text"] == "purple" and said["ids"] == found["purple"]["ids"]
           and all(abs(a - b) < 1e-4 for a, b in zip(said["log_probs"], found["purple"]["log_probs"])), said, found)
    code, out, err = run("score", model, shapes, question, *answers)
    rows = [row.split(None, 3) for row in out.splitlines()]
    expect("score's table", code == 0 and rows[0] == ["probability", "log", "tokens", "answer"]
           and rows[1][3] == "purple" and [float(row[0]) for row in rows[1:]] == sorted((float(row[0]) for row in rows[1:]), reverse=True),
           out, err)
    code, out, err = run("score", model, shapes, question, "red", "a purple star", "--normalize")
    expect("score --normalize", code == 0 and out.splitlines()[1].endswith("  a purple star")
           == (found["a purple star"]["mean_log_prob"] > found["red"]["mean_log_prob"]), out, err)
    code, out, err = run("score", model, images, question, "red", 'a "b", c', "--csv", "--threads", "1")
    names = sorted(os.path.join(images, name) for name in os.listdir(images))
    expect("score --csv of a folder", code == 0 and out.splitlines()[0] == "image,answer,probability,log_prob,mean_probability,mean_log_prob,tokens"
           and [row.split(",")[0] for row in out.splitlines()[1:]] == [name for name in names for _ in range(2)]
           and '"a ""b"", c"' in out, out, err)
    open_end = json.loads(run("score", model, shapes, question, "purple", "--json", "--no-eos")[1])["scores"][0]
    expect("score --no-eos", open_end["ids"] == found["purple"]["ids"][:-1] and open_end["probability"] == 1, open_end)
    with open(shapes, "rb") as f:
        expect("score: an image of stdin", json.loads(run("score", model, "-", question, *answers, "--json", stdin=f.read())[1])["scores"] == line["scores"])
    listed = os.path.join(temporary, "score.txt")
    with open(listed, "w") as f:
        f.write(f"{shapes}\n{missing}\n")
    code, out, err = run("score", model, question, *answers, "--images-from", listed, "--json")
    rows = [json.loads(row) for row in out.splitlines()]
    expect("score: a list with a bad image", code == 1 and rows[0] == line and set(rows[1]) == {"image", "error"}, code, out, err)
    one_error_line("score: no image", run("score", model, missing, question, "red"), 1, missing)
    one_error_line("score: no model", run("score", "/nowhere", shapes, question, "red"), 1, "/nowhere")
    one_error_line("score: an answer without tokens", run("score", model, shapes, question, "", "--no-eos"), 1, "answers[0]", "--no-eos")
    one_error_line("score: <image>", run("score", model, shapes, question, "<image>"), 1, "--literal")
    one_error_line("score: too long", run("score", model, shapes, question, "purple", "--max-context", "70"), 1, "--max-context")
    expect("score --literal", run("score", model, shapes, question, "<image>", "--literal")[0] == 0)
    plain = os.path.join(images, "plain.png")
    code, out, err = run("score", model, shapes, missing, plain, question, *answers, "--json")
    rows = [json.loads(row) for row in out.splitlines()]
    expect("score: several images", code == 1 and [row["image"] for row in rows] == [shapes, missing, plain] and rows[0] == line
           and [s["answer"] for s in rows[2]["scores"]] == answers and "1 of 3 images failed" in err, code, out, err)
    os.makedirs(os.path.join(temporary, "day"))
    done = subprocess.run([os.path.abspath(TOOL), "score", model, shapes, "day", "night", "--csv"], stdout=subprocess.PIPE, cwd=temporary)
    expect("score: a folder named as the prompt is", done.returncode == 0 and done.stdout.decode().splitlines()[1].split(",")[1] == "night", done)


def adapter(folder, scale):
    """A LoRA adapter of the demo model's q projections, rank 1: A and B are `scale` all over."""
    with open(os.path.join(SOURCE, "examples", "demo", "model", "model.safetensors"), "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        stored = json.loads(f.read(size))
    header, data = {}, b""
    for name, tensor in stored.items():
        if "language_model" in name and name.endswith("q_proj.weight"):
            rows, columns = tensor["shape"]
            for part, shape in (("A", [1, columns]), ("B", [rows, 1])):
                values = struct.pack("<f", scale) * (shape[0] * shape[1])
                header["base_model.model." + name.replace(".weight", f".lora_{part}.weight")] = {
                    "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
                data += values
    os.mkdir(folder)
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "adapter_model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "r": 1, "lora_alpha": 1}, f)
    return len(header) // 2


def adapters(temporary):
    """--adapter, of the verbs that open a model."""
    strong, none = os.path.join(temporary, "strong"), os.path.join(temporary, "none")
    n_modules = adapter(strong, 1.0)
    adapter(none, 0.0)
    demo = os.path.join(SOURCE, "examples", "demo")
    model, image = os.path.join(demo, "model"), os.path.join(demo, "images", "shapes.png")
    plain = run("run", model, image, "caption en")[1]
    expect("an adapter of zeros", run("run", model, image, "caption en", "--adapter", none) == (0, plain, ""))
    code, changed, err = run("run", model, image, "caption en", "--adapter", strong)
    expect("an adapter", code == 0 and err == "" and changed != plain, code, changed, err)
    expect("two of them", run("run", model, image, "caption en", "--adapter", none, "--adapter=" + strong)[1] == changed)
    code, text, err = run("info", model, "--adapter", strong)
    expect("info of it", code == 0 and f"{strong}: rank 1, {n_modules} modules" in text, code, text, err)
    found = json.loads(run("info", model, "--json", "--adapter", strong)[1])["adapters"]
    expect("info of it as JSON", [a["n_modules"] for a in found] == [n_modules], found)
    expect("no adapters, no key", "adapters" not in json.loads(run("info", model, "--json")[1]))
    for verb, words in (("detect", ("red circle",)), ("score", ("caption en", "a red circle"))):
        code, text, err = run(verb, model, image, *words, "--adapter", none)
        expect(f"{verb} with an adapter", (code, text, err) == run(verb, model, image, *words), code, text, err)
    out = os.path.join(temporary, "merged")
    code, text, err = run("convert", model, out, "--adapter", strong)
    expect("convert --adapter", (code, text, err) == (0, "", ""), code, text, err)
    expect("a merged model", run("run", out, image, "caption en")[1] == changed)
    shutil.rmtree(out)
    code, text, err = run("convert", model, out, "--adapter", strong, "--weights", "int8")
    expect("merged and quantized", code == 0 and "int8" in run("info", out)[1], code, err)
    shutil.rmtree(out)
    code, text, err = run("convert", model, out, "--weights", "stored")
    expect("stored without an adapter", code == 2 and "int8" in err, code, err)
    one_error_line("no adapter", run("run", model, image, "caption en", "--adapter", temporary), 1, "adapter_config.json")


def contents(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as f:
            found[name] = f.read()
    return found


def whole(out):
    """Whether a folder opens and all its checksums hold."""
    return run("info", out, "--verify")[0] == 0


def large_files(source, target, copies):
    """The checkpoint with many more rows in its embedding: one conversion takes a while."""
    shutil.copytree(source, target)
    path = os.path.join(target, "model.safetensors")
    with open(path, "rb") as f:
        data = f.read()
    size, = struct.unpack("<Q", data[:8])
    header, body, at = json.loads(data[8:8 + size]), data[8 + size:], 0
    header.pop("__metadata__", None)
    parts = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        n = copies if name.endswith("embed_tokens.weight") else 1
        entry["shape"][0] *= n
        entry["data_offsets"] = [at, at + n * (end - begin)]
        at += n * (end - begin)
        parts.append(body[begin:end] * n)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def tensors(folder):
    """name: dtype, shape, data; and the metadata of a folder with one weight file."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        data = f.read()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    found = {name: (entry["dtype"], entry["shape"], data[8 + size:][slice(*entry["data_offsets"])]) for name, entry in header.items()}
    text = data[:8 + size].decode("latin-1")
    if "header_crc32" in metadata:
        at = text.index('"header_crc32":"') + 16
        text = text[:at] + "0" * 8 + text[at + 8:]
    return found, metadata, zlib.crc32(text.encode("latin-1")), size


def as_floats(dtype, data):
    n = len(data) // 2
    return struct.unpack(f"<{len(data) // 4}f", data) if dtype == "F32" else \
        [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in struct.unpack(f"<{n}H", data)]


def by_the_document(source, out, weights):
    """docs/FORMATS.md read by someone who knows nothing else. -> {tensor in blocks: int8 or int4}"""
    converted, metadata, crc, size = tensors(out)
    is_mix = any(key.startswith("blocks:") for key in metadata)
    originals = tensors(source)[0]
    with open(os.path.join(out, "config.json"), "rb") as f:
        config = f.read()
    expect("metadata", metadata["format"] == "libpaligemma" and metadata["layout_version"] == ("2" if is_mix else "1") and metadata["weights"] == weights
           and metadata["header_crc32"] == f"{crc:08x}" and metadata["config_crc32"] == f"{zlib.crc32(config):08x}"
           and (8 + size) % 64 == 0, metadata, crc, size)
    worst, kinds = {"int8": {}, "int4": {}}, {}
    for name, (dtype, shape, data) in converted.items():
        expect(f"crc32 of {name}", metadata["crc32:" + name] == f"{zlib.crc32(data):08x}")
        stored_dtype, stored_shape, stored = originals[name]
        values = as_floats(stored_dtype, stored)
        if "shape:" + name not in metadata:
            expect(f"{name} is as it was", shape == stored_shape and list(as_floats(dtype, data)) == list(values), dtype, shape)
            continue
        expect(f"shape of {name}", json.loads(metadata["shape:" + name]) == stored_shape and dtype == "U8", dtype, stored_shape)
        rows, columns = stored_shape[0], len(values) // stored_shape[0]
        kind = kinds[name] = metadata.get("blocks:" + name, weights)
        groups, block = -(-columns // 128), 2112 if kind == "int8" else 1088
        expect(f"bytes of {name}", len(data) == -(-rows // 16) * groups * block, len(data))
        for row in range(rows):
            for group in range(groups):
                b, r = data[(row // 16 * groups + group) * block:][:block], row % 16
                run_of = values[row * columns + group * 128:row * columns + min((group + 1) * 128, columns)]
                largest = max(map(abs, run_of))
                for c, value in enumerate(run_of):
                    if kind == "int8":
                        scale, = struct.unpack_from("<f", b, 4 * r)
                        q = b[64 + c // 4 * 64 + r * 4 + c % 4] - 128
                    else:
                        scale, = as_floats("BF16", b[2 * r:2 * r + 2])
                        scale *= b[32 + 8 * (c // 32) + r // 2] >> 4 * (r % 2) & 15
                        q = (b[64 + c // 8 * 64 + r * 4 + c % 4] >> (4 if c % 8 >= 4 else 0) & 15) - 8
                    worst[kind][name] = max(worst[kind].get(name, 0), abs(scale * q - value) / (largest or 1))
    # half a step of int8; the scales of int4 are those of the least squares, which may cut off the largest weight
    for kind, errors in worst.items():
        bound = 0.5 / 127 * 1.001 if kind == "int8" else 0.2
        expect(f"{kind} values", all(error <= bound for error in errors.values()), errors)
    expect("blocks", kinds)
    return kinds


def pipes(folder, image, temporary):
    """An image by the name of a pipe, and what is neither file nor pipe."""
    def ids(path, **more):
        return json.loads(run("run", "--json", "-n", "4", folder, path, "a", **more)[1])["ids"]

    with open(image, "rb") as file:
        content = file.read()
    expected = ids(image)
    expect("/dev/stdin, a pipe", ids("/dev/stdin", stdin=content) == expected)
    with open(image, "rb") as file:
        done = subprocess.run([TOOL, "run", "--json", "-n", "4", folder, "/dev/stdin", "a"], stdin=file, stdout=subprocess.PIPE)
        expect("/dev/stdin, a file", json.loads(done.stdout)["ids"] == expected)
    fifo = os.path.join(temporary, "fifo")
    os.mkfifo(fifo)
    reader = subprocess.Popen([TOOL, "run", "--json", "-n", "4", folder, fifo, "a"], stdout=subprocess.PIPE)
    with open(fifo, "wb") as file:
        file.write(content)
    expect("a FIFO", json.loads(reader.communicate(timeout=1200)[0])["ids"] == expected)
    reader = subprocess.Popen([TOOL, "run", folder, fifo, "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    reader.send_signal(signal.SIGINT)  # nobody writes
    expect("Ctrl-C while a FIFO is waited for", reader.wait(timeout=8) == -signal.SIGINT)
    reader.communicate()
    one_error_line("an image that is a device", run("run", folder, "/dev/zero", "a"), 1, "found a character device")
    broken = os.path.join(temporary, "broken")
    shutil.copytree(folder, broken)
    os.remove(os.path.join(broken, "config.json"))
    os.mkfifo(os.path.join(broken, "config.json"))
    one_error_line("a pipe in a checkpoint", run("info", broken), 1, "config.json", "found a pipe", "to a file first")


def comma_locale(temporary):
    """The environment of a user whose numbers have a comma; None where no such locale can be made."""
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", os.path.join(temporary, "de_DE.UTF-8")], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) if shutil.which("localedef") else None
    if made is None or not os.path.isdir(os.path.join(temporary, "de_DE.UTF-8")):
        print("no comma locale here")
        return None
    env = {**os.environ, "LOCPATH": temporary, "LC_ALL": "de_DE.UTF-8"}
    shown = subprocess.run(["printf", "%.1f", "1,5"], env=env, stdout=subprocess.PIPE).stdout
    expect("the comma locale is one", shown == b"1,5", shown)
    return env


def locales(folder, image, temporary):
    env = comma_locale(temporary)
    if env is None:
        return
    for arguments in [("info", "--json", folder), ("info", folder), ("tokens", folder, "caption en"), ("run", "-n", "4", folder, image, "a")]:
        expect(f"a comma locale: {arguments[0]}", run(*arguments, env=env) == run(*arguments), run(*arguments, env=env))
    answer = json.loads(run("run", "--json", "-n", "4", folder, image, "a", env=env)[1])
    expect("a comma locale: times are numbers", 0 < answer["load_s"] < 60, answer)
    times = json.loads(run("bench", "--json", "--no-roofs", "--rounds", "1", folder, env=env)[1])
    expect("a comma locale: bench", times["load_s"] > 0, times)


def in_memory(folder, image):
    """--in-memory: the same answers, nothing is mapped."""
    answers = [json.loads(run("run", "--json", "-n", "4", *option, folder, image, "a")[1]) for option in ([], ["--in-memory"])]
    expect("--in-memory answers the same", answers[0]["ids"] == answers[1]["ids"] and answers[1]["ids"], answers)
    mapped, read = (json.loads(run("info", "--json", *option, folder)[1]) for option in ([], ["--in-memory"]))
    expect("--in-memory maps nothing", read["memory"]["weights"] == 0 and mapped["memory"]["weights"] > 0
           and read["memory"]["weights_copied"] > mapped["memory"]["weights_copied"], mapped, read)
    expect("--in-memory --verify", run("info", "--in-memory", "--verify", folder)[2].count("checksums") == 1)
    expect("bench --in-memory", json.loads(run("bench", "--in-memory", "--json", "--no-roofs", "--rounds", "1", folder)[1])["work"]["step_bytes"] > 0)


def calibrated(source, out, temporary):
    """paligemma convert --calibrate: as large, other bytes, and gone on from after a failure."""
    images, prompts, saved = os.path.join(temporary, "calibrate"), os.path.join(temporary, "prompts.txt"), out + ".calibration"
    os.mkdir(images)
    for name in ["plain.png", "stripes.jpg"]:
        shutil.copy(os.path.join(SOURCE, "examples", "demo", "images", name), images)
    with open(prompts, "w") as f:
        f.write("a\nthe cat\tthe cat\n\n")
    command = ("convert", source, out, "--weights", "int4", "--calibrate", images, "--prompts", prompts)
    code, text, err = run(*command)
    expect("convert --calibrate", code == 0 and text == err == "" and not os.path.exists(saved), code, text, err)
    first = contents(out)
    shutil.rmtree(out)
    run("convert", source, out, "--weights", "int4")
    size = os.path.getsize(os.path.join(out, "model.safetensors"))
    expect("at equal bytes", size == len(first["model.safetensors"]) and contents(out) != first, size)
    one_error_line("OUT is there", run(*command), 1, out, "empty")
    expect("what was summed up is kept", os.path.exists(saved))
    shutil.rmtree(out)
    one_error_line("of other prompts", run(*command[:-2]), 1, saved, "remove it")
    expect("gone on from", run(*command)[0] == 0 and contents(out) == first and not os.path.exists(saved))
    shutil.rmtree(out)
    code, text, err = run(*command, "--int8-layers", "embedding,attention", "-t", "3")
    expect("a calibrated mix", code == 0 and contents(out) != first, code, err)
    shutil.rmtree(out)
    with open(prompts, "w"):
        pass
    for name, words in [("no prompts", ("--calibrate", images, "--prompts", prompts)),
                        ("no images", ("--calibrate", os.path.join(temporary, "none")))]:
        one_error_line(name, run("convert", source, out, "--weights", "int4", *words), 1)
    for name, words in [("prompts alone", ("--weights", "int4", "--prompts", prompts)), ("int8", ("--calibrate", images))]:
        code, text, err = run("convert", source, out, *words)
        expect(name, code == 2 and text == "" and "--calibrate" in err, code, text, err)
    expect("nothing was made", not os.path.exists(out) and not os.path.exists(saved))


def conversions(folder, temporary):
    """paligemma convert: what it writes, and what it leaves behind when it fails, is stopped or killed."""
    source, out = os.path.join(temporary, "source"), os.path.join(temporary, "out")
    subprocess.run([MAKE_TINY, source, "official"], check=True)
    for weights, layers in [("int8", None), ("int4", None), ("int4", "embedding,attention"), ("int4", "encoder,decoder.0.down")]:
        mix = ["--int8-layers", layers] if layers else []
        code, text, err = run("convert", source, out, "--weights", weights, *mix)
        expect(f"convert {weights}", code == 0 and text == err == "" and not os.path.exists(out + ".partial"), code, text, err)
        info = json.loads(run("info", out, "--json")[1])
        stored = json.loads(run("info", source, "--json")[1])
        expect("info says what it is", info["weights"] == weights and stored["weights"] == "stored", info, stored)
        expect("the same model", info["n_parameters"] == stored["n_parameters"] and info["config"] == stored["config"]
               and info["tokenizer"] == stored["tokenizer"], info, stored)
        code, text, err = run("info", out, "--verify")
        sound = f"checksums     all {len(tensors(out)[0])} tensors in 1 file match\n"
        expect("info --verify", code == 0 and err == "" and f"{weights} blocks" in text and sound in text, code, text, err)
        verified = json.loads(run("info", out, "--verify", "--json")[1])
        expect("verified, when asked for", verified.pop("verified") is True and verified == info, verified, info)
        expect("no checksums, unless asked for", "checksums" not in run("info", out)[1])
        kinds = by_the_document(source, out, weights)
        expect("a mix", {"int8", "int4"} == set(kinds.values()) if layers else {weights} == set(kinds.values()), kinds)
        expect("matrices in int8", info["n_int8_matrices"] == list(kinds.values()).count("int8")
               and ("matrices in int8" in text) == bool(layers), info)
        if layers == "embedding,attention":
            expect("what the mix names", all((kind == "int8") == ("embed_tokens" in name or "lm_head" in name or "self_attn" in name)
                                             for name, kind in kinds.items()), kinds)
            asked = json.loads(run("info", source, "--weights", "int4", *mix, "--json")[1])
            expect("the same while opening", asked["n_int8_matrices"] == info["n_int8_matrices"], asked)
            one_error_line("another mix", run("info", out, "--weights", "int4", "--int8-layers", "mlp"), 1, "--int8-layers", "mlp")
        before = contents(out)
        one_error_line("OUT is there", run("convert", source, out), 1, out, "empty")
        expect("it is as it was", contents(out) == before)
        one_error_line("converted twice", run("convert", out, out + "2"), 1, weights)
        code, text, err = run("convert", source, out + "2", "-t", "3", "-v", f"--weights={weights}", *mix)
        expect("the same bytes", code == 0 and "converted" in err and contents(out + "2") == before, code, err)
        shutil.rmtree(out + "2")
        path = os.path.join(out, "model.safetensors")
        with open(path, "r+b") as f:
            f.seek(-5, os.SEEK_END)
            byte = f.read(1)
            f.seek(-5, os.SEEK_END)
            f.write(bytes([byte[0] ^ 1]))
        one_error_line("a damaged byte", run("info", out, "--verify"), 1, "checksum", "tensor")
        shutil.rmtree(out)
    calibrated(source, out, temporary)
    one_error_line("no such layer", run("convert", source, out, "--weights", "int4", "--int8-layers", "heads"), 1, "heads", "embedding")
    one_error_line("int8 all over", run("convert", source, out, "--int8-layers", "mlp"), 1, "--int8-layers", "--weights int4")
    one_error_line("nothing to verify", run("info", source, "--verify"), 1, "checksums")
    one_error_line("no such model", run("convert", "/nowhere/at-all", out), 1, "/nowhere/at-all")
    one_error_line("no room for OUT", run("convert", source, "/nowhere/at-all/out"), 1, "/nowhere/at-all/out.partial")
    expect("nothing is left", not os.path.exists(out) and not os.path.exists(out + ".partial"))

    large = os.path.join(temporary, "large")
    large_files(source, large, 300)
    code, text, err = run("convert", large, out, "--max-file-size", "5")
    names = sorted(name for name in os.listdir(out) if "safetensors" in name)
    expect("several files", code == 0 and "model.safetensors.index.json" in names and len(names) >= 3 and whole(out), names, err)
    shutil.rmtree(out)

    # A limit on files stands for a full disk.
    limited = subprocess.run([TOOL, "convert", large, out], capture_output=True, text=True, timeout=1200,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000)))
    one_error_line("a file too large", (limited.returncode, limited.stdout, limited.stderr), 1, "cannot write", "large")
    expect("nothing is left", not os.path.exists(out) and not os.path.exists(out + ".partial"))

    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, "convert", large, out], stderr=slave)
    os.close(slave)
    shown = b""
    while b"[=" not in shown:
        shown += os.read(master, 65536)
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
    while b"interrupted" not in shown and code == -signal.SIGINT and not os.path.exists(out):
        shown += os.read(master, 65536)
    os.close(master)
    expect("Ctrl-C", (code == -signal.SIGINT and (whole(out) if os.path.exists(out) else b"interrupted" in shown))
           or (code == 0 and whole(out)), code, shown)
    expect("nothing is left", not os.path.exists(out + ".partial"))
    shutil.rmtree(out, ignore_errors=True)

    begun = time.monotonic()
    run("convert", large, out)
    took = time.monotonic() - begun
    shutil.rmtree(out)
    cut = 0
    for i in range(24):
        process = subprocess.Popen([TOOL, "convert", large, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * 1.1 * i / 24)
        process.kill()
        process.wait()
        if os.path.exists(out):
            expect(f"killed at {i}: OUT is whole", whole(out))
            shutil.rmtree(out)
        elif os.path.exists(out + ".partial"):
            cut += 1
            opens = run("info", out + ".partial")[0] == 0
            expect(f"killed at {i}: what is left does not open", not opens or whole(out + ".partial"), os.listdir(out + ".partial"))
    expect("some were cut off", cut > 0)
    code, text, err = run("convert", large, out)
    expect("the next one clears it away", code == 0 and whole(out) and not os.path.exists(out + ".partial"), code, err)
    shutil.rmtree(out)


def warnings(folder, temporary):
    """What harms is told on stderr with the tool's names, and stdout stays as it is."""
    def png(name, color, depth, row):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        path = os.path.join(temporary, name)
        with open(path, "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, depth, color, 0, 0, 0))
                    + chunk(b"IDAT", zlib.compress((b"\0" + row) * 2)) + chunk(b"IEND", b""))
        return path

    clear, opaque = png("clear.png", 6, 8, b"\1\2\3\0\4\5\6\x80"), png("opaque.png", 6, 8, b"\1\2\3\xff" * 2)
    grey = png("grey.png", 0, 16, b"\1\0\0\5")
    for options in [(), ("--json",), ("--alpha=drop", "--json")]:
        code, out, err = run("run", folder, clear, "a", *options)
        expect("alpha is dropped", code == 0 and out and err.startswith(f"paligemma: warning: {clear}: transparent")
               and "--alpha white lays them over white" in err and err.count("\n") == 1, code, out, err)
        if "--json" in options:
            json.loads(out)
    for image, options in [(clear, ("--alpha", "white")), (opaque, ())]:
        code, out, err = run("run", folder, image, "a", *options)
        expect("alpha is no news", code == 0 and err == "", code, out, err)
    white = png("white.png", 2, 8, b"\xff\xff\xff" + bytes((v * 128 + 255 * 127 + 127) // 255 for v in (4, 5, 6)))

    def answer(image, *options):
        return json.loads(run("run", folder, image, "a", "--json", *options)[1])["ids"]
    for verb in ("detect", "segment", "score", "ask"):  # what the warning says to do can be done
        model, rest = os.path.join(SOURCE, "examples", "demo", "model"), {"score": ["a", "b"], "ask": []}.get(verb, ["red circle"])
        said = run(verb, model, clear, *rest, stdin=b"caption en\n")
        code, out, err = run(verb, model, clear, *rest, "--alpha", "white", stdin=b"caption en\n")
        expect(f"{verb} --alpha white", said[0] == 0 and "--alpha white" in said[2] and code == 0 and err == ""
               and out == run(verb, model, white, *rest, stdin=b"caption en\n")[1].replace(white, clear), said, code, out, err)
    expect("over white", answer(clear, "--alpha", "white") == answer(white), answer(clear, "--alpha", "white"), answer(white))
    code, out, err = run("run", folder, grey, "a", "--json")
    expect("16-bit grey", code == 0 and json.loads(out) and err.startswith("paligemma: warning: ") and "become white" in err, err)
    changed = os.path.join(temporary, "unfollowed")
    shutil.copytree(folder, changed)
    with open(os.path.join(changed, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": 1, "guidance_scale": 7}, f)
    for arguments in [("run", changed, opaque, "a"), ("info", changed), ("bench", changed, "--no-roofs", "--rounds", "1")]:
        code, out, err = run(*arguments)
        expect(f"a setting that is not followed: {arguments[0]}", code == 0 and "paligemma: warning: " in err
               and "guidance_scale" in err, code, err)
    shutil.rmtree(changed)


def names_of_c():
    """Each name of C in a message of the library has the tool's in its place."""
    with open(os.path.join(SOURCE, "examples", "tool", "text.c")) as f:
        table = dict(re.findall(r'^    \{"([^"]+)", "([^"]+)"\},$', f.read(), re.MULTILINE))
    names = messages.names(SOURCE)
    expect("names are found", len(names) > 20, names)
    expect("the tool's table has all names of C", names <= set(table), sorted(names - set(table)))
    for name, word in table.items():
        expect(f"the tool's word for {name}", not messages.of_c(word) and len(word) <= 4 * len(name), word)


def pages():
    def text(*path):
        with open(os.path.join(SOURCE, *path)) as f:
            return f.read()

    manual = text("docs", "paligemma.1").replace("\\-", "-")
    example = re.sub(r"\A/\*[^\n]*SPDX[^\n]*\n", "", text("examples", "caption.c"))  # a page need not show the license's line
    expect("the README's example is caption.c", f"```c\n{example}```" in text("README.md"))
    expect("caption.c is short", example.count("\n") < 30, example.count("\n"))
    sections = dict(re.findall(r"^\.SS (\w+)\n(.*?)(?=^\.S[SH] )", manual, re.DOTALL | re.MULTILINE))
    for verb in re.findall(r"^  paligemma (\w+)", run("--help")[1], re.MULTILINE):
        for option in re.findall(r"^ .*?(--[a-z0-9-]{2,})", run(verb, "--help")[1], re.MULTILINE):
            expect(f"the manual page has {verb}'s {option}", option in sections[verb])


def main():
    signals.restore()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in ["official", "colpali", "today"]:
            folder = os.path.join(temporary, kind)
            subprocess.run([MAKE_TINY, folder, kind], check=True)
            for name in ["image.png", "image.jpg"]:
                answers(folder, os.path.join(folder, name))
        image = os.path.join(folder, "image.png")
        two_folders(folder, image, temporary)
        steering_text(folder, image, temporary)
        bench(folder)
        in_memory(folder, image)
        locales(folder, image, temporary)
        pipes(folder, image, temporary)
        conversions(folder, temporary)
        usage(folder, image)
        errors(folder, image, temporary)
        terminal(folder, image)
        closed_files(folder, image, temporary)
        stacks_of_threads(folder, image)
        detections(temporary)
        segment()
        scores(temporary)
        adapters(temporary)
        warnings(folder, temporary)
    names_of_c()
    pages()
    print(f"{tool_checks.failures} failed")
    return 1 if tool_checks.failures else 0


sys.exit(main())
