# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""ColPali in both packages, on random checkpoints of tests/oracle: processors, embeddings, scores."""
import sys

import numpy as np
import pytest

import paligemma
from conftest import ROOT

torch = pytest.importorskip("torch", reason="torch is not installed")

QUERIES = ["where is it", "", "Who wrote this, and why?  ", "é 中 <loc0001>"]


@pytest.fixture(params=[1, 3], scope="module")
def pair(request, hf, tmp_path_factory):
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    sys.path.insert(0, str(ROOT / "tests" / "oracle"))
    import checkpoints
    import colpali_live
    from transformers.models.colpali import ColPaliForRetrieval, ColPaliProcessor

    folder = str(tmp_path_factory.mktemp("colpali"))
    spec = dict(checkpoints.draw(100 + request.param), files="5.23")
    model, sentencepiece_model, tokenizer = colpali_live.random_model(spec, 16)
    colpali_live.write_folder(folder, model, colpali_live.LAYOUTS[request.param], torch.float32)
    checkpoints.write_processor(folder, sentencepiece_model, tokenizer, spec)
    loaded = hf.AutoProcessor.from_pretrained(folder)
    theirs = ColPaliProcessor(loaded.image_processor, loaded.tokenizer,
                              **({"query_prefix": "Q: "} if request.param == 1 else {}))
    if request.param == 1:
        theirs.save_pretrained(folder)
    with paligemma.ColPaliForRetrieval.from_pretrained(folder) as ours, \
            paligemma.ColPaliProcessor.from_pretrained(folder) as processor:
        same_class = type(hf.AutoProcessor.from_pretrained(folder)).__name__
        assert type(paligemma.AutoProcessor.from_pretrained(folder)).__name__ == same_class
        yield ours, processor, model, theirs


def images(n=3):
    rng = np.random.default_rng(n)
    return [rng.integers(0, 256, (30 + 7 * i, 41, 3), np.uint8) for i in range(n)]


def same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name


@pytest.mark.filterwarnings("ignore")
def test_processors(pair):
    _, ours, _, theirs = pair
    same(ours.process_images(images()), theirs.process_images(images()))
    for text in (QUERIES, QUERIES[:1], QUERIES[2]):
        listed = [text] if isinstance(text, str) else text
        same(ours.process_queries(text), theirs.process_queries(listed))
    same(ours.process_queries(QUERIES, suffix=" ?"), theirs.process_queries(QUERIES, suffix=" ?"))
    assert ours.query_augmentation_token == theirs.query_augmentation_token
    for processor in (ours, theirs):
        with pytest.raises(ValueError, match="Only one of text or images"):
            processor(images=images(), text=QUERIES)
        with pytest.raises(ValueError):
            processor()


@pytest.mark.filterwarnings("ignore")
def test_embeddings_and_scores(pair):
    ours, our_processor, theirs, their_processor = pair
    from colpali_live import bounds

    pages, queries = our_processor.process_images(images()), our_processor.process_queries(QUERIES)
    found, wanted = [], []
    for batch in (pages, queries):
        mine = ours(**batch)
        with torch.inference_mode():
            right = theirs(**batch)
        assert isinstance(mine.embeddings, torch.Tensor) and mine.embeddings.shape == right.embeddings.shape
        arrays = {name: batch[name].numpy() for name in batch if name != "labels"}
        largest = bounds(theirs, arrays, right.embeddings.numpy())[1]  # tests/oracle/README.md
        torch.testing.assert_close(mine.embeddings, right.embeddings, rtol=0, atol=largest)
        assert (mine.image_hidden_states is None) == ("pixel_values" not in batch)  # transformers 5.24 has none
        found.append(mine.embeddings)
        wanted.append(right.embeddings)
    score = our_processor.score_retrieval(found[1], found[0])
    torch.testing.assert_close(score, their_processor.score_retrieval(found[1], found[0]), rtol=0, atol=1e-4)
    lists = [[row[:n] for n, row in zip((5, 3, 9, 2), e)] for e in (found[1], found[0])]
    torch.testing.assert_close(our_processor.score_retrieval(*lists, batch_size=2),
                               their_processor.score_retrieval(*lists, batch_size=2), rtol=0, atol=1e-4)
    for empty in (([], found[0]), (found[1], [])):
        for processor in (our_processor, their_processor):
            with pytest.raises(ValueError, match="No (queries|passages) provided"):
                processor.score_retrieval(*empty)


@pytest.mark.filterwarnings("ignore")
def test_what_else_it_gives(pair):
    ours, processor, theirs, _ = pair
    batch = processor.process_images(images(1), return_tensors="np")
    out = ours(**batch, output_hidden_states=True)
    assert isinstance(out.embeddings, np.ndarray) and out.embeddings.shape[-1] == ours.embedding_dim == 16
    np.testing.assert_allclose(np.linalg.norm(out.embeddings, axis=-1), 1, atol=1e-5)
    assert len(out.hidden_states) == ours.config.text_config.num_hidden_layers + 1
    features = ours.encode_image(**batch)
    again = ours(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                 token_type_ids=batch["token_type_ids"], features=features)
    assert np.array_equal(again.embeddings, ours(**batch).embeddings)
    assert isinstance(ours(**batch, return_dict=False), tuple)
    plain = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(ours.name_or_path)
    ids = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}
    assert plain.generate(**ids, max_new_tokens=3).shape[1] > batch["input_ids"].shape[1]
    assert plain.embed(**ids).last_hidden_state.shape[:2] == out.embeddings.shape[:2]


def test_a_paligemma_is_no_colpali(folder):
    with pytest.raises(ValueError, match="found no projection .* expected a ColPali checkpoint"):
        paligemma.ColPaliForRetrieval.from_pretrained(folder)
