"""Settings are checked at birth, with messages that name the setting, the value and the way out."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import replace

import pytest

from nprdsl.runtime.sampling import SETTINGS, Sampling


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "`temperature` is -0.1, it must be 0 (greedy) to 100"),
        ({"temperature": float("nan")}, "`temperature` is nan"),
        ({"temperature": float("inf")}, "`temperature` is inf"),
        ({"temperature": "hot"}, "`temperature` is 'hot', it must be a number"),
        ({"temperature": True}, "`temperature` is True, it must be a number"),
        ({"top_p": 1.5}, "`top_p` is 1.5, it must be above 0, at most 1 (off)"),
        ({"top_p": 0.0}, "use temperature=0 for greedy"),
        ({"top_k": -1}, "`top_k` is -1, it must be 0 (off) or more"),
        ({"top_k": 2.5}, "`top_k` is 2.5, it must be an integer"),
        ({"min_p": 2}, "`min_p` is 2, it must be 0 (off) to 1"),
        ({"repetition_penalty": 0}, "`repetition_penalty` is 0, it must be 0.01 to 100; 1 is off"),
        ({"repetition_penalty": 1e-300}, "`repetition_penalty` is 1e-300, it must be 0.01 to 100"),
        ({"temperature": 1e308}, "`temperature` is 1e+308, it must be 0 (greedy) to 100"),
        ({"frequency_penalty": 3}, "`frequency_penalty` is 3, it must be -2 to 2; 0 is off"),
        ({"presence_penalty": "x"}, "`presence_penalty` is 'x', it must be a number"),
        ({"seed": 1.0}, "`seed` is 1.0, it must be an integer"),
        ({"rules": {"step": {"temprature": 1}}}, "did you mean `temperature`?"),
        ({"rules": {"step": {"top_p": 3}}}, "sampling of the rule `step`: `top_p` is 3"),
        ({"rules": {"step": {"seed": 3}}}, "`seed` is set for a whole request"),
        ({"avoid": "text"}, "`avoid` is 'text', it must be a list of texts"),
        ({"avoid": [3]}, "`avoid` holds 3, which is no text"),
        ({"avoid": ["a\ud800"]}, "`avoid` holds 'a\\ud800', with half of a surrogate pair"),
        ({"avoid": ["x" * 100_001]}, "`avoid` has 100,001 characters, it may have 100,000"),
        ({"rules": {"step": {"avoid": ["x"]}}}, "`avoid` is set for a whole request"),
        ({"rules": None}, "`rules` is None, it must map rules to their settings"),
        ({"rules": ["step"]}, "`rules` is ['step'], it must map rules to their settings"),
        ({"rules": {"step": 3}}, "`rules` has 'step': 3, it must map rules to their settings"),
        ({"rules": {3: {}}}, "`rules` has 3: {}, it must map rules to their settings"),
        ({"rules": {"step": {3: 1}}}, "`rules` sets 3 for 'step'"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sampling(**settings)  # type: ignore[arg-type]


def test_unknown_keys_get_a_suggestion() -> None:
    with pytest.raises(ValueError, match="unknown setting `temprature` for sampling; did you mean"):
        Sampling.from_dict({"temprature": 1.0})
    assert Sampling.from_dict({"top_k": 3}) == Sampling(top_k=3)
    assert Sampling.from_dict({"avoid": ["x"]}) == Sampling(avoid=("x",))


def test_rules_override() -> None:
    sampling = Sampling(temperature=0.7, rules={"step": {"repetition_penalty": 1.02}})
    step = sampling.for_rule("step")
    assert (step.temperature, step.repetition_penalty) == (0.7, 1.02)
    assert sampling.for_rule("step") is step
    assert sampling.for_rule("plan") is sampling
    assert sampling.penalises and not Sampling().penalises
    assert Sampling(rules={"step": {"presence_penalty": 0.5}}).penalises


def test_rules_of_the_schema_only() -> None:
    sampling = Sampling(rules={"stepp": {"top_k": 1}})
    with pytest.raises(ValueError, match="`stepp`, which is no rule of the schema; did you mean"):
        sampling.check_rules(["start", "step"])
    Sampling(rules={"step": {}}).check_rules(["start", "step"])


def test_frozen() -> None:
    rules = {"step": {"top_k": 1}}
    sampling = Sampling(rules=rules)
    rules["step"]["top_k"] = 2
    assert sampling.rules["step"]["top_k"] == 1
    with pytest.raises(AttributeError):
        sampling.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize("settings", [Sampling(), Sampling(rules={"step": {"top_p": 0.5}}, seed=3)])
def test_settings_can_be_sent_copied_hashed_and_written(settings: Sampling) -> None:
    for same in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings), replace(settings)):
        assert same == settings and hash(same) == hash(settings)
        assert same.for_rule("step") == settings.for_rule("step")
    assert Sampling.from_dict(json.loads(json.dumps(_given(settings)))) == settings
    with pytest.raises(TypeError, match="settings do not change"):
        settings.rules["plan"] = {}  # type: ignore[index]


def _given(settings: Sampling) -> dict[str, object]:
    return {name: getattr(settings, name) for name in SETTINGS}
