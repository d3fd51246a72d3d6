// A prompt runs: the lanes grow, the branches write side by side; in the end the whole trace is there.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Lanes } from "./lanes";
import { Live, type Branch, type Item } from "./live";
import type { LanesView, SegmentView, TraceView } from "./model";
import { Said } from "./said";
import { run, type LiveView, type RunRequest } from "./server";
import { TracePanel } from "./trace";
import type { Listed } from "./traces";

const WARM = 0.8; // the temperature that another seed needs to write something else
const TAIL = 2000; // characters of a branch that are shown while it runs

interface Kept {
  request: RunRequest;
  listed: Listed;
}

interface Shown {
  live: Live;
  view: LiveView | null;
  trace: TraceView | null;
  refused: string;
  running: boolean;
  began: number;
  seconds: number;
}

export interface RunProps {
  schema: () => string;
  name: string; // of the schema that its text began as
  prompt: string;
  ready: boolean;
  onRun: (run: Listed) => void;
  onCompare: (shown: Listed, beside: Listed) => void;
}

export function RunPanel({ schema, name, prompt: first, ready, onRun, onCompare }: RunProps) {
  const [prompt, setPrompt] = useState(first);
  const [seed, setSeed] = useState(0);
  const [temperature, setTemperature] = useState(0);
  const [budget, setBudget] = useState(1024);
  const [parallel, setParallel] = useState(true);
  const [shown, setShown] = useState<Shown | null>(null);
  const [kept, setKept] = useState<Kept[]>([]); // the last first
  const count = useRef(0);
  const stopping = useRef<AbortController | null>(null);
  useEffect(() => setPrompt(first), [first]);
  useEffect(() => () => stopping.current?.abort(), []);

  const asked = (sideBySide: boolean): RunRequest => ({ schema_text: schema(), schema_name: name, prompt, seed, temperature, max_tokens: budget, parallel: sideBySide });
  /** Runs to the end; gives what came of it, null without a trace. */
  const start = async (request: RunRequest): Promise<Kept | null> => {
    stopping.current?.abort();
    let made: Kept | null = null;
    const control = (stopping.current = new AbortController());
    const state: Shown = { live: new Live(), view: null, trace: null, refused: "", running: true, began: performance.now(), seconds: 0 };
    let waiting = false;
    const draw = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (stopping.current === control) setShown({ ...state });
      });
    };
    draw();
    try {
      await run(request, control.signal, (message) => {
        if (message.kind === "event") {
          state.live.follow(message.data);
          state.seconds = (performance.now() - state.began) / 1000;
        } else if (message.kind === "live") state.view = message.data;
        else if (message.kind === "trace") {
          const title = `run ${++count.current}, ${request.parallel ? "side by side" : "in turn"}, seed ${request.seed}`;
          const view = (state.trace = { ...message.data, title });
          made = { request, listed: { id: title, title, about: request.prompt, view } };
        }
        else state.refused = message.data.message;
        draw();
      });
    } catch (error) {
      state.refused = control.signal.aborted ? "stopped" : (error as Error).message;
    }
    state.running = false;
    draw();
    const done = made as Kept | null; // the closure has set it
    if (done) {
      setKept((before) => [done, ...before].slice(0, 2));
      onRun(done.listed);
    }
    return done;
  };
  const again = () => {
    const warm = temperature || WARM;
    setTemperature(warm);
    setSeed(seed + 1);
    void start({ ...asked(parallel), seed: seed + 1, temperature: warm });
  };
  const bothWays = async () => {
    const [mine, theirs] = [asked(parallel), asked(!parallel)];
    const before = kept.find(({ request }) => JSON.stringify(request) === JSON.stringify(mine));
    const one = before ?? (await start(mine));
    const other = one && (await start(theirs));
    if (one && other) onCompare(one.listed, other.listed);
  };
  return (
    <div class="run">
      <form
        class="ask"
        onSubmit={(event) => {
          event.preventDefault();
          void start(asked(parallel));
        }}
      >
        <textarea
          aria-label="Prompt"
          rows={2}
          value={prompt}
          placeholder="A question for the model"
          onInput={(event) => setPrompt(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void start(asked(parallel));
          }}
        />
        <div class="buttons">
          {shown?.running ? (
            <button type="button" class="main stop" onClick={() => stopping.current?.abort()}>
              Stop
            </button>
          ) : (
            <button class="main" disabled={!ready || !prompt.trim()}>
              Run
            </button>
          )}
          <button type="button" class="second" disabled={!ready || !prompt.trim() || !shown || shown.running} onClick={again}>
            Another seed
          </button>
          <button
            type="button"
            class="second"
            disabled={!ready || !prompt.trim() || shown?.running}
            title="One branch after another, beside all at once"
            onClick={() => void bothWays()}
          >
            Both ways
          </button>
        </div>
        <div class="settings">
          <Setting name="seed">
            <input type="number" min="0" value={seed} onInput={(event) => setSeed(Number(event.currentTarget.value))} />
          </Setting>
          <Setting name="temperature">
            <input type="number" min="0" max="2" step="0.1" value={temperature} onInput={(event) => setTemperature(Number(event.currentTarget.value))} />
          </Setting>
          <Setting name="tokens at most">
            <input type="number" min="1" value={budget} onInput={(event) => setBudget(Number(event.currentTarget.value))} />
          </Setting>
          <label class="tick">
            <input type="checkbox" checked={parallel} onChange={(event) => setParallel(event.currentTarget.checked)} /> side by side
          </label>
        </div>
      </form>
      {kept.length === 2 && !shown?.running && (
        <p class="status">
          <button class="link" onClick={() => onCompare(kept[1].listed, kept[0].listed)}>
            Compare with the run before
          </button>
        </p>
      )}
      {shown ? <Outcome shown={shown} budget={budget} /> : <p class="faint hint">Run a prompt, and watch its branches grow.</p>}
    </div>
  );
}

function Setting({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <label class="setting">
      {children}
      <span>{name}</span>
    </label>
  );
}

function Outcome({ shown, budget }: { shown: Shown; budget: number }) {
  const { live, view, trace, refused, running, seconds } = shown;
  if (trace) return <TracePanel view={trace} />;
  return (
    <div class="running" aria-busy={running}>
      {refused && (
        <p class="refused" role="alert">
          <Said text={refused} />
        </p>
      )}
      <p class="status" role="status">
        {running && <i class="pulse" aria-hidden="true" />}
        {live.tokens === 0 ? (running ? "reading the prompt" : "") : told(live, view?.lanes ?? null, seconds, budget)}
      </p>
      {view && (
        <section class="card" aria-label="Lanes">
          <Lanes lanes={view.lanes} text={(segment) => tail(view, segment)} selected={null} seen={null} onSelect={() => {}} follow />
        </section>
      )}
      {live.tokens > 0 && (
        <section class="card flow-card" aria-label="What is being written">
          <Flow items={live.root.items} />
        </section>
      )}
    </div>
  );
}

function told(live: Live, lanes: LanesView | null, seconds: number, budget: number): string {
  const branches = live.live === 1 ? "1 branch" : `${live.live} branches`;
  const rate = seconds > 0 ? `, ${Math.round(live.tokens / seconds)} tokens/s` : "";
  const path = lanes ? `, critical path ${lanes.critical_path}, degree ${lanes.degree.toFixed(2)}` : "";
  return `${branches} now, ${live.tokens} tokens${rate}${path}, ${Math.max(0, budget - live.tokens)} left`;
}

function tail(view: LiveView, segment: SegmentView): string {
  const text = view.tails[view.lanes.segments.indexOf(segment)] ?? "";
  return text.replace(/\s+/g, " ");
}

function Flow({ items }: { items: Item[] }) {
  return (
    <>
      {items.map((item) =>
        "text" in item ? (
          <span class={item.forced ? "forced" : ""}>{item.text.slice(-TAIL)}</span>
        ) : (
          <div class="fork">
            {item.children.map((child) => (
              <BranchCard branch={child} />
            ))}
          </div>
        ),
      )}
    </>
  );
}

function BranchCard({ branch }: { branch: Branch }) {
  return (
    <div class={`branch tint${branch.tint}${branch.ended ? " ended" : ""}`}>
      <div class="branch-head">
        <b>{branch.title}</b>
        <small>
          {branch.tokens} tokens {branch.ended === "completed" ? "✓" : branch.ended}
        </small>
      </div>
      <Flow items={branch.items} />
    </div>
  );
}
