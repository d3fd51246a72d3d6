"""Options of a request are judged before anything is computed: none is dropped in silence."""

from __future__ import annotations

import re
from typing import Any, get_type_hints

import pytest

import nprdsl
from nprdsl import JoinPolicy, Limits
from nprdsl.prompting.examples import Example, ExampleChoice
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.options import Options, check_options, check_schema
from nprdsl.runtime.prompts import PromptError
from nprdsl.runtime.sampling import Sampling
from tests.runtime.tiny_models import byte_tokenizer, model

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 300}, "no option `max_tokens`; give it in limits=Limits(max_tokens=…)"),
    ({"temperature": 0}, "no option `temperature`; give it in sampling=Sampling(temperature=…)"),
    ({"paralel": False}, "no option `paralel`; did you mean `parallel`?"),
    ({"best_of": 1}, "no option `best_of`; options are limits, join, parallel"),
    ({"limits": None}, "`limits` is None, it must be Limits(max_tokens=…)"),
    ({"limits": {"max_tokens": 3}}, "`limits` is {'max_tokens': 3}, it must be Limits"),
    ({"join": "first"}, "`join` is 'first', it must be JoinPolicy(1)"),
    ({"parallel": "no"}, "`parallel` is 'no', it must be True or False"),
    ({"chat": None}, "`chat` is None, it must be True or False"),
    ({"examples": "a file"}, "`examples` is 'a file', it must be a list of Example"),
    ({"examples": [("q", "a")]}, "`examples` is [('q', 'a')], it must be a list of Example"),
    ({"examples": None}, "`examples` is None, it must be a list of Example"),
]


def engine() -> LocalEngine:
    tokenizer = byte_tokenizer(nprdsl.load("npr").tags)
    return LocalEngine(model("llama", len(tokenizer)), tokenizer)


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_is_no_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        check_options(options)


def test_every_option_can_be_given() -> None:
    given: dict[str, object] = {
        "limits": Limits(),
        "join": JoinPolicy(1),
        "examples": [Example("q", "t")],
        **dict.fromkeys(("parallel", "native", "chat", "instructions", "logprobs"), True),
    }
    assert given.keys() == get_type_hints(Options).keys()
    check_options(given)
    check_options({"examples": ExampleChoice.OWN})
    check_options({"examples": []})


@pytest.mark.parametrize("schema", [None, "npr", nprdsl.load("npr").grammar])
def test_what_is_no_schema_is_named(schema: object) -> None:
    with pytest.raises(TypeError, match=r"must be a Schema: nprdsl\.load\(…\) gives one"):
        check_schema(schema)


def test_every_way_into_an_engine_checks() -> None:
    one, schema, bad = engine(), nprdsl.load("npr"), {"max_tokens": 5}
    calls = (one.generate, one.stream, one.submit)
    for call in calls:
        with pytest.raises(TypeError, match="no option `max_tokens`"):
            _used(call(schema, "x", **bad))
        with pytest.raises(TypeError, match=r"`sampling` is \{'temperature': 0}, it must be Sa"):
            _used(call(schema, "x", sampling={"temperature": 0}))
        with pytest.raises(TypeError, match="must be a Schema"):
            _used(call("npr", "x"))
    with pytest.raises(TypeError, match="`sampling` is None"):
        one.generate(schema, ["x", "y"], sampling=[Sampling(), None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ahead must be at least 1, not 0"):
        list(one.in_order(schema, [("x", Sampling())], ahead=0))
    with pytest.raises(PromptError, match="takes a list of prompts"):
        one.complete(schema, "x", max_tokens=3)
    assert not one._open


@pytest.mark.parametrize("name", ["max_kv_tokens", "max_rows", "prefix_tokens"])
@pytest.mark.parametrize("value", [-1, 1.5, None, True, "9"])
def test_sizes_of_an_engine_are_integers(name: str, value: Any) -> None:
    tokenizer = byte_tokenizer(())
    with pytest.raises(ValueError, match=rf"{name} (is|must be)"):
        LocalEngine(model("llama", len(tokenizer)), tokenizer, **{name: value})


@pytest.mark.parametrize("given", ["arith", None])
def test_what_is_no_model_is_told_how_to_load_one(given: Any) -> None:
    with pytest.raises(TypeError, match=r"LocalEngine\.from_pretrained loads one"):
        LocalEngine(given, byte_tokenizer(()))


def _used(call: object) -> None:
    """A stream begins with its first item."""
    if not isinstance(call, int):
        next(iter(call))  # type: ignore[call-overload]
