from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from trainer.errors import ModelFileError
from trainer.families.base import PROMPT, Reading, TextPart
from trainer.families.text import ClipTokenizer, clip_core, encode_texts, find_clip_tokenizer, hidden_states, match_clip_names

PLAIN = TextPart("text_encoder", "lora_te", "")
CAPTIONS = ["", "a cat", "ünïcödé 猫, tag", "word " * 100, "A  Cat\n"]


def encoder(layers: int = 3):
    """A CLIP text encoder; fewer layers are the first ones of more."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(3)
    whole = CLIPTextModel(CLIPTextConfig(**tiny.TINY_TEXT)).eval()
    part = CLIPTextModel(CLIPTextConfig(**{**tiny.TINY_TEXT, "num_hidden_layers": layers})).eval()
    part.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name in part.state_dict()})
    return part


class Wrapped(torch.nn.Module):
    """The layout of transformers 4: the network sits one level deeper."""

    def __init__(self, core: torch.nn.Module):
        super().__init__()
        self.text_model = core

    def forward(self, **inputs):
        return self.text_model(**inputs)


def batch(tokenizer: ClipTokenizer, captions: list[str], pad: int | None = None) -> torch.Tensor:
    return torch.tensor([tokenizer.row(tokenizer.chunks(caption)[0], pad) for caption in captions])


def states(network, ids: torch.Tensor, clip_skip: int, part: TextPart = PLAIN) -> torch.Tensor:
    return hidden_states(network, part, ids, torch.ones(len(ids), dtype=torch.long), clip_skip)[0]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> ClipTokenizer:
    folder = tiny.write_tokenizer(tmp_path_factory.mktemp("model") / "tokenizer")
    return find_clip_tokenizer(None, folder.parent, 77)


def test_ids_and_padding_are_those_of_transformers(tokenizer):
    expected = tokenizer.library(CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")["input_ids"]
    found = batch(tokenizer, CAPTIONS)
    assert found.shape == (len(CAPTIONS), 77)
    assert torch.equal(found, expected)


def test_the_limit_counts_tokens_without_marks(tokenizer):
    assert tokenizer.limit == 75
    assert len(tokenizer.ids("word " * 100)) == 400  # the toy tokenizer spells letter by letter
    assert tokenizer.ids("") == []
    begin, end = tokenizer.library.bos_token_id, tokenizer.library.eos_token_id
    full = batch(tokenizer, ["word " * 100])[0].tolist()
    assert full[0] == begin and full[-1] == end and end not in full[:-1]


def test_the_tokenizer_named_in_the_settings_wins(tmp_path):
    beside = tiny.write_tokenizer(tmp_path / "tokenizer")
    own = tiny.write_tokenizer(tmp_path / "own", size=700)
    assert find_clip_tokenizer(None, tmp_path, 77).library.eos_token_id == 599
    assert find_clip_tokenizer(None, tmp_path / "model.safetensors", 77).library.eos_token_id == 599
    assert find_clip_tokenizer(str(own), tmp_path, 77).library.eos_token_id == 699
    (own / "merges.txt").unlink()
    with pytest.raises(ModelFileError, match=r"base\.tokenizer .*own: neither vocab\.json with merges\.txt nor tokenizer\.json is there"):
        find_clip_tokenizer(str(own), beside.parent, 77)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_drops_the_last_layers_and_keeps_the_final_norm(tokenizer, clip_skip):
    """A network that never had the last layers gives the same states."""
    ids = batch(tokenizer, CAPTIONS)
    with torch.no_grad():
        found = states(encoder(), ids, clip_skip)
        expected = encoder(layers=4 - clip_skip)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_clip_skip_equals_the_hidden_states_of_transformers(tokenizer):
    ids, network = batch(tokenizer, CAPTIONS), encoder()
    with torch.no_grad():
        output = network(input_ids=ids, output_hidden_states=True)
        norm = clip_core(network).final_layer_norm
        assert torch.equal(states(network, ids, 1), output.last_hidden_state)
        assert torch.equal(states(network, ids, 2), norm(output.hidden_states[-2]))
        bare = TextPart("text_encoder", "lora_te", "", skipped=1, normed=False)
        assert torch.equal(states(network, ids, 1, bare), output.hidden_states[-2])


@pytest.mark.parametrize("own", ["", "text_model."])
@pytest.mark.parametrize("stored", ["", "text_model."])
def test_names_match_across_library_versions(own, stored):
    network = encoder()
    bare = [name.removeprefix("text_model.") for name in network.state_dict()]
    core = getattr(network, "text_model", network)
    module = Wrapped(core) if own else core
    assert clip_core(module) is core
    found = match_clip_names([stored + name for name in bare] + ["logit_scale"], module)
    assert found == {stored + name: own + name for name in bare}


def test_hidden_states_and_keys_do_not_depend_on_the_layout(tokenizer):
    from trainer.families.sd import _text_targets

    core = clip_core(encoder())
    ids = batch(tokenizer, CAPTIONS)
    with torch.no_grad():
        for clip_skip in (1, 2):
            assert torch.equal(states(Wrapped(core), ids, clip_skip), states(core, ids, clip_skip))
    keys = [target.key for target in _text_targets(PLAIN, core)]
    assert keys == [target.key for target in _text_targets(PLAIN, Wrapped(core))]
    assert len(keys) == 18 and keys[0].startswith("lora_te_text_model_encoder_layers_0_")


def test_the_pooled_vector_is_the_projected_first_end_mark(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(4)
    network = CLIPTextModelWithProjection(CLIPTextConfig(**tiny.TINY_TEXT)).eval()
    part = TextPart("text_encoder_2", "lora_te2", "", pad=0, skipped=1, normed=False, pooled=True)
    texts = [tokenizer.chunks(caption) for caption in CAPTIONS]
    with torch.no_grad():
        found = encode_texts(network, part, tokenizer, texts, 1)
        expected = network(input_ids=batch(tokenizer, CAPTIONS, pad=0), output_hidden_states=True)
    torch.testing.assert_close(torch.cat([pooled for _, pooled in found]), expected.text_embeds)
    torch.testing.assert_close(torch.cat([state for state, _ in found]), expected.hidden_states[-2])


def test_the_pooled_vector_of_a_text_is_of_its_own_first_chunk(tokenizer):
    """Also where the texts of a batch have several chunks, and not as many."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(4)
    network = CLIPTextModelWithProjection(CLIPTextConfig(**tiny.TINY_TEXT)).eval()
    part = TextPart("text_encoder_2", "lora_te2", "", pad=0, skipped=1, normed=False, pooled=True)
    reader = dataclasses.replace(tokenizer, reading=Reading(chunks=3))
    captions = ["a cat", "word " * 50, "a red dog " * 20]
    texts = [reader.chunks(caption) for caption in captions]
    assert len({len(chunks) for chunks in texts}) > 1
    ids = torch.tensor([reader.row(chunks[0], 0) for chunks in texts])
    with torch.no_grad():
        found = encode_texts(network, part, reader, texts, 1)
        expected = network(input_ids=ids).text_embeds
    torch.testing.assert_close(torch.cat([pooled for _, pooled in found]), expected)


def test_behind_the_end_mark_the_family_s_own_padding_follows(tokenizer):
    begin, end = tokenizer.library.bos_token_id, tokenizer.library.eos_token_id
    ids = tokenizer.ids("a cat")
    assert batch(tokenizer, ["a cat"], pad=0)[0].tolist() == [begin, *ids, end] + [0] * (75 - len(ids))
    assert batch(tokenizer, ["a cat"])[0].tolist() == [begin, *ids] + [end] * (76 - len(ids))


def test_long_texts_are_read_in_chunks_up_to_the_limit(tokenizer):
    """Each chunk is encoded on its own, with its own marks, and joined along the sequence."""
    ids = tokenizer.ids("word " * 50)
    assert len(ids) == 200
    two, all_of_it = (dataclasses.replace(tokenizer, reading=Reading(chunks=chunks)) for chunks in (2, None))
    assert (two.limit, tokenizer.limit) == (150, 75)
    assert [[token for token, _ in chunk] for chunk in two.chunks("word " * 50)] == [ids[:75], ids[75:150]]
    assert [len(chunk) for chunk in all_of_it.chunks("word " * 50)] == [75, 75, 50]
    assert two.chunks("") == [[]]
    network = encoder()
    with torch.no_grad():
        ((found, _),) = encode_texts(network, PLAIN, two, [two.chunks("word " * 50)], 1)
        begin, end = tokenizer.library.bos_token_id, tokenizer.library.eos_token_id
        rows = torch.tensor([[begin, *ids[:75], end], [begin, *ids[75:150], end]])
        torch.testing.assert_close(found, network(input_ids=rows).last_hidden_state.flatten(0, 1)[None])


def test_a_short_weighted_piece_is_not_cut_by_the_end_of_a_chunk(tokenizer):
    """As in ComfyUI: fewer than eight tokens move to the next chunk together."""
    reader = dataclasses.replace(tokenizer, reading=PROMPT)
    first, second = reader.chunks("x" * 73 + " (abcd:1.3)")
    assert len(first) == 73 and [weight for _, weight in second] == [1.3] * 4
    first, second = reader.chunks("x" * 73 + " (abcdefgh:1.3)")
    assert len(first) == 75 and len(second) == 6


def test_weights_move_states_away_from_those_of_the_empty_text(tokenizer):
    reader, network = dataclasses.replace(tokenizer, reading=Reading(weighted=True)), encoder()
    with torch.no_grad():
        ((found, _),) = encode_texts(network, PLAIN, reader, [reader.chunks("a (red:1.5) cat")], 1)
        plain, empty = (network(input_ids=batch(tokenizer, [text])).last_hidden_state for text in ("a red cat", ""))
    ids = tokenizer.ids("a red cat")
    heavy = slice(2, 2 + len(tokenizer.ids("red")))
    assert len(ids) > 3
    expected = plain.clone()
    expected[:, heavy] = empty[:, heavy] + 1.5 * (plain[:, heavy] - empty[:, heavy])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert tokenizer.ids("(red)") != reader.ids("(red)") == tokenizer.ids("red")
