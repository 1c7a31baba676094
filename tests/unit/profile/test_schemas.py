from __future__ import annotations

import pytest
from pydantic import ValidationError

from fanfold.profile.schemas import Login, NewAccount, ProfileChange

GOOD = "tr0ubador&3"


@pytest.mark.parametrize("name", ["ada", "ada_lovelace", "a.d.a", "_ada_", "0x1f", "a" * 30])
def test_usernames_of_letters_digits_underscores_and_inner_dots_are_taken(name: str) -> None:
    assert NewAccount(username=name, password=GOOD).username == name


def test_usernames_are_lower_case_whatever_was_typed() -> None:
    assert NewAccount(username="AdaLovelace", password=GOOD).username == "adalovelace"


@pytest.mark.parametrize(
    "name",
    [
        "ad",
        "a" * 31,
        ".ada",
        "ada.",
        "a..da",
        "ada lovelace",
        "adä",
        "ада",
        "ada\n",
        "admin",
        "Fanfold",
        "",
        "\u0130da",
    ],
)
def test_other_usernames_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="username"):
        NewAccount(username=name, password=GOOD)


def test_display_names_are_trimmed_and_composed() -> None:
    account = NewAccount(username="ada", password=GOOD, display_name="  Ada\u0308 👩\u200d🔬 ")
    assert account.display_name == "Ad\u00e4 👩\u200d🔬"


@pytest.mark.parametrize("name", ["", "   ", "a" * 51, "Ada\x00", "Ada\u202eevil", "a\u200bb", "two\nlines"])
def test_display_names_that_are_empty_long_or_hide_characters_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="display_name"):
        ProfileChange(display_name=name)


def test_a_bio_may_have_lines() -> None:
    assert ProfileChange(bio=" one \r\n two ").bio == "one\ntwo"


@pytest.mark.parametrize("bio", ["a" * 301, "a" * 100_000, "\x1b[31m"])
def test_a_bio_is_bounded_and_plain(bio: str) -> None:
    with pytest.raises(ValidationError, match="bio"):
        ProfileChange(bio=bio)


def test_a_field_that_does_not_exist_is_told() -> None:
    with pytest.raises(ValidationError, match="usrname"):
        Login.model_validate({"usrname": "ada", "username": "ada", "password": GOOD})


def test_a_password_does_not_show_in_a_printed_request() -> None:
    assert GOOD not in repr(Login(username="ada", password=GOOD))
