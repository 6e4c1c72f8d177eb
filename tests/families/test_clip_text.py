from __future__ import annotations

import pytest
import tiny
import torch

from trainer.errors import ModelFileError
from trainer.families.text import ClipTokenizer, clip_core, clip_hidden_states, find_clip_tokenizer, match_clip_names

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


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> ClipTokenizer:
    folder = tiny.write_tokenizer(tmp_path_factory.mktemp("model") / "tokenizer")
    return find_clip_tokenizer(None, folder.parent, 77)


def test_ids_and_padding_are_those_of_transformers(tokenizer):
    expected = tokenizer.library(CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")["input_ids"]
    found = tokenizer.batch(CAPTIONS)
    assert found.shape == (len(CAPTIONS), 77)
    assert torch.equal(found, expected)


def test_the_limit_counts_tokens_without_marks(tokenizer):
    assert tokenizer.limit == 75
    assert len(tokenizer.ids("word " * 100)) == 400  # the toy tokenizer spells letter by letter
    assert tokenizer.ids("") == []
    begin, end = tokenizer.library.bos_token_id, tokenizer.library.eos_token_id
    full = tokenizer.batch(["word " * 100])[0].tolist()
    assert full[0] == begin and full[-1] == end and end not in full[:-1]


def test_the_tokenizer_named_in_the_settings_wins(tmp_path):
    beside = tiny.write_tokenizer(tmp_path / "tokenizer")
    own = tiny.write_tokenizer(tmp_path / "own", size=700)
    assert find_clip_tokenizer(None, tmp_path, 77).library.eos_token_id == 599
    assert find_clip_tokenizer(None, tmp_path / "model.safetensors", 77).library.eos_token_id == 599
    assert find_clip_tokenizer(str(own), tmp_path, 77).library.eos_token_id == 699
    (own / "merges.txt").unlink()
    with pytest.raises(ModelFileError, match=r"base\.tokenizer .*own: vocab\.json and merges\.txt are not both there"):
        find_clip_tokenizer(str(own), beside.parent, 77)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_drops_the_last_layers_and_keeps_the_final_norm(tokenizer, clip_skip):
    """A network that never had the last layers gives the same states."""
    ids = tokenizer.batch(CAPTIONS)
    with torch.no_grad():
        found = clip_hidden_states(encoder(), ids, clip_skip)
        expected = encoder(layers=4 - clip_skip)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_clip_skip_equals_the_hidden_states_of_transformers(tokenizer):
    ids, network = tokenizer.batch(CAPTIONS), encoder()
    with torch.no_grad():
        output = network(input_ids=ids, output_hidden_states=True)
        norm = clip_core(network).final_layer_norm
        assert torch.equal(clip_hidden_states(network, ids, 1), output.last_hidden_state)
        assert torch.equal(clip_hidden_states(network, ids, 2), norm(output.hidden_states[-2]))


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
    ids = tokenizer.batch(CAPTIONS)
    with torch.no_grad():
        for clip_skip in (1, 2):
            assert torch.equal(clip_hidden_states(Wrapped(core), ids, clip_skip), clip_hidden_states(core, ids, clip_skip))
    keys = [target.key for target in _text_targets(core)]
    assert keys == [target.key for target in _text_targets(Wrapped(core))]
    assert len(keys) == 18 and keys[0].startswith("lora_te_text_model_encoder_layers_0_")
