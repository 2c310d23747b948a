"""Labels: which class a name, a number or an integer means."""

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpmctl.errors import UsageError
from ddpmctl.labels import (
    class_names_problem,
    find_clash,
    label_key,
    natural_key,
    resolve_label,
    resolves_to_index,
    typed_label,
)

from .builders import DIGITS

ONE_TO_TWELVE = tuple(str(number) for number in range(1, 13))
CAFE, CAFE_DECOMPOSED = "caf\u00e9", "cafe\u0301"


@given(index=st.integers(0, 9), upper=st.lists(st.booleans(), min_size=5, max_size=5), space=st.sampled_from(["", " "]))
def test_a_label_is_a_name_in_any_case_or_an_index(index: int, upper: list[bool], space: str) -> None:
    mixed = "".join(c.upper() if up else c for c, up in zip(DIGITS[index], upper, strict=False))
    typed = mixed + DIGITS[index][len(mixed) :]
    assert resolve_label(f"{space}{typed}{space}", DIGITS) == index
    assert resolve_label(str(index), DIGITS) == index


@pytest.mark.parametrize("integer", [int, np.int64, np.uint8, np.array, torch.tensor])
def test_an_integer_is_an_index_even_where_a_class_has_that_number_as_its_name(integer: type) -> None:
    assert [resolve_label(integer(index), ONE_TO_TWELVE) for index in range(12)] == list(range(12))
    assert [resolve_label(str(number), ONE_TO_TWELVE) for number in range(1, 13)] == list(range(12))


@pytest.mark.parametrize("index", [-1, 12, np.int64(99), True])
def test_an_index_out_of_range_is_refused_with_the_classes_and_their_indices(index: int) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_label(index, ONE_TO_TWELVE)
    assert caught.value.message == f"unknown label '{index}'"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("labels of this model: 1 (index 0), 2 (index 1), ")


@pytest.mark.parametrize("label", [1.0, None, [1]])
def test_what_is_neither_an_integer_nor_text_is_refused(label: object) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_label(label, DIGITS)  # type: ignore[arg-type]
    assert caught.value.hint == f"an index is an int, not {type(label).__name__}"


def test_a_number_finds_the_name_that_is_equal_to_it() -> None:
    assert resolve_label("7", ("007", "008")) == 0
    assert resolve_label("8", ("007", "008")) == 1
    assert resolve_label("007", tuple(map(str, range(10)))) == 7
    with pytest.raises(UsageError) as caught:
        resolve_label("07", ("7", "007", "x"))
    assert (caught.value.message, caught.value.hint) == (
        "the label '07' is ambiguous: 7, 007",
        "use the full class name",
    )
    assert resolve_label("7", ("7", "007", "x")) == 0


def test_a_number_that_is_no_class_name_is_an_index_and_that_can_be_said() -> None:
    assert resolve_label("0", ONE_TO_TWELVE) == 0
    assert resolves_to_index("0", ONE_TO_TWELVE)
    assert not resolves_to_index("1", ONE_TO_TWELVE)
    assert not resolves_to_index("3", DIGITS)
    assert not resolves_to_index("7", ("006", "007"))


@pytest.mark.parametrize("typed", ["12", "10", "-1", "3.0", "", "\u00b2", "zero one"])
def test_an_unknown_label_is_refused_with_those_that_are_known(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_label(typed, ("cat", "dog"))
    assert caught.value.message == f"unknown label '{typed}'"
    assert caught.value.hint == "labels of this model: 0 to 1, or cat, dog"


@pytest.mark.parametrize(("typed", "meant"), [("eigth", "eight"), ("Sevn", "seven"), ("treee", "three")])
def test_a_mistyped_label_is_refused_with_the_one_that_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_label(typed, DIGITS)
    assert (caught.value.message, caught.value.hint) == (f"unknown label '{typed}'", f"did you mean {meant}?")


def test_a_long_list_of_labels_is_cut() -> None:
    names = tuple(f"class {i}" for i in range(100))
    with pytest.raises(UsageError) as caught:
        resolve_label("?", names)
    assert caught.value.hint == f"labels of this model: 0 to 99, or {', '.join(names[:12])}, .."


@pytest.mark.parametrize(
    ("first", "second"),
    [("black cats", "black-cats"), ("a_b", "A/b"), (CAFE, CAFE_DECOMPOSED), ("\u212bngstrom", "\u00c5ngstrom")],
)
def test_two_spellings_of_one_name_are_one_class_and_clash(first: str, second: str) -> None:
    assert resolve_label(second, ("other", first)) == 1
    assert find_clash(["other", first, second]) == (first, second)
    problem = class_names_problem([first, second])
    assert (
        problem
        == f"the class names '{first}' and '{second}' are ambiguous: they differ only in case, accents or separators"
    )


@given(st.text(max_size=6), st.text(max_size=6))
def test_names_clash_exactly_where_a_typed_one_finds_the_other(one: str, other: str) -> None:
    assert (find_clash([one, other]) is not None) == (label_key(one) == label_key(other))
    assert label_key(unicodedata.normalize("NFD", one)) == label_key(unicodedata.normalize("NFC", one))


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "\u202eabc", "\ud800", "a\x00"])
def test_names_that_would_move_the_cursor_are_refused(name: str) -> None:
    assert class_names_problem(["cat", name]) == f"the class name {name!r} contains characters that cannot be displayed"


def test_names_in_any_script_and_joined_emoji_are_fine() -> None:
    assert (
        class_names_problem(["\u732b", "\u0440\u044b\u0431\u0430", "\U0001f469\u200d\U0001f680", "T-shirt/top"]) is None
    )
    assert class_names_problem(["cat", " "]) == "a class has an empty name"


def test_numbers_in_names_are_sorted_by_their_value() -> None:
    names = ["10", "2", "1", "class10", "class9", "Class1", "007", "7"]
    assert sorted(names, key=natural_key) == ["1", "2", "007", "7", "10", "Class1", "class9", "class10"]


def test_what_is_typed_for_a_class_finds_it_again() -> None:
    names = ("1", "black cats", "-3", "007", "0")
    for index in range(len(names)):
        assert resolve_label(typed_label(index, names), names) == index
        assert not typed_label(index, names).startswith("-")
