"""Words as the simulated people see them: how a text falls into words and stems, and the phrases they have read too often."""

import re
from collections.abc import Sequence
from functools import lru_cache


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, apostrophes kept."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower().replace("’", "'"))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word without its commonest endings, so that "baking", "bakes" and "baked" are one: crude, short, and the same every time."""
    word = word.removesuffix("'s").removesuffix("'")
    for ending, rest in (("ies", "y"), ("ied", "y"), ("ing", ""), ("edly", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: len(word) - len(ending)] + rest
            if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def content_stems(words: Sequence[str]) -> list[str]:
    """The stems of the words that carry meaning, repeats kept."""
    return [stem(word) for word in words if word not in STOP and len(word) > 1]


def trigrams(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every three words in a row."""
    return [tuple(words[i : i + 3]) for i in range(len(words) - 2)]


GREETINGS = frozenset(words_of("hi hello hey dear greetings thank thanks welcome bye goodbye cheers regards sincerely yours sorry pleased"))
STOP = frozenset(
    words_of("""
    a about after again all also am an and any are aren't as at be because been before being both but by can can't could couldn't did didn't do does
    doesn't doing don't down during each else even ever every few for from get gets getting go goes going gone got had has have having he her here
    hers him his how i i'd i'll i'm i've if in into is isn't it it's its itself just let let's like lot many may me might more most much must my
    myself need never no nor not now of off often on once only or other our out over own perhaps quite really same shall she should so some someone
    something still such sure than that that's the their them then there there's these they thing things think this those though through to too
    under until up upon us use using very want was wasn't way ways we we'd we'll we're we've well were what what's when where whether which while
    who whose why will wish with without won't would wouldn't yes yet you you'd you'll you're you've your yours
    """)
)
ASKING = frozenset(
    words_of("""
    advice advise answer best better brief briefly compose depict describe draft explain five four give good help idea ideas invent kind know line
    made make makes name offer one outline paint please propose reply respond say send sentence short simple six sketch suggest talk tell ten text
    three two word words write
    """)
)
"""Words of a request that a good answer need not take up."""

STOCK = re.compile(
    r"\b(?:"
    r"i hope (?:this|that|it) (?:helps|finds you)|feel free|(?:don't|do not) hesitate|let me know if|any (?:other |further |more )?questions"
    r"|(?:i'm|i am|we're|we are) here to (?:help|assist|support)|(?:happy|glad|pleased|delighted|thrilled|excited|ready) to (?:help|assist|support|provide)"
    r"|how (?:can|may) i (?:help|assist)|(?:can|could) i help you|i(?:'d love to| can) help|what can i do for you|designed to (?:help|assist)"
    r"|help you (?:with that|out)|tell me (?:more|what)|more (?:information|details|context)|come to the right place|thank you for (?:reaching|asking|sharing)"
    r"|what(?:'s| is) (?:your|the) question|(?:great|good|excellent|wonderful|fantastic|interesting) question"
    r"|i(?:'m| am) glad you(?:'re| are)? (?:asked|interested)"
    r"|(?:that's|what|this is) an? (?:truly )?(?:great|wonderful|fantastic|beautiful|delightful|lovely|interesting|thoughtful|amazing|exciting|classic)"
    r" (?:question|challenge|request|idea|topic|prompt|start)|have a (?:great|nice|good|lovely|wonderful) (?:day|time)"
    r")\b|^(?:sure|certainly|absolutely)\b\s*[!,.]",
    re.IGNORECASE | re.MULTILINE,
)
"""Phrases that fill and say nothing."""

WRONG_PARTY = re.compile(
    r"\bas an? (?:[\w-]+ )?(?:ai|artificial|language model|assistant|chatbot)\b|\b(?:ai assistant|language model|chatbot|smol\w*|hugging face)\b"
    r"|\b(?:i'm|i am|am) (?:just |only )?an? (?:\w+ )?(?:ai|assistant|bot)\b|\bi (?:can't|cannot|can not) (?:assist|fulfil|fulfill|provide|comply)\b"
    r"|\[[^\]\n]{2,40}\]|<[a-z_ ]{2,30}>|^(?:user|assistant|human|system)\s*:|\b(?:best|kind|warm) regards\b|\bsincerely\b",
    re.IGNORECASE | re.MULTILINE,
)
"""A model that speaks of itself, a form left to be filled in, the signature of a letter nobody asked for."""

LIST_LINE = re.compile(r"^\s*(?:\d{1,2}[.):]|[-*•–]\s|step \d)|\*\*|^#+ |^[^\n.!?]{1,60}:\s*$", re.IGNORECASE | re.MULTILINE)
LIST_OPENING = re.compile(
    r"\b(?:here are|here're|the following|as follows|here(?:'s| is) (?:a|an|the|your|my|how|what|some)\b(?: [\w-]+){0,7}\s*:)|\s[12][.)]\s", re.IGNORECASE
)
