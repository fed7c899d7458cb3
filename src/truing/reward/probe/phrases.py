"""Phrases that a text may hold, as patterns over lower case with straight apostrophes; written for English."""

import re

LIST_LINE = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|[-*•–])[ \t]+", re.MULTILINE)

HEDGE = re.compile(
    r"\b(?:perhaps|maybe|possibly|probably|presumably|apparently|might|could be|it (?:may|seems?|appears?|depends)|seems? to|tends? to"
    r"|i (?:think|guess|believe|suppose)|i(?:'m| am) not (?:entirely |quite |really )?(?:sure|certain)|not (?:entirely )?certain"
    r"|i may be (?:wrong|mistaken)|as far as i (?:know|can tell)|more or less|in a way|sort of|kind of)\b"
)
CERTAIN = re.compile(
    r"\b(?:certainly|definitely|undoubtedly|obviously|clearly|absolutely|surely|of course|no doubt|without (?:a|any) doubt|beyond (?:any |all )?doubt"
    r"|for certain|for a fact|there(?:'s| is) no question|i(?:'m| am) (?:completely |quite |absolutely )?certain|always|never|guaranteed?|take it from me)\b"
)
REFUSAL = re.compile(
    r"\bi(?:'m| am) (?:really |so |very )?sorry,? (?:but|i can)"
    r"|\bi (?:can(?:'t|not)|can not|won't|will not|must decline|am (?:not able|unable)|(?:have|need) to decline|would rather not)\b"
    r"|\bsorry,? i can(?:'t|not)\b|\bi(?:'m| am) (?:not able|unable|not comfortable)\b"
)
FLATTERY = re.compile(
    r"\b(?:(?:what|that(?:'s| is)|this is|such) an? (?:truly |really |very |most )?"
    r"(?:great|good|excellent|wonderful|fantastic|brilliant|thoughtful|smart|clever|insightful|splendid|marvellous|fascinating|lovely)"
    r" (?:question|thought|idea|request|point|thing to ask|topic)"
    r"|you(?:'re| are) (?:clearly |obviously |really |so |very )*(?:smart|clever|brilliant|wise|insightful|thoughtful|bright)"
    r"|your (?:taste|insight|judgement|judgment|instinct)s? (?:is|are) (?:superb|excellent|impeccable|remarkable|spot on))"
)
FORMULA = re.compile(
    r"\b(?:i hope (?:this|that|it) helps|feel free|(?:don't|do not) hesitate|let me know|if you have (?:any )?(?:other |further |more )?questions"
    r"|any (?:other |further |more )questions|(?:i(?:'d| would) be|i(?:'m| am)) (?:happy|glad|pleased|delighted) to help|here to help"
    r"|thank(?:s| you) for (?:asking|reaching|your question)|good luck with)\b"
    r"|^(?:sure|certainly|of course|absolutely|gladly|with pleasure)\s*[!,.]",
    re.MULTILINE,
)
AS_MODEL = re.compile(
    r"\bas an? (?:[\w-]+ )?(?:ai|assistant|language model|chatbot)\b"
    r"|\b(?:i'm|i am) (?:just |only )?an? (?:ai|assistant|chatbot|language model|computer program)\b"
)
NEGATION = re.compile(r"\b(?:not|no|never|none|nothing|nobody|cannot|neither|nor)\b|n't\b")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
MARKS = re.compile(r"\*\*|__|`|^#{1,6} |^>{1,3} ", re.MULTILINE)
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]")
FIRST = frozenset(["i", "me", "my", "mine", "i'm", "i've", "i'd", "i'll", "we", "us", "our", "we're"])
SECOND = frozenset(["you", "your", "yours", "you're", "you've", "you'd", "you'll"])
EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        """about after again also another because been before being could does doing down each else ever every from give goes going have here into
        just know like make many might more most much must need only other over please really same shall should some such sure take tell than that
        their them then there these they thing things this those through under until very want were what when where which while will with without
        would write your yours""",
    )
)
"""Long enough to carry meaning, and carrying none."""
