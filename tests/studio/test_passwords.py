"""Passwords: which are refused, how they are kept, and how many are hashed at once."""

import random
import string
import threading
import time

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from truing.studio.passwords import LONGEST, Passwords, check, common, generated
from truing.studio.refusals import Refusal
from visitors import quick_passwords


@pytest.mark.parametrize(
    "password",
    [
        "password", "Passw0rd!", "p@$$w0rd123", "password2024", "passwordpassword", "12345678", "1234567890", "87654321", "00000000", "20011990",
        "qwertyuiop", "qwerty123", "1q2w3e4r5t", "1qaz2wsx", "asdfghjkl;", "zxcvbnm,./", "poiuytrewq", "abcdefgh", "abcd1234", "aaaaaaaab", "abcabcabc",
        "letmein!!", "iloveyou2", "Summer2024!", "welcome1", "admin1234", "sunshine99", "dragon1990", "monkeymonkey", "truing2026", "!!!!!!!!!!", "xyxyxyxy",
    ],
)  # fmt: skip
def test_what_guessers_try_first_is_refused(password: str) -> None:
    assert common(password, "Ana")


@pytest.mark.parametrize("password", ["AnaMaria1990", "lopez-ana-maria", "anamaria!!", "L0pez12345"])
def test_a_persons_own_name_makes_no_password(password: str) -> None:
    assert common(password, "Ana Maria Lopez")
    assert not common(password.replace("Ana", "Quilt").replace("ana", "quilt").replace("opez", "oqvz"), "Somebody Else")


@pytest.mark.parametrize(
    "password", ["kettle drum fjord moss", "hunter2 rides a zebra", "Tr0ub4dor&3", "correct horse battery staple", "ЯблокоНаСнегу", "x7k2m9q4"]
)
def test_what_is_a_persons_own_passes(password: str) -> None:
    check(password, "Ana")


@pytest.mark.slow
def test_random_passwords_pass() -> None:
    draw = random.Random(7)
    words = ["".join(draw.choices(string.ascii_letters + string.digits, k=12)) for _ in range(500)]
    assert [word for word in words if common(word, "Ana")] == []
    assert not any(common(generated(), "Ana") for _ in range(100))


def test_length_has_bounds() -> None:
    check("fjord-mo", "Ana")  # eight
    for password in ("fjord-m", "kettle drum " * 100):
        with pytest.raises(Refusal, match="8 to 1,000 characters"):
            check(password, "Ana")


def test_a_long_password_is_judged_quickly() -> None:
    start = time.thread_time()  # of the processor: a busy machine isn't slower by it
    common("".join(random.Random(1).choices(string.ascii_lowercase, k=LONGEST)), "Ana")
    assert time.thread_time() - start < 2


def test_hashes_are_argon2id_with_the_librarys_parameters() -> None:
    made = extract_parameters(Passwords().hash("kettle drum fjord"))
    assert made.type == Type.ID
    assert (made.memory_cost, made.time_cost) == (64 * 1024, 3)  # RFC 9106, section 4, second recommendation


def test_only_the_right_password_fits() -> None:
    passwords = quick_passwords()
    stored = passwords.hash("kettle drum fjord")
    assert passwords.fits(stored, "kettle drum fjord")
    assert not passwords.fits(stored, "kettle drum fjorD")
    assert not passwords.fits(stored, "")
    assert not passwords.fits(stored, "k" * (LONGEST + 1))
    assert not passwords.fits(None, "kettle drum fjord")
    assert not passwords.fits("not a hash", "kettle drum fjord")


def test_two_spellings_of_one_text_are_one_password() -> None:
    passwords = quick_passwords()
    assert passwords.fits(passwords.hash("caf\u00e9 fjord moss"), "cafe\u0301 fjord moss")


def test_nobodys_password_takes_as_long_as_somebodys() -> None:
    """Who has an account can't be told by the time of the answer."""
    passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=4096, parallelism=1))
    stored = passwords.hash("kettle drum fjord")

    def seconds(of: str | None) -> float:
        times = []
        for _ in range(9):
            start = time.thread_time()  # what it took of the processor: the machine may be busy
            passwords.fits(of, "something else")
            times.append(time.thread_time() - start)
        return min(times)

    assert 0.5 < seconds(None) / seconds(stored) < 2


def test_at_most_two_hashes_are_made_at_once_and_the_line_has_an_end() -> None:
    """40 threads answer all requests: those who wait for a hash must not hold them all."""
    lock, gate = threading.Lock(), threading.Event()
    inside, most = [0], [0]
    outcomes: list[bool | int] = []

    class Watching(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            gate.wait(timeout=20)
            with lock:
                inside[0] -= 1
            return super().verify(hash, password)

    passwords = Passwords(Watching(time_cost=1, memory_cost=8, parallelism=1))
    stored = passwords.hash("kettle drum fjord")

    def come() -> None:
        try:
            outcomes.append(passwords.fits(stored, "kettle drum fjord"))
        except Refusal as refusal:
            outcomes.append(refusal.status)

    crowd = [threading.Thread(target=come) for _ in range(25)]
    for thread in crowd:
        thread.start()
    deadline = time.monotonic() + 10
    while len(outcomes) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outcomes == [503] * 5  # the line has 20 places
    gate.set()
    for thread in crowd:
        thread.join()
    assert most[0] == 2
    assert outcomes == [503] * 5 + [True] * 20
