"""Declared parameters: what is accepted, how it is converted, and the texts of refusals."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from conpaas.core import errors, params

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
UPLOADED = params.UploadedFile("C:\\dir\\x.zip", pathlib.Path("/nowhere"), 3)
ALL_TYPES = [
    params.Integer(),
    params.Integer(minimum=1),
    params.Integer(minimum=0, maximum=9),
    params.Text(),
    params.Text(max_length=4, non_empty=True),
    params.Text(pattern="[a-z]+"),
    params.Boolean(),
    params.Choice(("a", 1, None)),
    params.Mapping(),
    params.Mapping(params.Integer(), max_items=2),
    params.ListOf(params.Text()),
    params.ListOf(params.Integer(), non_empty=True, max_items=3),
    params.Json(),
    params.JsonText(params.Mapping()),
    params.Upload(),
]


@pytest.mark.parametrize("kind", ALL_TYPES, ids=repr)
@hypothesis.given(value=JSON)
def test_any_json_value_is_either_accepted_or_refused_with_a_sentence(kind: params.ParamType, value: object) -> None:
    try:
        accepted = kind.check(value)
    except errors.InvalidArgument as error:
        assert str(error)
        assert len(str(error)) < 1000
    else:
        if not isinstance(kind, params.JsonText):
            assert kind.check(accepted) == accepted, "an accepted value is accepted again, unchanged"


@pytest.mark.parametrize("kind", ALL_TYPES, ids=repr)
def test_every_type_describes_itself(kind: params.ParamType) -> None:
    assert kind.describe()
    assert isinstance(kind.schema(), dict)


@hypothesis.given(st.integers(-params.INTEGER_LIMIT, params.INTEGER_LIMIT))
def test_integers_come_as_numbers_and_as_text(number: int) -> None:
    assert params.Integer().check(number) == number
    assert params.Integer().check(str(number)) == number
    assert params.Integer().check(f" {number} ") == number


@pytest.mark.parametrize("value", [True, False, None, 1.5, "1.0", "", "x", "٣", "1_000", [], {}, float("inf"), float("nan"), 2**63, 1e300])
def test_integers_refuse_booleans_fractions_and_the_rest(value: object) -> None:
    with pytest.raises(errors.InvalidArgument):
        params.Integer().check(value)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (params.Integer(), "x", "'x' has type 'str', should be integer"),
        (params.Integer(minimum=1), 0, "0 is not more than 0"),
        (params.Integer(minimum=0), -1, "-1 is not more or equal than 0"),
        (params.Integer(minimum=1, maximum=65535), 70000, "70000 is not between 1 and 65535"),
        (params.Boolean(), "maybe", "'maybe' has type 'str', should be bool"),
        (params.Text(), 5, "'5' has type 'int', should be string"),
        (params.Choice(["a", "b"]), "c", "'c' must be one of ['a', 'b']"),
        (params.Mapping(), [], "'[]' has type 'list', should be dict"),
        (params.ListOf(params.Text()), "x", "'x' has type 'str', should be list"),
        (params.ListOf(params.Text(), non_empty=True), [], "'[]' has type 'list', should be non-empty list"),
        (params.Upload(), "x", "'x' has type 'str', should be uploaded file"),
        (params.Text(), UPLOADED, "'uploaded file C:\\dir\\x.zip' has type 'UploadedFile', should be string"),
    ],
)
def test_refusals_are_worded_as_ever(kind: params.ParamType, value: object, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        kind.check(value)
    assert str(caught.value) == text
    with pytest.raises(errors.InvalidArgument) as caught:
        params.check_arguments([params.Param("size", kind)], {"size": value})
    assert str(caught.value) == f"Parameter 'size': {text}."


@pytest.mark.parametrize("word", ["yes", "Y", "TRUE", "t", "1", 1, True])
def test_words_for_true(word: object) -> None:
    assert params.Boolean().check(word) is True


@pytest.mark.parametrize("word", ["no", "N", "False", "f", "0", 0, False])
def test_words_for_false(word: object) -> None:
    assert params.Boolean().check(word) is False


def test_choices_are_not_converted() -> None:
    with pytest.raises(errors.InvalidArgument):
        params.Choice([1]).check("1")
    with pytest.raises(errors.InvalidArgument):
        params.Choice([1]).check(True)


@pytest.mark.parametrize("value", ["nul\0", "half \ud800"])
def test_text_that_no_file_or_database_takes_is_refused(value: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        params.Text().check(value)


def test_secrets_stay_out_of_error_texts() -> None:
    for kind, value in ((params.Text(secret=True, max_length=3), "s3cret"), (params.Text(secret=True), 998877)):
        with pytest.raises(errors.InvalidArgument) as caught:
            params.check_arguments([params.Param("password", kind)], {"password": value})
        assert "s3cret" not in str(caught.value)
        assert "998877" not in str(caught.value)


def test_items_are_named_in_refusals() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^item 1: 'x' has type"):
        params.ListOf(params.Integer()).check([1, "x"])
    with pytest.raises(errors.InvalidArgument, match=r"^key 'b': 'x' has type"):
        params.Mapping(params.Integer()).check({"a": 1, "b": "x"})


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "[" * 20000, "9" * 5000])
def test_json_text_that_is_not_json(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        params.JsonText().check(text)


def test_missing_and_unexpected() -> None:
    declared = [params.Param("codeVersionId", params.Text()), params.Param("count", params.Integer(), 1)]
    assert params.check_arguments(declared, {"codeVersionId": "c1"}) == {"code_version_id": "c1", "count": 1}
    with pytest.raises(errors.InvalidArgument) as caught:
        params.check_arguments(declared, {})
    assert str(caught.value) == "Missing the mandatory parameter 'codeVersionId'."
    with pytest.raises(errors.InvalidArgument) as caught:
        params.check_arguments(declared, {"codeVersionId": "c1", "other": 5})
    assert str(caught.value) == "Unexpected parameters: {'other': 5}."


def test_missing_is_reported_before_unexpected() -> None:
    with pytest.raises(errors.InvalidArgument, match="Missing"):
        params.check_arguments([params.Param("a", params.Text())], {"A": ""})


def test_an_empty_list_stands_for_no_arguments() -> None:
    assert params.check_arguments([params.Param("a", params.Text(), "x")], []) == {"a": "x"}
    with pytest.raises(errors.InvalidArgument):
        params.check_arguments([], ["a"])


def test_null_means_absent_where_the_default_is_null() -> None:
    assert params.check_arguments([params.Param("a", params.Integer(), None)], {"a": None}) == {"a": None}
    with pytest.raises(errors.InvalidArgument):
        params.check_arguments([params.Param("a", params.Integer(), 3)], {"a": None})


def test_defaults_are_not_shared_between_calls() -> None:
    declared = [params.Param("a", params.Mapping(), {})]
    first = params.check_arguments(declared, {})
    first["a"]["changed"] = True
    assert params.check_arguments(declared, {}) == {"a": {}}


@hypothesis.given(st.dictionaries(st.sampled_from(["a", "bC", "other", ""]), JSON), st.booleans())
def test_checking_arguments_gives_exactly_the_declared_ones_or_refuses(given: dict[str, object], required: bool) -> None:
    declared = [params.Param("a", params.Json(), params.REQUIRED if required else None), params.Param("bC", params.Json(), 2)]
    try:
        assert set(params.check_arguments(declared, given)) == {"a", "b_c"}
    except errors.InvalidArgument:
        assert set(given) - {"a", "bC"} or (required and "a" not in given)


@pytest.mark.parametrize(
    ("name", "arg"),
    [("codeVersionId", "code_version_id"), ("sid", "sid"), ("service_id", "service_id"), ("IPAddress", "ip_address"), ("class", "class_")],
)
def test_names_become_keywords(name: str, arg: str) -> None:
    assert params.Param(name, params.Text()).arg == arg


def test_membership_helpers() -> None:
    params.must_be_one_of("state", "A", ("A", "B"))
    params.must_not_be_one_of("state", "C", ("A", "B"))
    with pytest.raises(errors.InvalidArgument, match=r"^Parameter 'state': 'C' must be one of \['A', 'B'\]\.$"):
        params.must_be_one_of("state", "C", ("A", "B"))
    with pytest.raises(errors.InvalidArgument, match="must not be one of"):
        params.must_not_be_one_of("state", "A", ("A", "B"))


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\x1b[31m", "a\u2028b", "a\x85"])
def test_a_name_can_be_typed_into_one_line(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        params.Text(name=True).check(name)
    assert params.Text(name=True).check("naïve 🐘 'name'") == "naïve 🐘 'name'"
