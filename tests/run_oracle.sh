# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# The part of run.sh that compares with transformers (--oracle). It is read by run.sh, whose variables and steps it uses.
# shellcheck shell=sh disable=SC2154
oracle_packages="torch==2.13.0 transformers==5.23.0 peft==0.21.2 sentencepiece protobuf pillow safetensors numpy pytest"

title "the reference: virtual environment"
venv=${ORACLE_VENV:-$top/.venv}
if ! "$venv/bin/python" -c 'import torch, transformers, peft, sentencepiece, safetensors, PIL' >/dev/null 2>&1; then
    # shellcheck disable=SC2086
    step "virtual environment" "$python" -m venv "$venv" &&
        step "pip install $oracle_packages" "$venv/bin/python" -m pip install --quiet $oracle_packages
fi
"$venv/bin/python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' || {
    failed=$((failed + 1))
    end
}
title "the Python package beside transformers"
if "$venv/bin/python" -c 'import pytest' 2>/dev/null ||
    step "pytest" "$venv/bin/python" -m pip install --quiet --target "$builds/pytest" pytest; then
    # shellcheck disable=SC2046 # those that ran above without these packages need not run again
    python_suite "$venv/bin/python" "$builds/python-oracle.log" $(grep -lE 'torch|transformers|PIL|peft' python/tests/test_*.py)
    step "finetune.py: the loss of the library and of PEFT, on the same batches" env PALIGEMMA_LIBRARY="$builds/gcc/lib" \
        HF_HUB_OFFLINE=1 "$venv/bin/python" examples/finetune.py --compare --steps 8 --fresh 4
fi
# live TITLE SCRIPT OPTION...: a script of tests/oracle that ends with its counts, run by $reference
reference=$venv/bin/python
live() {
    title "$1"
    script=$2
    shift 2
    HF_HUB_OFFLINE=1 "$reference" "tests/oracle/$script" --build "$builds/gcc" "$@" 2>&1 | tee "$builds/live.log"
    add_counts "$builds/live.log" "$script"
}
seed=${ORACLE_SEED:+--seed $ORACLE_SEED}
# shellcheck disable=SC2086
live "live comparison with transformers: images and text" live.py --count "${ORACLE_CASES:-15}" $seed
# shellcheck disable=SC2086
live "live: image files, whole and damaged" images_live.py --count "${ORACLE_IMAGES:-3000}" $seed
# shellcheck disable=SC2086
live "live: frames of cameras, letterboxes" frames_live.py --count "${ORACLE_FRAMES:-500}" $seed
# shellcheck disable=SC2086
live "live: the processor's batches" processor_live.py --count "${ORACLE_BATCHES:-500}" $seed
# shellcheck disable=SC2086
if "$venv/bin/python" -c 'import supervision' 2>/dev/null ||
    "$venv/bin/python" -m pip install --quiet supervision; then
    live "live: answers, read by supervision too" answers_live.py --count "${ORACLE_ANSWERS:-5000}" $seed
else
    echo "skipped: answers read by supervision, which could not be installed"
fi
# shellcheck disable=SC2086
live "live: forward, batched generation, embeddings" forward_live.py --count "${ORACLE_FORWARD:-5}" $seed
# shellcheck disable=SC2086
live "live: image settings of the Python package" image_settings_live.py --count "${ORACLE_IMAGE_SETTINGS:-150}" $seed
# shellcheck disable=SC2086
live "live: the tokenizer of the Python package" tokenizer_live.py --calls "${ORACLE_TOKENIZER:-50}" $seed
# shellcheck disable=SC2086
live "live: JSON beside Python's json" json_live.py --count "${ORACLE_JSON:-1500}" $seed
live "live: generate() with its settings" generate_options.py
# shellcheck disable=SC2086
live "live: settings of sampling, stop strings" sampling_live.py --count "${ORACLE_SAMPLING:-300}" $seed
# shellcheck disable=SC2086
live "live: beam search" beams_live.py --count "${ORACLE_BEAMS:-100}" $seed
# shellcheck disable=SC2086
if "$venv/bin/python" -c 'import pycocotools' 2>/dev/null ||
    "$venv/bin/python" -m pip install --quiet pycocotools; then
    live "live: the mask decoder" masks_live.py --count "${ORACLE_MASKS:-250}" $seed
else
    echo "skipped: the mask decoder, whose run lengths are read by pycocotools, which could not be installed"
fi
# shellcheck disable=SC2086
live "live: scores of given answers" score_live.py --count "${ORACLE_SCORES:-12}" $seed
# shellcheck disable=SC2086
if "$venv/bin/python" -c 'import peft' 2>/dev/null ||
    "$venv/bin/python" -m pip install --quiet peft==0.21.2; then
    live "live: adapters, as PEFT adds them" adapters_live.py --count "${ORACLE_ADAPTERS:-6}" $seed
    # shellcheck disable=SC2086
    live "live: training, beside transformers and PEFT" train_live.py --count "${ORACLE_TRAINING:-4}" $seed
else
    echo "skipped: adapters and training, which are compared with PEFT, which could not be installed"
fi
# shellcheck disable=SC2086
live "live: embeddings of ColPali" colpali_live.py --count "${ORACLE_COLPALI:-6}" $seed
# shellcheck disable=SC2086
live "live: rows of more than 8,192 tokens" long_rows.py $seed
title "tokenizers of every kind against transformers"
step "fuzz_tokenizers.py" env HF_HUB_OFFLINE=1 "$venv/bin/python" tests/oracle/fuzz_tokenizers.py \
    "$builds/gcc/tests/oracle/tokenize_lines" --texts 2000
step "fuzz_tokenizers.py --sentencepiece" env HF_HUB_OFFLINE=1 "$venv/bin/python" tests/oracle/fuzz_tokenizers.py \
    "$builds/gcc/tests/oracle/tokenize_lines" --texts 1000 --sentencepiece
step "big_vision.py" env HF_HUB_OFFLINE=1 "$venv/bin/python" tests/oracle/big_vision.py "$builds/gcc" --count 60
if test -f examples/demo/model/model.safetensors; then
    live "the demo model on fresh images" demo.py
fi

# The same beside the next version of transformers, which takes all else from the first environment.
# ORACLE_VENV_2=FOLDER: an environment that is there.
next_version=5.24.0
second=${ORACLE_VENV_2:-$top/.venv-$next_version}
if ! "$second/bin/python" -c 'import torch, transformers' >/dev/null 2>&1; then
    "$venv/bin/python" -m venv "$second" &&
        "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
            >"$("$second/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth" &&
        "$second/bin/python" -m pip install --quiet --no-deps "transformers==$next_version"
fi
version=$("$second/bin/python" -c 'import transformers; print(transformers.__version__)' 2>/dev/null)
if test -n "${ORACLE_VENV_2:-}" || test "$version" = "$next_version"; then
    reference=$second/bin/python
    title "the Python package beside transformers $version"
    # shellcheck disable=SC2046 # the tests that read transformers
    python_suite "$reference" "$builds/python-oracle-2.log" $(grep -l transformers python/tests/test_*.py)
    # shellcheck disable=SC2086
    live "live: the processor's batches ($version)" processor_live.py --count "${ORACLE_BATCHES:-150}" $seed
    # shellcheck disable=SC2086
    live "live: forward, batched generation, embeddings ($version)" forward_live.py \
        --count "${ORACLE_FORWARD:-2}" $seed
    # shellcheck disable=SC2086
    live "live: settings of sampling, stop strings ($version)" sampling_live.py \
        --count "${ORACLE_SAMPLING:-100}" $seed
    # shellcheck disable=SC2086
    live "live: beam search ($version)" beams_live.py --count "${ORACLE_BEAMS:-50}" $seed
else
    echo "skipped: the comparison with transformers $next_version, which could not be installed"
fi
