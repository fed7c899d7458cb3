"""Passwords: kept as argon2id hashes, refused where a guesser would come to them soon.

No list of leaked passwords stands here. What people choose too often is made of few pieces (words, names, years, runs of the
alphabet, rows of the keyboard, one piece said twice); a password that is hardly anything else is refused.
"""

import re
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from truing.studio.refusals import Refusal

SHORTEST = 8  # characters
LONGEST = 1000
LETTERS_OF_ITS_OWN = 4  # characters that belong to no common piece; a password has at least so many
HASHES_AT_ONCE = 2  # each takes 64 MiB for a twentieth of a second
PLACES_IN_LINE = 20  # who is hashed or waits for it; others are asked to come back, so that they don't hold up the pages
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # of generated passwords: 32 signs that nobody takes for one another

WORDS = frozenset(
    re.findall(
        r"\w+",
        """
access account admin administrator alpha amazing andrew angel animal annotator apple asdf august autumn awesome banana baseball basketball batman
beautiful beer blink bond boss buster butter buttercup butterfly champion change changeme charlie cheese chelsea chicken chocolate coffee computer cookie
correct daniel dallas december default demo diamond doctor donald dragon enter falcon family february ferrari flower football freedom friday friend gandalf
garfield geheim george ginger google guest hallo hammer hannah happy harley heaven hello hockey holiday hunter iceman internet isabella jackson january jasmine
jennifer jessica jesus johnny jordan joshua july june justin kennwort killer king kitten knight letmein liebe linux liverpool london login love loveme
lovely lucky madrid magic manager maggie march marina martin master matrix matthew maverick merlin michael michelle mickey monday monkey morgan mother
mustang naruto nicole ninja november october orange owner paris parola pass passwd password passwort patrick peanut pepper phoenix pokemon porsche princess
private purple qazwsx qwer rainbow ranger richard robert root saturday scooter secret senha september server shadow simple smile snoopy soccer spider spring
staff starwars steelers strong studio student summer sunday sunflower sunshine superman superstar sweet system target teacher temp tennis test tester thomas
thursday tigger tiger trustno truing tuesday user victoria vampire wednesday welcome whatever william willkommen winter wizard wonderful work world yankees
yellow you your yours iloveyou mypassword nopassword thepassword
""",
    )
)
ROWS = (
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "qsdfghjklm",
    "zxcvbnm",
    "yxcvbnm",
    "1234567890",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
)
LONGEST_ROW = max(map(len, ROWS))
ALIKE = str.maketrans("013457@$!|€", "oieastasile")  # digits and signs that people write for letters


class Passwords:
    """Makes and checks hashes, a few at a time, so that many who sign in at once don't take all the memory.

    Args:
        hasher: argon2id with its parameters; default the library's (RFC 9106's second recommendation: 3 passes over 64 MiB).
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = threading.BoundedSemaphore(HASHES_AT_ONCE)
        self._line = threading.BoundedSemaphore(PLACES_IN_LINE)
        self._nobodys = self._hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """The argon2id hash of a password.

        Raises:
            Refusal: too many wait for one already.
        """
        with self._turn():
            return self._hasher.hash(normal(password))

    def fits(self, stored: str | None, password: str) -> bool:
        """Whether this is the password of the stored hash. Takes as long where nobody has a password as where somebody does.

        Raises:
            Refusal: too many wait for one already.
        """
        if len(password) > LONGEST:
            return False
        with self._turn():
            try:
                return self._hasher.verify(stored or self._nobodys, normal(password)) and stored is not None
            except (VerifyMismatchError, InvalidHashError):
                return False

    def outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than a new one would be."""
        return self._hasher.check_needs_rehash(stored)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._line.acquire(blocking=False):
            raise Refusal(503, "many people are signing in at this moment", fix="try again in a few seconds", retry_after=3)
        try:
            with self._turns:
                yield
        finally:
            self._line.release()


def normal(password: str) -> str:
    """The one spelling of what two keyboards may send in two (Unicode NFKC)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, name: str) -> None:
    """Let a new password pass, or say why not.

    Args:
        password: as it was typed.
        name: of the person; no part of it makes a password better.

    Raises:
        Refusal: it is too short, too long, or too easily guessed.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise Refusal(
            400,
            f"a password has {SHORTEST} to {LONGEST:,} characters; this one has {len(password):,}",
            fix="choose another, for example four words that don't belong together",
        )
    if common(password, name):
        raise Refusal(400, "this password is among the first that a guesser tries", fix="choose another, for example four words that don't belong together")


def common(password: str, name: str) -> bool:
    """Whether hardly anything is left of a password without the words, names, years, runs and rows that everybody uses."""
    low = normal(password).casefold()
    if low in (low + low)[1:-1]:  # one piece said twice or more
        return True
    names = [part for part in re.split(r"\W+", normal(name).casefold()) if len(part) >= 3]
    return any(_own(core, names) < LETTERS_OF_ITS_OWN for core in {_core(low), _core(low).translate(ALIKE), low.translate(ALIKE)})


def _core(low: str) -> str:
    """A password without the digits and signs that it begins and ends with, which people add to please a rule."""
    return re.sub(r"^[\W\d_]+|[\W\d_]+$", "", low)


def _own(text: str, names: list[str]) -> int:
    """How many characters belong to no common piece, taking the longest piece wherever one begins."""
    own = at = 0
    while at < len(text):
        piece = _piece(text, at, names)
        own += not piece and text[at].isalnum()
        at += piece or 1
    return own


def _piece(text: str, at: int, names: list[str]) -> int:
    """Length of the longest common piece that begins here; 0 if none does."""
    words = max((len(word) for word in (*WORDS, *names) if text.startswith(word, at)), default=0)
    year = 4 if re.compile(r"(19|20)\d\d").match(text, at) else 0
    return max(words, year, _run(text, at), _row(text, at))


def _run(text: str, at: int) -> int:
    """Length of `aaa`, `abc` or `cba`, from three characters."""
    longest = 0
    for step in (-1, 0, 1):
        end = at + 1
        while end < len(text) and ord(text[end]) - ord(text[end - 1]) == step:
            end += 1
        longest = max(longest, end - at)
    return longest if longest >= 3 else 0


def _row(text: str, at: int) -> int:
    """Length of what runs along a row or column of the keyboard, either way, from three keys."""
    for end in range(min(len(text), at + LONGEST_ROW), at + 2, -1):
        if any(text[at:end] in row for row in (*ROWS, *(row[::-1] for row in ROWS))):
            return end - at
    return 0


def generated() -> str:
    """A new password of 80 random bits in four groups, to be read from a terminal once and typed."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(4)) for _ in range(4))
