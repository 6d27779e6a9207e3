# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Which tokens see which, where the caller leaves that open: no token_type_ids. Both generations beside transformers,
whose answer depends on its attention kernel and on the whole batch."""
import pytest

from conftest import ROOT

torch = pytest.importorskip("torch", reason="torch is not installed")

MODELS = ROOT / "tests" / "golden" / "models"
KINDS = [("gemma1", None), ("gemma1", "sdpa"), ("gemma1", "eager"), ("gemma2", None), ("gemma2", "eager")]
NEW = 6


class Pair:
    """One checkpoint with one kind of attention, opened by both."""

    def __init__(self, hf, name, attention):
        import paligemma

        settings = {"attn_implementation": attention} if attention else {}
        self.ours = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(str(MODELS / name), **settings)
        self.processor = paligemma.AutoProcessor.from_pretrained(str(MODELS / name))
        self.theirs = hf.PaliGemmaForConditionalGeneration.from_pretrained(
            str(MODELS / name), dtype=torch.float32, **settings).eval()

    def close(self, what, **inputs):
        """Logits of forward() on the tokens that the mask shows."""
        mask = inputs.get("attention_mask")
        with torch.no_grad():
            theirs = self.theirs(**inputs).logits
        ours = self.ours(**inputs).logits
        seen = torch.ones(ours.shape[:2], dtype=torch.bool) if mask is None else mask == 1
        distance = ((ours[seen] - theirs[seen]).norm() / theirs[seen].norm()).item()
        assert distance < 1e-4, f"{what}: {distance:.1e}"

    def same_ids(self, what, **inputs):
        """generate(), and for one row the streamed ids and the streamed text."""
        theirs = self.theirs.generate(**inputs, max_new_tokens=NEW, do_sample=False)
        assert torch.equal(self.ours.generate(**inputs, max_new_tokens=NEW), theirs), what
        if len(theirs) > 1:
            return
        heard = Heard()
        self.ours.generate(**inputs, max_new_tokens=NEW, streamer=heard)
        assert heard.ids == theirs[0].tolist(), what
        new = theirs[0, inputs["input_ids"].shape[1]:]
        text = self.processor.decode(new, skip_special_tokens=True)
        assert "".join(self.ours.stream(inputs, self.processor, max_new_tokens=NEW)) == text, what


class Heard:
    def __init__(self):
        self.ids = []

    def put(self, ids):
        self.ids += ids.reshape(-1).tolist()

    def end(self):
        pass


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}", scope="module")
def pair(request, hf):
    return Pair(hf, *request.param)


def rows(n, length, seed=1):
    return torch.randint(5, 100, (n, length), generator=torch.Generator().manual_seed(seed))


def masks(ids):
    """Not given; all ones; and where there are rows enough, one row padded on the left."""
    ones = torch.ones_like(ids)
    padded = ones.clone()
    padded[0, :3] = 0
    return {"no mask": {}, "ones": {"attention_mask": ones}, "padded": {"attention_mask": padded}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [1, 3])
def test_no_token_types(pair, n):
    ids = rows(n, 9, seed=n)
    for what, mask in masks(ids).items():
        pair.close(what, input_ids=ids, **mask)
        pair.same_ids(what, input_ids=ids, **mask)
        for value in (0, 1):
            types = {"token_type_ids": torch.full_like(ids, value)}
            pair.close(f"{what}, types {value}", input_ids=ids, **mask, **types)
            pair.same_ids(f"{what}, types {value}", input_ids=ids, **mask, **types)


def test_the_combinations_differ(pair):
    """Else the tests above could not fail: types of 0 and of 1 are another computation, and so is a padded row."""
    ids = rows(2, 9)
    by_type = [pair.ours(input_ids=ids, token_type_ids=torch.full_like(ids, value)).logits for value in (0, 1)]
    assert (by_type[0] - by_type[1]).norm() > 0.1 * by_type[0].norm()
    sees_all = pair.theirs.config.text_config._attn_implementation == "sdpa"
    assert torch.equal(pair.ours(input_ids=ids).logits, by_type[0 if sees_all else 1])
    padded = masks(ids)["padded"]
    assert torch.equal(pair.ours(input_ids=ids, **padded).logits[1], by_type[1][1])


def test_images_and_embeddings_without_types(pair):
    import numpy as np

    image = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    inputs = dict(pair.processor(image, "caption en", return_tensors="pt"))
    arrays = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    pair.close("with an image", **arrays)
    pair.same_ids("with an image", **arrays)
    with torch.no_grad():
        theirs = pair.theirs(**arrays, output_hidden_states=True).hidden_states[-1]
    ours = pair.ours.embed(**arrays).last_hidden_state
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    with pair.ours.encode_image(arrays["pixel_values"]) as features:
        again = pair.ours.embed(input_ids=inputs["input_ids"], features=features).last_hidden_state
    assert (again - theirs).norm() < 1e-4 * theirs.norm()
    if pair.theirs.config.image_token_id >= pair.theirs.config.text_config.vocab_size:
        return  # no embedding says where an image is
    del arrays["input_ids"]
    with torch.no_grad():
        embeds = pair.theirs.get_input_embeddings()(inputs["input_ids"])
    pair.close("from embeddings", inputs_embeds=embeds, **arrays)


def test_a_copy_keeps_the_kind_of_attention(pair):
    import copy

    ids = rows(1, 9)
    twin = copy.copy(pair.ours)
    assert torch.equal(twin(input_ids=ids).logits, pair.ours(input_ids=ids).logits)


@pytest.mark.parametrize("cap", [2.0, 0.02])
def test_gemma_1_with_a_cap_on_its_logits(hf, tmp_path, cap):
    import json
    import shutil

    shutil.copytree(MODELS / "gemma1", tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["final_logit_softcapping"] = cap
    (tmp_path / "config.json").write_text(json.dumps(config))
    capped, ids = Pair(hf, tmp_path, None), rows(2, 9)
    labels = {"labels": ids, "token_type_ids": torch.ones_like(ids)}
    with torch.no_grad():
        theirs = capped.theirs(input_ids=ids, **labels)
    ours = capped.ours(input_ids=ids, **labels)
    assert ours.logits.abs().max() <= cap and theirs.logits.abs().max() <= cap
    assert abs(ours.loss - theirs.loss) < 1e-5 * theirs.loss
    capped.close("capped", input_ids=ids)
    if cap > 1:  # the other makes ties of the best logits
        capped.same_ids("capped", input_ids=ids)


PACKED = {"again from 1": [1, 2, 3, 4, 1, 2, 3, 1, 2], "a gap": [1, 2, 3, 10, 11, 12, 13, 14, 15],
          "all alike": [4] * 9, "backwards": list(range(9, 0, -1)), "one text": list(range(5, 14))}


@pytest.mark.parametrize("name", PACKED)
def test_positions_that_pack_texts(hf, pair, name):
    within_5_24 = tuple(map(int, hf.__version__.split(".")[:2])) >= (5, 24)  # there, type 0 keeps within its text, too
    ids = rows(2, 9)
    positions = torch.tensor([PACKED[name], list(range(1, 10))])
    suffix = (torch.arange(9) >= 5).long().repeat(2, 1)
    for what, types in {"no types": {}, "types 0": {"token_type_ids": 0 * ids}, "types 1": {"token_type_ids": ids ** 0},
                        "a suffix": {"token_type_ids": suffix}}.items():
        given = dict(input_ids=ids, position_ids=positions, **types)
        if not (within_5_24 and what in ("types 0", "a suffix")):
            pair.close(f"{what}, packed", **given)
        pair.close(f"{what}, a mask", attention_mask=torch.ones_like(ids), **given)


def test_packed_texts_do_not_see_each_other(pair):
    ids, types = rows(1, 9), torch.ones(1, 9, dtype=torch.long)
    positions = torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4, 5]])
    packed = pair.ours(input_ids=ids, position_ids=positions, token_type_ids=types).logits
    alone = pair.ours(input_ids=ids[:, 4:], token_type_ids=types[:, 4:]).logits
    assert (packed[:, 4:] - alone).norm() < 1e-5 * alone.norm()


HOLES = {"one": [1, 1, 1, 0, 0, 0, 1, 1, 1, 1], "two": [1, 0, 1, 1, 0, 0, 1, 1, 0, 1],
         "and padding": [0, 0, 1, 1, 0, 1, 1, 0, 1, 0], "a single token": [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOLES)
def test_a_hole_in_the_mask(pair, name):
    ids, mask = rows(2, 10), torch.tensor([HOLES[name], [1] * 10])
    suffix = (torch.arange(10) >= 6).long().repeat(2, 1)
    window = pair.ours.config.text_config.get("sliding_window")
    for what, types in {"no types": {}, "types 0": {"token_type_ids": 0 * ids}, "types 1": {"token_type_ids": ids ** 0},
                        "a suffix": {"token_type_ids": suffix}}.items():
        given = dict(input_ids=ids, attention_mask=mask, **types)
        pair.close(what, **given)
        pair.close(f"{what}, own positions", position_ids=mask.cumsum(1), **given)
        if mask[0, -1] == 0:
            continue  # transformers' generate() goes on after the padding, ours after the last token
        new = NEW if not window else window + 1 - ids.shape[1]
        theirs = pair.theirs.generate(**given, max_new_tokens=new, do_sample=False)
        assert torch.equal(pair.ours.generate(**given, max_new_tokens=new), theirs), what
        shown = mask[0] == 1
        dropped = {key: value[:1, shown] for key, value in given.items()}
        if what == "no types" and pair.theirs.config.text_config._attn_implementation == "sdpa":
            dropped["token_type_ids"] = torch.ones_like(dropped["input_ids"])  # without a padded row all see all
        alone = pair.ours.generate(**dropped, max_new_tokens=new)[0, int(shown.sum()):].tolist()
        assert theirs[0, 10:10 + len(alone)].tolist() == alone, what


def test_a_camera_that_is_off(pair):
    import numpy as np

    images = list(np.random.default_rng(3).integers(0, 256, (2, 20, 30, 3), np.uint8))
    inputs = dict(pair.processor([images], ["caption en"], return_tensors="pt"))
    n = inputs["input_ids"].eq(pair.processor.image_token_id).sum().item() // 2
    del inputs["labels"]
    inputs["attention_mask"][:, n:2 * n] = 0
    pair.close("forward", **inputs)
    kept = torch.tensor([*range(n), *range(2 * n, inputs["input_ids"].shape[1])])
    without = {key: value[:, kept] if value.ndim == 2 else value[:1] for key, value in inputs.items()}
    zero = pair.ours.embed(**inputs).last_hidden_state[:, n:2 * n]
    assert not zero.any() and n > 0
    window = pair.ours.config.text_config.get("sliding_window")
    if window and inputs["input_ids"].shape[1] + NEW > window:
        with pytest.raises(NotImplementedError, match="sliding window"):
            pair.ours.generate(**inputs, max_new_tokens=NEW)
        return
    theirs = pair.theirs.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(pair.ours.generate(**inputs, max_new_tokens=NEW), theirs)
    assert torch.equal(pair.ours.generate(**without, max_new_tokens=NEW)[:, len(kept):],
                       theirs[:, inputs["input_ids"].shape[1]:])
