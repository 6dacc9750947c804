"""Prompt files: one id for one content, errors that tell the way out, and nothing that runs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.prompting import PACK, PROMPT, built_in_source, named

from quickcomm.intelligence.model.prompt_file import (
    MAX_SOURCE,
    MAX_SYSTEM,
    ExampleParameters,
    ModelParameters,
    PromptFile,
    content_id,
    parse_prompt,
    render,
)
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.site_pack import BUILT_IN, PACK_FILE, load_pack

PACKS = sorted(path.parent.name for path in BUILT_IN.glob(f"*/{PACK_FILE}"))


def id_of(source: str) -> str:
    return content_id(parse_prompt(source, PACK))


def test_comments_spaces_order_and_spelt_out_defaults_are_no_content() -> None:
    other = (
        "# mine\nname   = 'plain'\n"
        'system = "Label what is said at $site. Intents:\\n$intents\\nDepartments:\\n$departments"\n'
        "context = 3\nformat = 1\n[model]\ntemperature = 0.0\n"
    )
    assert id_of(other) == id_of(PROMPT)
    assert len(id_of(PROMPT)) == 12


@pytest.mark.parametrize(
    "more",
    [
        "context = 1",
        "note = 'n'",
        "[model]\nmax_tokens = 300",
        "[model]\ntemperature = 0.2",
        "[examples]\ncount = 2",
        "[answer]\nsummary = false",
    ],
)
def test_everything_else_makes_another_version(more: str) -> None:
    assert id_of(PROMPT + more) != id_of(PROMPT)


@given(
    st.builds(
        PromptFile,
        format=st.just(1),
        name=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        system=st.text(min_size=1, max_size=20),
        context=st.integers(0, 10),
        model=st.builds(ModelParameters, temperature=st.floats(0, 2), max_tokens=st.integers(50, 4000)),
        examples=st.builds(ExampleParameters, count=st.integers(0, 16)),
    ),
    st.builds(PromptFile, format=st.just(1), name=st.just("x"), system=st.text(min_size=1, max_size=3)),
)
def test_equal_content_has_equal_ids_and_other_content_others(one: PromptFile, other: PromptFile) -> None:
    assert (content_id(one) == content_id(other)) == (one == other)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (named("x", system="$intents and $colour"), r"no \$colour; known are \$site"),
        (named("x", system="that is 5 $ a head"), r"write \$\$"),
        (named("x", system="  "), "empty"),
        (named("x", system="$intents" * 20), f"at most {MAX_SYSTEM:,}"),
        (PROMPT + "colour = 1", "unknown field `colour`"),
        (PROMPT + "[model]\ntemperature = 3.0", "model.temperature"),
        (PROMPT.replace("format = 1", "format = 2"), "format"),
        (PROMPT.replace('"plain"', '"../x"'), "name"),
        ("format = ", "mine.toml"),
        ("#" * (MAX_SOURCE + 1), f"at most {MAX_SOURCE:,} bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_name_and_the_reason(source: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        parse_prompt(source, PACK, "mine.toml")
    assert str(refused.value).startswith("mine.toml: ")


def test_a_template_names_values_and_runs_nothing() -> None:
    text = render(parse_prompt(named("x", system="$$5 {intents.__class__} ${site}"), PACK), PACK)
    assert text == f"$5 {{intents.__class__}} {PACK.title}"


@pytest.mark.parametrize("name", PACKS)
def test_the_built_in_prompt_tells_all_that_the_pack_has(name: str) -> None:
    pack = load_pack(name)
    text = render(parse_prompt(built_in_source(pack), pack), pack)
    for known in (*pack.intents, *pack.departments, pack.places.pattern, "critical", pack.unclear):
        assert known in text
    assert "$" not in text.replace(pack.places.pattern, "")
    assert len(text) / 4 < 1_100  # about so many tokens, with room for examples


def test_a_pack_may_bring_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / PACK_FILE).write_bytes((BUILT_IN / "callcentre" / PACK_FILE).read_bytes())
    (folder / "prompt.toml").write_text(PROMPT)
    assert built_in_source(load_pack(folder)) == PROMPT
