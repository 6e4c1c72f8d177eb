from __future__ import annotations

import copy

import pytest

from trainer.config import from_dict
from trainer.config.preset import FOLDER, LANGUAGES, expand, find_presets, lay_over, presets
from trainer.errors import ConfigError

PURPOSES = ("anime_character", "object", "realistic_person", "scene", "style")
MEMORY = ("vram_6", "vram_8", "vram_12", "vram_16", "vram_24")
FAMILIES = ("sd15", "sd2", "sdxl")
GOOD = {"base": {"checkpoint": "a.safetensors"}, "dataset": {"folders": [{"path": "pictures"}]}}
pairs = pytest.mark.parametrize(("name", "family"), [(name, family) for name in (*PURPOSES, *MEMORY) for family in FAMILIES])


def sized(value):
    """A size may be written as one number."""
    return (value, value) if isinstance(value, int) else value


def field_of(config, setting: str):
    *sections, name = setting.split(".")
    for section in sections:
        config = getattr(config, section)
    return getattr(config, name)


def every_entry():
    return [
        pytest.param(entry, id=f"{name}:{part}:{entry.setting}")
        for name, preset in presets().items()
        for part, entries in {"all": preset.common, **preset.families}.items()
        for entry in entries
    ]


def test_there_is_a_preset_for_every_purpose_and_memory_size_in_order():
    assert tuple(presets()) == (*PURPOSES, *MEMORY)
    assert len(list(FOLDER.glob("*.yaml"))) == len(presets())
    assert all(set(preset.families) == set(FAMILIES) for preset in presets().values())


@pytest.mark.parametrize("preset", presets().values(), ids=presets())
def test_titles_and_descriptions_are_in_both_languages(preset):
    for text in (preset.title, preset.description):
        assert tuple(text) == LANGUAGES and all(words.strip() for words in text.values())


@pytest.mark.parametrize("entry", every_entry())
def test_every_setting_says_why_in_both_languages(entry):
    assert tuple(entry.why) == LANGUAGES
    assert len(entry.why["en"].split()) >= 4 and entry.why["en"].endswith(".")
    assert len(entry.why["zh"]) >= 6 and entry.why["zh"].endswith("。")


@pytest.mark.parametrize("entry", every_entry())
def test_a_value_that_is_the_default_is_marked_and_no_other(entry):
    plain, changed = from_dict(GOOD), from_dict(lay_over(GOOD, entry.as_dict()))
    assert (plain == changed) == entry.same_as_default


@pytest.mark.parametrize("entry", every_entry())
def test_no_preset_names_a_file_or_a_run(entry):
    assert not entry.setting.startswith(("base.checkpoint", "base.vae", "base.tokenizer", "base.family", "dataset.folders", "save.dir"))
    assert entry.setting not in ("save.name", "save.run_dir", "save.comment", "train.seed", "train.device", "train.steps")


@pairs
def test_every_preset_gives_a_valid_configuration_for_every_family(name, family):
    config = from_dict(GOOD, [name], lambda _: family)
    (preset,) = find_presets([name])
    assert config.from_presets == (name,)
    assert preset.entries(family)
    for entry in preset.entries(family):
        assert field_of(config, entry.setting) in (entry.value, sized(entry.value))


@pairs
def test_a_familys_part_stands_over_the_common_one(name, family):
    (preset,) = find_presets([name])
    found = {entry.setting: entry for entry in preset.entries(family)}
    assert len(found) == len(preset.entries(family))
    for entry in preset.families[family]:
        assert found[entry.setting] is entry
    assert {entry.setting for entry in preset.common} <= set(found)
    assert preset.entries("a later family") == preset.entries(None) == preset.common


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("family", FAMILIES)
def test_presets_combine_and_the_later_one_wins(purpose, memory, family):
    config = from_dict(GOOD, [purpose, memory], lambda _: family)
    wanted = {entry.setting: entry for name in (purpose, memory) for entry in find_presets([name])[0].entries(family)}
    assert len(wanted) >= 3
    for setting, entry in wanted.items():
        assert field_of(config, setting) in (entry.value, sized(entry.value)), setting


def test_the_order_of_presets_counts():
    def resolution(*names):
        return from_dict(GOOD, names, lambda _: "sdxl").dataset.resolution

    assert resolution("anime_character", "vram_6") == (768, 768)
    assert resolution("vram_6", "anime_character") == (1024, 1024)


def test_the_users_own_values_win_and_the_rest_of_the_section_stays():
    values = {**GOOD, "presets": ["anime_character"], "dataset": {**GOOD["dataset"], "captions": {"keep_tokens": 3}}}
    config = from_dict(values, family_of=lambda _: "sd15")
    assert (config.dataset.captions.keep_tokens, config.dataset.captions.shuffle) == (3, True)
    assert config.dataset.folders[0].path == "pictures"


def test_an_explicit_default_of_the_user_wins_too():
    config = from_dict({**GOOD, "base": {"checkpoint": "a", "clip_skip": 1}}, ["anime_character"], lambda _: "sd15")
    assert config.base.clip_skip == 1


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, (3e-4, 1e-4)),
        ({"lr": 5e-5}, (5e-5, None)),
        ({"text_encoder_lr": 2e-5}, (3e-4, 2e-5)),
        ({"lr": 5e-5, "text_encoder_lr": 2e-5}, (5e-5, 2e-5)),
        ({"text_encoder_lr": None}, (3e-4, None)),
    ],
)
def test_a_general_rate_of_the_user_is_not_undone_by_a_special_one_of_the_preset(section, expected):
    config = from_dict({**GOOD, "optimizer": section}, ["anime_character"], lambda _: "sd15")
    assert (config.optimizer.lr, config.optimizer.text_encoder_lr) == expected


def test_a_rank_of_the_user_does_not_keep_the_alpha_of_the_preset():
    config = from_dict({**GOOD, "method": {"rank": 4}}, ["anime_character"], lambda _: "sd15")
    assert (config.method.rank, config.method.alpha) == (4, 8.0)


@pytest.mark.parametrize("listed", [["style", "vram_8"], "style"])
def test_the_list_in_the_file_comes_before_the_names_of_the_caller(listed):
    config = from_dict({**GOOD, "presets": listed}, ["vram_12"], lambda _: "sd15")
    names = [listed] if isinstance(listed, str) else listed
    assert config.from_presets == (*names, "vram_12")
    assert config.dataset.batch_size == 4


def test_expanding_changes_nothing_that_it_was_given_and_without_presets_nothing_at_all():
    values = {**copy.deepcopy(GOOD), "presets": ["style"]}
    before = copy.deepcopy(values)
    expand(values, ["vram_8"], lambda _: "sdxl")
    assert values == before
    assert expand(GOOD) == GOOD
    assert expand({**GOOD, "presets": None}) == GOOD
    assert from_dict(GOOD).from_presets == ()


def test_a_resolved_configuration_does_not_apply_its_presets_again():
    resolved = from_dict({**GOOD, "base": {"checkpoint": "a", "clip_skip": 1}}, ["anime_character"], lambda _: "sd15")
    for full in (True, False):
        assert from_dict(resolved.as_dict(full=full)) == resolved


def test_presets_over_a_resolved_configuration_are_recorded_behind_its_own():
    resolved = from_dict(GOOD, ["anime_character"], lambda _: "sd15")
    again = from_dict(resolved.as_dict(full=False), ["vram_8", "anime_character"], lambda _: "sd15")
    assert again.from_presets == ("anime_character", "vram_8")
    assert again.optimizer.kind == "adamw8bit"


def test_the_family_is_asked_for_only_when_a_preset_needs_it():
    def never(_):
        raise AssertionError

    assert from_dict(GOOD, [], never).from_presets == ()
    with pytest.raises(AssertionError):
        from_dict(GOOD, ["style"], never)


def test_without_a_header_to_read_the_family_must_be_named():
    with pytest.raises(ConfigError, match=r"base\.family: presets have a part per model family; name it here"):
        from_dict(GOOD, ["style"])
    named = {**GOOD, "base": {"checkpoint": "a", "family": "sdxl"}}
    assert from_dict(named, ["style"]).dataset.resolution == (1024, 1024)


def test_unknown_presets_are_all_named_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        from_dict({**GOOD, "presets": ["anime_charakter", 3]}, ["zzz"], lambda _: "sd15")
    known = ", ".join(presets())
    assert caught.value.problems == [
        "presets: 'anime_charakter' is unknown; did you mean 'anime_character'?",
        f"presets: 3 is unknown; known: {known}",
        f"presets: 'zzz' is unknown; known: {known}",
    ]
