# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Our model beside transformers' own in f32: generated ids are equal, the stages of a forward pass are close.

How close: 1e-4 of the largest value of a tensor; tests/oracle derives bounds stage by stage, this suite looks for wrong
wiring, which is orders of magnitude outside."""
import json

import pytest

Image = pytest.importorskip("PIL.Image", reason="PIL is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

P, Q, R = "caption en", "detect red circle ; yellow triangle", "answer en what color is the star?"


@pytest.fixture(scope="module")
def image(image_path):
    return Image.open(image_path)


def close(ours, theirs, what):
    assert type(ours) is type(theirs) and ours.shape == theirs.shape and ours.dtype == theirs.dtype, what
    bound = 1e-4 * theirs.detach().abs().max()
    assert (ours - theirs.detach()).abs().max() <= bound, f"{what}: {(ours - theirs).abs().max()} > {bound}"


def test_the_snippet_of_the_reference_page(folder, image, hf, capsys):
    def snippet(PaliGemmaForConditionalGeneration, AutoProcessor):
        model_id, raw_image = folder, image
        model = PaliGemmaForConditionalGeneration.from_pretrained(model_id)
        processor = AutoProcessor.from_pretrained(model_id)
        prompt = "What is on the flower?"
        inputs = processor(raw_image, prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=20)
        print(processor.decode(output[0], skip_special_tokens=True)[len(prompt):])
        inputs = processor(images=raw_image, text=prompt, suffix="a bee", return_tensors="pt")
        return output, inputs, capsys.readouterr().out

    import paligemma

    output, inputs, printed = snippet(paligemma.PaliGemmaForConditionalGeneration, paligemma.AutoProcessor)
    their_output, their_inputs, theirs_printed = snippet(hf.PaliGemmaForConditionalGeneration, hf.AutoProcessor)
    assert printed == theirs_printed and len(printed) > 10
    assert torch.equal(output, their_output)
    for key in their_inputs:
        assert torch.equal(inputs[key], their_inputs[key]), key


def batch(processor, image, side="left", **more):
    return processor([image] * 3, [P, Q, R], padding=True, padding_side=side, return_tensors="pt", **more)


def test_generate_batch(model, hf_model, processor, image):
    inputs = batch(processor, image)
    assert torch.equal(model.generate(**inputs, max_new_tokens=24), hf_model.generate(**inputs, max_new_tokens=24))
    rows = model.generate(**batch(processor, image, "right"), max_new_tokens=24)
    width = inputs.input_ids.shape[1]
    # transformers goes on after the padding and warns; here each row is what it is alone
    assert torch.equal(rows[:, width:], model.generate(**inputs, max_new_tokens=24)[:, width:])


@pytest.mark.filterwarnings("ignore")
def test_lengths(model, hf_model, processor, image):
    inputs = processor(image, Q, return_tensors="pt")
    for settings in ({}, dict(max_new_tokens=1), dict(max_length=80),
                     dict(max_new_tokens=30, do_sample=False, num_beams=1),
                     dict(max_new_tokens=5, max_length=70), dict(max_new_tokens=40, pad_token_id=7)):
        assert torch.equal(model.generate(**inputs, **settings), hf_model.generate(**inputs, **settings)), settings
    for settings in (dict(max_length=20), dict(max_new_tokens=0), dict(max_new_tokens=2, bogus=1)):
        for either in (model, hf_model):
            with pytest.raises(ValueError):
                either.generate(**inputs, **settings)


def test_generate_after_a_suffix_and_without_masks(model, hf_model, processor, image):
    inputs = processor(image, P, suffix="a red", suffix_open=True, return_tensors="pt")
    assert torch.equal(model.generate(**inputs, max_new_tokens=20), hf_model.generate(**inputs, max_new_tokens=20))
    inputs = dict(batch(processor, image))
    del inputs["attention_mask"], inputs["token_type_ids"], inputs["labels"]
    assert torch.equal(model.generate(**inputs, max_new_tokens=12), hf_model.generate(**inputs, max_new_tokens=12))


def test_generate_from_embeddings(model, hf_model, processor, image):
    inputs = processor(image, P, return_tensors="pt")
    embeds = hf_model.get_input_embeddings()(inputs.input_ids)
    features = hf_model.get_image_features(inputs.pixel_values).pooler_output
    embeds[inputs.input_ids == processor.image_token_id] = features
    ours = model.generate(inputs_embeds=embeds, token_type_ids=inputs.token_type_ids, max_new_tokens=15)
    theirs = hf_model.generate(**inputs, max_new_tokens=15)  # its generate() takes no embeddings for this class
    assert torch.equal(ours, theirs[:, inputs.input_ids.shape[1]:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_forward(model, hf_model, processor, image, side):
    inputs = batch(processor, image, side, suffix=["a red circle", "none", "blue"])
    with torch.no_grad():
        theirs = hf_model(**inputs, output_hidden_states=True)
    ours = model(**inputs, output_hidden_states=True, output_last_hidden_state=True)
    seen = inputs.attention_mask == 1
    close(ours.loss, theirs.loss, "loss")
    close(ours.logits[seen], theirs.logits[seen], "logits")
    close(ours.image_hidden_states, theirs.image_hidden_states, "image_hidden_states")
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    for i, (a, b) in enumerate(zip(ours.hidden_states, theirs.hidden_states)):
        close(a[seen], b[seen], f"hidden_states[{i}]")
    close(ours.last_hidden_state[seen], theirs.hidden_states[-1][seen], "last_hidden_state")
    embedded = model.embed(**inputs)
    close(embedded.last_hidden_state[seen], theirs.hidden_states[-1][seen], "embed")
    names = {"image_outputs": "image_hidden_states"}  # of transformers 5.24
    assert [names.get(k, k) for k in theirs.keys() if k not in ("past_key_values", "cache")] == \
        [k for k in ours.keys() if k != "last_hidden_state"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_attentions(model, hf_model, processor, image, side):
    inputs = batch(processor, image, side, suffix=["a red circle", "none", "blue"])
    kind = hf_model.config._attn_implementation
    hf_model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            theirs = hf_model(**inputs, output_attentions=True)
    finally:
        hf_model.set_attn_implementation(kind)
    ours = model(**inputs, output_attentions=True)
    seen = inputs.attention_mask == 1
    assert list(ours.keys()).index("attentions") == list(ours.keys()).index("logits") + 1
    assert len(ours.attentions) == len(theirs.attentions)
    for i, (a, b) in enumerate(zip(ours.attentions, theirs.attentions)):
        assert a.shape == b.shape
        close(a.transpose(1, 2)[seen], b.transpose(1, 2)[seen], f"attentions[{i}]")
    whole = torch.stack(theirs.attentions).mean(2)  # [L, B, T, T]
    is_image = inputs.input_ids == processor.image_token_id
    n = int(is_image.sum(1).max())
    for layer, right in [(None, whole.mean(0)), (0, whole[0]), (1, whole[1])]:
        found = model.attention_to_image(**inputs, n_queries=3, layer=layer)
        assert found.shape == (len(seen), 3, n)
        for row, tokens in enumerate(seen[:, -3:]):
            if not tokens.any():  # padded on the right
                continue
            close(found[row][tokens], right[row][-3:][tokens][:, is_image[row]], f"layer {layer}")
    for wrong in (dict(n_queries=-1), dict(n_queries=10**6), dict(layer=99), dict(layer=-1)):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is"):
            model.attention_to_image(**inputs, **wrong)


def test_forward_options(model, hf_model, processor, image):
    inputs = dict(batch(processor, image))
    del inputs["labels"]
    with torch.no_grad():
        for keep in (1, 3, torch.tensor([0, 70, 71])):
            close(model(**inputs, logits_to_keep=keep).logits, hf_model(**inputs, logits_to_keep=keep).logits, keep)
        padded = {key: value for key, value in inputs.items() if key != "token_type_ids"}
        seen = inputs["attention_mask"] == 1
        close(model(**padded).logits[seen], hf_model(**padded).logits[seen], "padding without token types")
        single = dict(processor(image, P, suffix="a bee", return_tensors="pt"))
        del single["labels"]
        close(model(**single).logits, hf_model(**single).logits, "token types")
        del single["token_type_ids"]
        close(model(**single).logits, hf_model(**single).logits, "no token types")
        close(model(single["input_ids"], single["pixel_values"]).logits,
              hf_model(single["input_ids"], single["pixel_values"]).logits, "positional")
        ours, theirs = model(**single, return_dict=False), hf_model(**single, return_dict=False)
        assert isinstance(ours, tuple)
        close(ours[0], theirs[0], "tuple")
        embeds = hf_model.get_input_embeddings()(single["input_ids"])
        close(model(inputs_embeds=embeds, pixel_values=single["pixel_values"]).logits,
              hf_model(inputs_embeds=embeds, pixel_values=single["pixel_values"]).logits, "inputs_embeds")
        close(model.get_image_features(single["pixel_values"]).pooler_output,
              hf_model.get_image_features(single["pixel_values"]).pooler_output, "get_image_features")


def test_labels_of_nothing_give_nan(model, hf_model, processor, image):
    inputs = processor(image, P, return_tensors="pt")  # labels are all -100, as transformers' processor gives them
    assert torch.isnan(model(**inputs).loss) and torch.isnan(hf_model(**inputs).loss)


def test_config(model, hf_model):
    ours, theirs = model.config, hf_model.config
    assert ours.image_token_id == theirs.image_token_id
    for part in ("text_config", "vision_config"):
        mine = getattr(ours, part).to_dict()
        for key, value in getattr(theirs, part).to_dict().items():
            if key in mine and key not in ("dtype", "_name_or_path"):
                assert mine[key] == json.loads(json.dumps(value)), f"{part}.{key}"
        assert {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"} <= set(mine)
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        assert getattr(model.generation_config, name) == getattr(hf_model.generation_config, name)
    assert model.num_parameters() == hf_model.num_parameters()
    assert model.device == hf_model.device and model.dtype == hf_model.dtype


def test_both_refuse(model, hf_model, processor, image):
    inputs = dict(processor(image, P, suffix="a bee", return_tensors="pt"))
    ids = inputs["input_ids"]
    for name, arguments in {
        "no ids": {},
        "ids and embeddings": dict(input_ids=ids, inputs_embeds=torch.zeros(1, ids.shape[1], 160)),
        "image tokens without their image's number": {**inputs, "input_ids": ids.where(ids != ids[0, 0], 300)},
        "labels of the wrong shape": {**inputs, "labels": inputs["labels"][:, 1:]},
    }.items():
        for either in (model, hf_model):
            with pytest.raises(ValueError):
                either(**arguments)
                pytest.fail(f"{name}: accepted")


def test_streamer(model, hf, hf_model, processor, hf_processor, image, capsys):
    for settings in (dict(), dict(skip_prompt=True, skip_special_tokens=True)):
        printed = []
        for one, made_by in ((model, processor), (hf_model, hf_processor)):
            inputs = made_by(image, P, return_tensors="pt")
            one.generate(**inputs, max_new_tokens=20, streamer=hf.TextStreamer(made_by.tokenizer, **settings))
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] and "purple star" in printed[0]


def test_the_usual_ways_to_prepare_inputs(model, processor, image):
    """As model cards write it."""
    inputs = processor(text=P, images=image, return_tensors="pt").to(torch.bfloat16).to(model.device)
    assert inputs["pixel_values"].dtype == torch.bfloat16 and inputs["input_ids"].dtype == torch.int64
    with torch.inference_mode():
        generation = model.generate(**inputs, max_new_tokens=100, do_sample=False)
    text = processor.decode(generation[0][inputs["input_ids"].shape[-1]:], skip_special_tokens=True)
    assert text == "a red circle, a purple star and a yellow triangle"
    with pytest.raises(ValueError):
        inputs.to([1])


def test_further_eos_ids(model, hf_model, processor, image):
    """By keyword, on a generation_config and on the model's own: the rows end where transformers ends them."""
    import copy

    rows = batch(processor, image)
    whole = model.generate(**rows, max_new_tokens=24)
    further = [1, int(whole[0, rows.input_ids.shape[1] + 3])]
    theirs = hf_model.generate(**rows, max_new_tokens=24, eos_token_id=further, do_sample=False)
    assert not torch.equal(theirs, whole)
    assert torch.equal(model.generate(**rows, max_new_tokens=24, eos_token_id=further), theirs)
    other = copy.copy(model)
    other.generation_config = copy.copy(model.generation_config)
    other.generation_config.eos_token_id = further
    assert torch.equal(other.generate(**rows, max_new_tokens=24), theirs)
    other.close()


def test_small_names_as_there(model, hf_model, processor, hf_processor, image):
    assert model.main_input_name == hf_model.main_input_name and model.can_generate() == hf_model.can_generate()
    assert model.half() is model.bfloat16() is model.float() is model
    with pytest.raises(ValueError, match="CPU"):
        model.cuda()
    assert processor.chat_template is hf_processor.chat_template is None
    for each in (processor, hf_processor):
        with pytest.raises(ValueError, match="does not have a chat template"):
            each.apply_chat_template([{"role": "user", "content": "x"}])
    for ids in ([382, 358], torch.tensor([382, 358]), [[382], [358]]):
        assert processor.batch_decode(ids) == hf_processor.batch_decode(ids)
    output = model(**processor(image, P, return_tensors="pt"))
    assert output.image_outputs.pooler_output is output.image_hidden_states and output.cache is None
