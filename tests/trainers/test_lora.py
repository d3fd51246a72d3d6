"""`[model.lora]`: little is trained, it is saved as a PEFT adapter, and the engine opens that."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import nprdsl
from nprdsl.runtime.adapter_settings import SETTINGS
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.loading import LoadOptions, load_base, load_model
from nprdsl.trainers.config.stages import EngineSection, LoraSection, SftConfig
from nprdsl.trainers.rollout.engines import rollout_engine
from nprdsl.trainers.run.add_tags import add_tags
from nprdsl.trainers.run.lora import add_lora, go_on_with_lora, save_lora, without_own_casts
from nprdsl.trainers.smol.questions import Split, traces
from nprdsl.trainers.stages.sft import train_sft
from tests.runtime.tiny_models import SHAPE, byte_tokenizer

peft = pytest.importorskip("peft")
SCHEMA = nprdsl.load("npr")
TIED = pytest.mark.parametrize("tied", [True, False])


def base(folder: Path, *, tied: bool) -> Path:
    tokenizer = byte_tokenizer([])
    torch.manual_seed(7)
    shape = SHAPE | {"vocab_size": len(tokenizer), "tie_word_embeddings": tied}
    LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[1, 2, 257, 3, 258, 4]])).logits
    return found


@TIED
def test_what_was_trained_is_what_the_engine_opens(tmp_path: Path, tied: bool) -> None:
    model, tokenizer = load_model(base(tmp_path / "base", tied=tied), LoadOptions(dtype="fp32"))
    new = add_tags(model, tokenizer, SCHEMA.tags)
    add_lora(model, LoraSection(rank=4), new.values())
    with torch.no_grad():
        for weights in model.parameters():
            if weights.requires_grad:
                weights.normal_(0, 0.3)
    (tmp_path / "tuned").mkdir()
    save_lora(model, tmp_path / "tuned", model.state_dict())
    tokenizer.save_pretrained(tmp_path / "tuned")
    engine = LocalEngine.from_pretrained(tmp_path / "tuned", dtype="fp32")
    assert (logits(engine.model) - logits(model)[..., : len(tokenizer)]).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("q_proj", "q_prj"), "names `q_prj`, which the model has not; did you mean `q_proj`"),
        (("self_attn.q_proj", "proj"), "names `proj`, which"),
        (("",), "names ``, which the model has not"),
    ],
)
def test_a_target_that_the_model_has_not_is_refused(targets: tuple[str, ...], told: str) -> None:
    """PEFT trains those that it finds, and says nothing."""
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **SHAPE))
    with pytest.raises(ValueError, match=told):
        add_lora(model, LoraSection(targets=targets), [])
    assert all(weights.requires_grad for weights in model.parameters())


def test_only_the_adapter_and_the_new_rows_are_trained(tmp_path: Path) -> None:
    model, tokenizer = load_model(base(tmp_path / "base", tied=True), LoadOptions(dtype="bf16"))
    new = add_tags(model, tokenizer, SCHEMA.tags)
    add_lora(model, LoraSection(rank=4, targets=("q_proj", "down_proj")), new.values())
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
    assert {w.dtype for w in trained.values()} == {torch.float32}
    assert all("q_proj" in name or "down_proj" in name or "token" in name for name in trained)
    rows = [w for name, w in trained.items() if "token" in name]
    assert [row.shape for row in rows] == [(len(new), 32)]


@TIED
def test_an_adapter_that_is_trained_further_begins_as_it_was(tmp_path: Path, tied: bool) -> None:
    """With one matrix at both ends, the rows of tags stay one."""
    path = base(tmp_path / "base", tied=tied)
    folder = small_run(tmp_path, "begun", path, rate=0.3)
    wanted = LocalEngine.from_pretrained(folder, dtype="fp32").model
    model, _ = load_base(folder, LoadOptions(dtype="fp32"))
    assert not torch.allclose(logits(model), logits(wanted), atol=1e-2)
    go_on_with_lora(model, LoraSection(rank=4, alpha=8), folder)
    assert (logits(model) - logits(wanted)).abs().max() <= 1e-4
    trained = [name for name, w in model.named_parameters() if w.requires_grad]
    assert sum("token" in name for name in trained) == (1 if tied else 2)


def small_run(
    tmp_path: Path,
    name: str,
    model: Path,
    *,
    rate: float = 0.01,
    lora: dict[str, Any] | None = None,
    schema: str = "npr",
) -> Path:
    """The folder of the model of a short run."""
    rows = [{"id": t.id, "prompt": t.prompt, "trace": t.trace} for t in traces(Split.TRAIN, 4)]
    data = tmp_path / "traces.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings: dict[str, Any] = {
        "schema": schema,
        "model": {
            "path": str(model),
            "dtype": "bf16",
            "add_tags": True,
            "lora": {"rank": 4, "alpha": 8, **(lora or {})},
        },
        "data": {"source": str(data)},
        "prompt": {"chat": False},
        "batch": 2,
        "optimizer": {"learning_rate": rate, "weight_decay": 0.0},
        "run": {"output": str(tmp_path / name), "precision": "bf16", "tensorboard": False},
    }
    return train_sft(SftConfig.model_validate(settings), restart=True)


def test_a_run_ends_with_an_adapter_that_knows_the_format(tmp_path: Path) -> None:
    folder = small_run(tmp_path, "run", base(tmp_path / "base", tied=True))
    written = json.loads((folder / SETTINGS).read_text())
    assert written["base_model_name_or_path"] == str(tmp_path / "base")
    assert not [*folder.glob("model*.safetensors")]
    whole = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert (folder / "adapter_model.safetensors").stat().st_size < whole
    assert LocalEngine.from_pretrained(folder).knows(SCHEMA)


def test_an_adapter_is_trained_further(tmp_path: Path) -> None:
    """At a rate of nothing it stays what it was; its kind is told where the settings differ."""
    folder = small_run(tmp_path, "begun", base(tmp_path / "base", tied=True))
    kept = small_run(tmp_path, "kept", folder, rate=1e-30)
    learnt = small_run(tmp_path, "learnt", folder)
    one, two, three = (load_file(f / "adapter_model.safetensors") for f in (folder, kept, learnt))
    assert one.keys() == two.keys() == three.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], three[name]) for name in one)
    settings = [json.loads((f / SETTINGS).read_text()) for f in (folder, kept)]
    for written in settings:
        written["target_modules"].sort()  # PEFT writes a set
    assert settings[0] == settings[1]
    engines = [LocalEngine.from_pretrained(f, dtype="fp32") for f in (folder, kept)]
    assert torch.equal(*(logits(engine.model) for engine in engines))
    assert engines[1].knows(SCHEMA)
    for lora, told in {
        (("rank", 8),): "has rank 4 and alpha 8, `model.lora` says 8 and 8",
        (("targets", ("q_proj",)),): "is beside down_proj, gate_proj, .*; leave `model.lora.target",
    }.items():
        with pytest.raises(ValueError, match=told):
            small_run(tmp_path, "other", folder, lora=dict(lora))
    with pytest.raises(ValueError, match="does not know the tag `<Parallel>`; name its base"):
        small_run(tmp_path, "tags", folder, schema="multiverse")


def test_without_peft_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(base(tmp_path / "base", tied=True), LoadOptions())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match="pip install peft"):
        add_lora(model, LoraSection(), [])


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_casts_that_autocast_makes_anyway_are_left_out(
    tmp_path: Path, dtype: Literal["bf16", "fp32"], precision: torch.dtype | None
) -> None:
    """To the same numbers, gradients included; without autocast they stay."""
    model, _ = load_model(base(tmp_path / "base", tied=True), LoadOptions(dtype=dtype))
    add_lora(model, LoraSection(rank=4), [])
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for weights in trained:
            weights.normal_(0, 0.3)
    found, casts = [], []
    for context in (nullcontext(), without_own_casts(model)):
        with ExitStack() as stack:
            stack.enter_context(torch.autocast("cpu", precision, enabled=precision is not None))
            counted = stack.enter_context(Casts())
            stack.enter_context(context)
            out = model(input_ids=torch.tensor([[1, 2, 3]])).logits
        found.append([out, *torch.autograd.grad(out.square().sum(), trained)])
        casts.append(counted.number)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    layers = sum(isinstance(m, peft.tuners.lora.LoraLayer) for m in model.modules())
    assert layers == 14
    if precision is None:
        assert casts[0] == casts[1]
    elif dtype == "bf16" and precision is torch.bfloat16:
        assert casts[1] < casts[0]
    assert all(m.cast_input_dtype_enabled for m in model.modules() if hasattr(m, "lora_A"))


class Casts(TorchDispatchMode):
    """Counts the tensors that are brought to float32."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.float32:
            self.number += 1
        return func(*args, **(kwargs or {}))


def test_a_server_is_given_no_adapter() -> None:
    """Said at the beginning, before anybody is asked."""
    model = SimpleNamespace(lora=LoraSection())
    session: Any = SimpleNamespace(setup=SimpleNamespace(config=SimpleNamespace(model=model)))
    with pytest.raises(ValueError, match=r"whole weights.*engine\.address"):
        rollout_engine(EngineSection(address="http://127.0.0.1:1"), session)
