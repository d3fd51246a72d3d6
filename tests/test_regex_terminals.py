"""Regular expressions of a schema: what they mean in a terminal, or why they are refused."""

from __future__ import annotations

import warnings

import pytest

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.schema import Schema
from tests.walks import schema_of


def schema(definition: str) -> Schema:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return schema_of(f'start: "<a>" X "</a>"\nX: {definition}\n')


@pytest.mark.parametrize(
    ("definition", "legal", "illegal"),
    [
        ("/(?i)abc/", "AbC", "abd"),
        ('/(?i)a/ "b"', "Ab", "aB"),
        ('"b" /(?i)a/', "bA", "Ba"),
        ("/(?i)a/ | /b/", "A", "B"),
        ("/(?i:a)b/", "Ab", "AB"),
        ("/(?i)(?s)a./", "A\n", "b\n"),
        ("/(?x) a b # c/", "ab", "a b"),
        ('/(?x) a # c/ "#"', "a#", "a"),
        ("/(?m)^a$/", "a", "a\n"),
        ("/a./s", "a\n", "a"),
        (r"/\101/", "A", "1"),
        (r"/[\101\x42]\0?/", "B", "C"),
        (r"/[\b]/", "\b", "b"),
        (r"/\N{DIGIT ONE}/", "1", "2"),
        (r"/\Aabc\Z/", "abc", "abcd"),
        (r"/cost\$/", "cost$", "cost"),
        ("/^cat$|^dog$/", "dog", "cat|dog"),
        (r"/^a\d$|^a\d$/", "a1", "a1a1"),
        ("/(^a|b$)/", "b", "ab"),
        ("/(?P<x>a)(?#c)b/", "ab", "a"),
        (r"/[\[\]&\&]/", "[", "a"),
        ("/a{,2}b/", "aab", "aaab"),
        ("/a{2/", "a{2", "aa"),
    ],
)
def test_means_what_it_means_in_python(definition: str, legal: str, illegal: str) -> None:
    made = schema(definition)
    assert not made.check(f"<a>{legal}</a>")
    assert made.check(f"<a>{illegal}</a>")


@pytest.mark.parametrize(
    ("regex", "reason"),
    [
        (r"x(?i)a", "global flags not at the start"),
        (r"(?u:\w)", "classes are ASCII"),
        (r"(?L:a)", "cannot use 'L' flag"),
        (r"a\bb", "a word boundary is not supported"),
        (r"a\B", "a word boundary is not supported"),
        (r"a\q", "bad escape"),
        (r"a\z", "bad escape"),
        (r"\p{L}", "bad escape"),
        (r"a$b", "an anchor inside a pattern is not supported"),
        (r"a*+b", "a possessive quantifier"),
        (r"(?>a)b", "an atomic group"),
        (r"(?<!a)b", "lookaround"),
        (r"(a)\1", "backreferences"),
        (r"(?P<x>a)(?P=x)", "backreferences"),
        (r"(a)?(?(1)b|c)", "a conditional group"),
        (r"[a--b]", "set operations"),
        (r"[[a]b]", "nested classes"),
        (r"\ud800", "matches nothing"),
        (r"\400", "octal escape"),
    ],
)
def test_refused_with_its_reason(regex: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        schema(f"/{regex}/")
