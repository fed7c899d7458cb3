"""Markdown from outside becomes HTML that can do nothing but be read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.studio.render import LONGEST_MARKDOWN, TAGS, asset, markdown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("two *words*", "<p>two <em>words</em></p>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("1 < 2 & 3", "<p>1 &lt; 2 &amp; 3</p>"),
        ("~~old~~", "<p><s>old</s></p>"),
        ("<b>bold</b>", "<p>&lt;b&gt;bold&lt;/b&gt;</p>"),
        ("[a](https://b.c)", '<p><a href="https://b.c" target="_blank" rel="noopener noreferrer nofollow">a</a></p>'),
        ("```\nx = 1\n```", "<pre><code>x = 1\n</code></pre>"),
        ("```python\nx\n```", '<pre><code class="language-python"><span class="n">x</span>\n</code></pre>'),
        ("```nobody-speaks-this\nx\n```", '<pre><code class="language-nobody-speaks-this">x\n</code></pre>'),
    ],
)
def test_markdown_by_hand(written: str, shown: str) -> None:
    assert markdown(written).strip() == shown


@pytest.mark.parametrize("address", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "java\tscript:alert(1)"])
def test_a_link_that_runs_something_is_no_link(address: str) -> None:
    assert "href" not in markdown(f"[a]({address})").replace("&quot;", "")


def test_a_picture_is_told_in_words_and_never_fetched() -> None:
    shown = markdown('![a cat](https://elsewhere.example/cat.png "<i>")')
    assert "<img" not in shown
    assert "picture: a cat (https://elsewhere.example/cat.png)" in shown


def test_a_text_of_great_length_stays_as_it_was_written() -> None:
    assert markdown("*" * (LONGEST_MARKDOWN + 1)) == f'<p class="plain">{"*" * (LONGEST_MARKDOWN + 1)}</p>'


@given(st.text(alphabet=st.sampled_from("<>&\"'`*_[]()!#-=:/ \nabjsonerrx1"), max_size=60))
def test_no_text_makes_a_tag_or_an_attribute_that_is_not_listed(text: str) -> None:
    for tag, attributes in re.findall(r"<(\w+)((?:\s[^<>]*)?)>", str(markdown(text))):
        assert tag in TAGS
        assert set(re.findall(r"([\w-]+)=", re.sub(r'"[^"]*"', "", attributes))) <= {"href", "target", "rel", "class", "start", "tabindex"}


def test_the_address_of_a_file_tells_its_content() -> None:
    assert re.fullmatch(r"/static/tokens\.css\?v=[0-9a-f]{12}", asset("tokens.css"))
    with pytest.raises(FileNotFoundError):
        asset("nothing.css")
