"""Trees, written as YAML and read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litepilot import document

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
leaves = st.one_of(
    texts,
    st.sampled_from(
        ["${X}", "$${X}", "$$${", "null", "true", "1", "# no comment", "a: b", "- a", "\u2028"]
    ),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
keys = st.one_of(texts, st.sampled_from(["null", "10.0.0.1", "a", "a:b", "node-1"]))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


@given(st.dictionaries(keys, values, max_size=5))
def test_what_is_written_is_read_again(tree):
    assert document.read(document.write(tree)) == tree


def test_mappings_are_blocks_and_the_rest_is_json():
    tree = {"proxy": {"listen": ":8080", "rules": ["static"]}, "app": {"command": []}, "node": "1"}
    assert document.write(tree) == (
        'proxy:\n  listen: ":8080"\n  rules: ["static"]\napp:\n  command: []\nnode: "1"\n'
    )


@pytest.mark.parametrize("text", ["a", "a: b", "a: 'b'", "- a", "a: [1", "\ta: 1", "a: {b: 1}"])
def test_other_yaml_is_refused_with_its_line(text):
    with pytest.raises(document.DocumentError, match="line 2"):
        document.read(f"# a comment\n{text}\n")
