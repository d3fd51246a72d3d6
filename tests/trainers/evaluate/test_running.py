"""Evaluation on the bundled model: seeds, resuming, failures, the baseline, requests left open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import nprdsl
from nprdsl import Limits
from nprdsl.machine.actions import FIRST
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from nprdsl.trainers.curriculum.arithmetic import held_out
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate import Evaluation, Mode, Sample, evaluate
from nprdsl.trainers.evaluate.runner import EvaluationError, NoSampleError
from nprdsl.trainers.evaluate.samples import judged, judged_freely, seeded
from nprdsl.trainers.grading.answers import Fallback
from tests.trainers.evaluate.made import arith, failed

EVERY_KIND = held_out(6)  # up to seven parts, dependent and nested ones
PROBLEMS = [p for p in held_out(12) if p.id.startswith(("flat-2", "flat-3"))][:6]
GREEDY = Sampling(temperature=0)
RULED = Sampling(temperature=0, rules={"step": {"temperature": 1.0}})
WARM = Sampling(temperature=1.6)  # wrong now and then
SHORT = Limits(max_tokens=400)  # enough for the problems, little for a trace that has lost its way
BRIEF = Limits(max_tokens=80)  # it ends in the branches


def run(problems: Any = PROBLEMS, **options: Any) -> Evaluation:
    options = {"limits": SHORT, **options}
    return evaluate(arith(), nprdsl.load("arith"), problems, chat=True, **options)


def kept(samples: tuple[Sample, ...]) -> list[Sample]:
    """Without times, which differ."""
    return [replace(sample, time_s=0.0, wall_s=0.0) for sample in samples]


def test_the_bundled_model_is_right() -> None:
    found = run(EVERY_KIND, sampling=GREEDY, limits=Limits())
    assert [sample.problem for sample in found.samples] == [p.id for p in EVERY_KIND]
    assert [sample.answer for sample in found.samples] == [p.answer for p in EVERY_KIND]
    figures = found.figures
    assert figures.accuracy.value == figures.legal_rate == figures.trigger_rate.value == 1.0
    assert 1.6 < figures.degree.value < 2.6
    assert figures.tokens.value > figures.critical_path.value > 50
    assert figures.speed.tokens_per_s > 0 < figures.speed.time_to_answer_s
    schema = nprdsl.load("arith")
    assert all(schema.check(sample.text) == [] for sample in found.samples)


def test_samples_repeat_whatever_runs_beside_them() -> None:
    found = run(samples=3, sampling=WARM, seed=5)
    traces = [sample.trace for sample in found.samples]
    assert len(set(traces)) > len(PROBLEMS)
    alone = run(PROBLEMS[3:4], samples=3, sampling=WARM, seed=5, concurrency=1)
    assert kept(alone.samples) == kept(found.samples[9:12])
    other = run(PROBLEMS[3:4], samples=3, sampling=WARM, seed=6)
    assert [s.trace for s in other.samples] != traces[9:12]


def test_every_sample_has_a_seed_of_its_own() -> None:
    places = [(seed, problem, n) for seed in range(3) for problem in PROBLEMS for n in range(3)]
    seeds = [seeded(WARM, *place).seed for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [seeded(WARM, *place).seed for place in places]


def test_figures_are_those_of_the_samples() -> None:
    problems = [replace(PROBLEMS[0], id="wrong", answer="0"), *PROBLEMS[1:3]]
    found = run(problems, samples=2)
    assert [sample.right for sample in found.samples] == [False, False, True, True, True, True]
    assert found.figures.accuracy.value == pytest.approx(2 / 3)
    assert found.figures.samples == 2


def test_an_interrupted_run_goes_on() -> None:
    whole = run(samples=2, sampling=WARM)
    seen: list[Sample] = []

    def stop(sample: Sample) -> None:
        seen.append(sample)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(samples=2, sampling=WARM, keep=stop, concurrency=3)
    assert arith()._open == {}
    new: list[Sample] = []
    rest = run(samples=2, sampling=WARM, done=seen, keep=new.append)
    assert len(new) == 7 and kept(rest.samples) == kept(whole.samples)
    assert rest.samples[:5] == tuple(seen)
    again: list[Sample] = []
    assert run(samples=2, sampling=WARM, done=rest.samples, keep=again.append) == rest
    assert again == []


def test_a_sample_that_failed_is_tried_again() -> None:
    found = run(PROBLEMS[:2])
    new: list[Sample] = []
    done = (found.samples[0], failed(found.samples[1]))
    rest = run(PROBLEMS[:2], done=done, keep=new.append)
    assert kept(rest.samples) == kept(found.samples) and len(new) == 1


def test_a_problem_that_cannot_be_asked_is_wrong_and_says_why() -> None:
    words = Problem("words", "what is 1+1?", "2")
    found = run([PROBLEMS[0], words])
    bad = found.samples[1]
    assert (bad.right, bad.legal, bad.finish) == (False, False, EndReason.FAILED)
    assert "the vocabulary has no token" in bad.error
    assert (found.figures.failed, found.figures.accuracy.value) == (1, 0.5)
    with pytest.raises(NoSampleError, match="no sample could be run, of 1: the vocabulary has no"):
        run([words])


def test_a_budget_ends_samples_legally() -> None:
    found = run(PROBLEMS[:3], limits=Limits(max_tokens=60))
    assert {sample.finish for sample in found.samples} == {EndReason.BUDGET}
    assert (found.figures.legal_rate, found.figures.completed_rate) == (1.0, 0.0)
    assert found.figures.tokens.value <= 60


def test_the_baseline_writes_the_same_tokens_one_branch_after_another() -> None:
    modes = (Mode.PARALLEL, Mode.IN_TURN)
    seen: list[Sample] = []
    problems, options = PROBLEMS[:4], {"samples": 2, "sampling": WARM, "limits": BRIEF}
    found = run(problems, modes=modes, concurrency=2, keep=seen.append, **options)
    half = len(found.samples) // 2
    assert [s.mode for s in found.samples] == [modes[0]] * half + [modes[1]] * half
    assert [s.trace for s in found.samples[:half]] == [s.trace for s in found.samples[half:]]
    baseline = found.figures.baseline
    assert baseline is not None and baseline.same_traces == 1.0
    assert baseline.speed_up > 0 and baseline.time_speed_up > 0
    turns = [s.mode for n, s in enumerate(seen) if n == 0 or s.mode is not seen[n - 1].mode]
    assert turns == [modes[0], modes[1]] * 2 + [modes[0]]  # four blocks, each way first in turn
    in_turn = run(problems[:2], modes=(Mode.IN_TURN,), **options)
    assert kept(in_turn.samples) == kept(found.samples[half : half + 4])
    assert in_turn.figures.baseline is None


def test_what_is_written_freely_may_be_illegal() -> None:
    limits = Limits(max_tokens=400)
    words = Problem("words", "what is 1+1?", "2")
    problems = [*EVERY_KIND[:3], words]
    found = run(problems, modes=(Mode.FREE,), limits=limits, sampling=GREEDY)
    *written, bad = found.samples
    assert [sample.problem for sample in found.samples] == [p.id for p in problems]
    assert "the vocabulary has no token" in bad.error and found.figures.failed == 1
    schema = nprdsl.load("arith")
    for sample in written:
        complete = sample.finish is EndReason.COMPLETED
        assert sample.legal == (complete and schema.check(sample.text) == [])
        assert sample.tokens == sample.critical_path == sample.sampled_tokens
        assert sample.forks == int(sample.legal)
    assert found.figures.degree.value == 1.0
    short = run(PROBLEMS[:2], modes=(Mode.FREE,), limits=Limits(max_tokens=20))
    assert (short.figures.legal_rate, short.figures.completed_rate) == (0.0, 0.0)
    assert short.figures.tokens.value == 20


def test_a_trace_that_is_written_freely_is_legal() -> None:
    schema = nprdsl.load("arith")
    bound = arith().bind(schema)
    constrained = arith().generate(schema, PROBLEMS[0].prompt, chat=True, sampling=GREEDY)
    ids = constrained.token_ids
    assert ids[-1] == bound.vocabulary.eos_id
    whole = Completion((1,), constrained.text, ids, (0.0,) * len(ids), EndReason.COMPLETED)
    sample = judged_freely(PROBLEMS[0], bound, whole)
    assert (sample.legal, sample.forks, sample.right) == (True, 1, True)
    assert sample.tokens == len(ids) == constrained.usage.total
    assert sample.trace == judged(PROBLEMS[0], constrained).trace
    cut = replace(whole, token_ids=ids[:-1], finish=EndReason.BUDGET)
    assert not judged_freely(PROBLEMS[0], bound, cut).legal
    other = replace(whole, token_ids=ids[5:])
    assert not judged_freely(PROBLEMS[0], bound, other).legal


def test_what_counts_as_an_answer() -> None:
    found = run(PROBLEMS[:1]).samples[0]
    result = arith().generate(nprdsl.load("arith"), PROBLEMS[0].prompt, chat=True,
                              sampling=GREEDY)  # fmt: skip
    assert judged(PROBLEMS[0], result).text == found.text
    result = replace(result, trace=None)  # what the schema marks would go first
    unboxed = replace(result, text="it is 7, no, 42")
    problem = Problem("p", "?", "42")
    assert judged(problem, unboxed).right
    assert judged(problem, unboxed, fallback=Fallback.NONE).answer == ""
    assert not judged(problem, replace(unboxed, error="it broke")).right
    choices = Problem("c", "?", "B", ("Eric", "Arnold"))
    assert judged(choices, replace(result, text=r"\boxed{Arnold}")).right


def test_natively_a_sample_is_legal_if_the_model_ended_it() -> None:
    limits = Limits(max_tokens=600)
    done = run(PROBLEMS[:4], modes=(Mode.NATIVE,), limits=limits, sampling=GREEDY).samples
    assert all(one.legal and one.finish is EndReason.COMPLETED for one in done)
    assert [one.text for one in done] == [
        one.text for one in run(PROBLEMS[:4], limits=limits, sampling=GREEDY).samples
    ]
    short = run(PROBLEMS[:1], modes=(Mode.NATIVE,), limits=Limits(max_tokens=60), sampling=GREEDY)
    assert short.samples[0].finish is EndReason.BUDGET and not short.samples[0].legal
    wild = Sampling(temperature=5.0)
    (lost,) = run(PROBLEMS[:1], modes=(Mode.NATIVE,), limits=limits, sampling=wild).samples
    assert lost.finish is EndReason.ILLEGAL and not lost.legal and not lost.failed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        (
            {"modes": ()},
            "modes must be parallel, in_turn, parallel with in_turn behind it, native, or free",
        ),
        ({"modes": (Mode.IN_TURN, Mode.PARALLEL)}, "modes must be"),
        ({"modes": (Mode.PARALLEL, Mode.PARALLEL)}, "modes must be"),
        ({"modes": (Mode.FREE,), "limits": Limits(depth=1)}, "has no limit but `max_tokens`"),
        ({"modes": (Mode.FREE,), "join": FIRST}, "has no limit but `max_tokens`, and no joins"),
        ({"modes": (Mode.FREE,), "sampling": RULED}, "has no rules that sampling could be set for"),
        ({"samples": 2, "sampling": Sampling(temperature=0)}, "all 2 samples of a problem are the"),
        ({"problems": ()}, "there are no problems"),
        ({"problems": (PROBLEMS[0], PROBLEMS[0])}, "two problems have the id `"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError) as error:
        run(**options)
    assert said in str(error.value)


def test_a_rule_that_samples_may_have_several_samples() -> None:
    assert run(PROBLEMS[:1], samples=2, sampling=RULED).figures.samples == 2
