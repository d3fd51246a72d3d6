"""Which schemas a server takes, and what it is told at start; without SGLang."""

from __future__ import annotations

from pathlib import Path

import pytest

import nprdsl
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.schema_register import SchemaRegister, registered
from nprdsl.runtime.http.serving_settings import VARIABLE, SchemaPolicy, ServingSettings
from nprdsl.runtime.http.wire_forms import SchemaForm, TerminalForm

TYPED = '%import .parts (NUMBER)\n%declare KIND\nstart: "<a>" NUMBER ":" KIND "</a>"\n'
STRANGE = SchemaForm(name="strange", source='start: "<x>"\n')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts.lark").write_text("NUMBER: /[0-9]+/\n")
    (tmp_path / "typed.lark").write_text(TYPED)
    (tmp_path / "plain.lark").write_text('start: "<b>" TEXT\n%declare TEXT\n')
    return tmp_path


def test_the_files_of_a_folder_are_known_by_name(folder: Path) -> None:
    register = SchemaRegister(SchemaPolicy.REGISTERED, registered(folder))
    assert {"arith", "npr", "plain", "typed"} <= set(register.names)
    assert "parts" not in register.names
    plain = register.form(SchemaForm(name="plain"))
    assert register.is_own(plain) and plain.read().check("<b>hello") == []
    kind = {"KIND": TerminalForm(pattern="x|y")}
    typed = register.form(SchemaForm(name="typed", terminals=kind))
    assert not register.is_own(typed), "a type is the client's"
    assert typed.read().check("<a>12:x</a>") == []


def test_what_a_client_sends_is_taken_where_the_server_knows_it(folder: Path) -> None:
    register = SchemaRegister(SchemaPolicy.REGISTERED, registered(folder))
    sent = SchemaForm.of(nprdsl.load(folder / "typed.lark", {"KIND": {"enum": ["x"]}}))
    assert register.form(sent) == sent
    assert register.form(SchemaForm(name="arith")) == SchemaForm(name="arith")
    changed = sent.model_copy(update={"imports": {"parts.lark": "NUMBER: /.*/\n"}})
    for refused in (STRANGE, changed):
        with pytest.raises(RefusedError, match="shipped and registered schemas only"):
            register.form(refused)
    with pytest.raises(RefusedError, match="did you mean `plain`"):
        register.form(SchemaForm(name="plian"))


def test_policies(folder: Path) -> None:
    forms = registered(folder)
    assert SchemaRegister(SchemaPolicy.ANY, forms).form(STRANGE) == STRANGE
    shipped = SchemaRegister(SchemaPolicy.SHIPPED, forms)
    with pytest.raises(RefusedError, match="shipped schemas only"):
        shipped.form(STRANGE)
    with pytest.raises(RefusedError, match="no schema is named `plain`"):
        shipped.form(SchemaForm(name="plain"))


def test_a_folder_that_cannot_be_registered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        registered(tmp_path / "none")
    (tmp_path / "broken.lark").write_text("start: (\n")
    with pytest.raises(nprdsl.SchemaError, match=r"broken\.lark"):
        registered(tmp_path)
    (tmp_path / "broken.lark").rename(tmp_path / "npr.lark")
    with pytest.raises(ValueError, match="name of a shipped schema"):
        registered(tmp_path)


@pytest.mark.parametrize(
    ("host", "policy"),
    [
        ("127.0.0.1", SchemaPolicy.ANY),
        ("::1", SchemaPolicy.ANY),
        ("localhost", SchemaPolicy.ANY),
        ("0.0.0.0", SchemaPolicy.REGISTERED),
        ("::", SchemaPolicy.REGISTERED),
        ("gpu7.example.org", SchemaPolicy.REGISTERED),
    ],
)
def test_strangers_are_those_of_other_machines(host: str, policy: SchemaPolicy) -> None:
    assert ServingSettings().policy(host) is policy
    assert ServingSettings(schemas=SchemaPolicy.SHIPPED).policy(host) is SchemaPolicy.SHIPPED


def test_settings_reach_the_processes_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ServingSettings.of_environment() == ServingSettings()
    given = ServingSettings(schemas=SchemaPolicy.SHIPPED, schema_timeout=2.0, trace_share=0.25)
    monkeypatch.setenv(VARIABLE, given.environment()[VARIABLE])
    assert ServingSettings.of_environment() == given
