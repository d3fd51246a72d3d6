// The traces there are: runs of this session, and rows of files. One is shown, or two side by side.
import { useEffect, useRef, useState } from "preact/hooks";
import { Comparison } from "./compare";
import type { TraceRow, TraceView } from "./model";
import { Said } from "./said";
import { ask } from "./server";
import { TracePanel } from "./trace";

const SHOWN = 100; // rows of the list, until more are asked for
const LARGEST = 32e6; // bytes of a file

/** Something that can be shown; `view` is made when it is first needed. */
export interface Listed {
  id: string;
  title: string;
  about: string;
  view: TraceView | TraceRow;
}

export interface Choice {
  shown: Listed;
  beside: Listed | null;
}

export interface TracesProps {
  schema: () => string;
  files: string[];
  runs: Listed[];
  choice: Choice | null;
  onChoose: (choice: Choice | null) => void;
}

export function TracesPanel({ schema, files, runs, choice, onChoose }: TracesProps) {
  const [rows, setRows] = useState<Listed[]>([]);
  const [said, setSaid] = useState("");
  const [wanted, setWanted] = useState("");
  const [most, setMost] = useState(SHOWN);
  const [views, setViews] = useState<(TraceView | null)[]>([]);
  const input = useRef<HTMLInputElement>(null);

  const open = async (name: string, text: string) => {
    try {
      const answer = await ask({ ask: "rows", file: name, text });
      if (!answer.rows) return setSaid(answer.late ?? answer.failed ?? "");
      const found = answer.rows.rows.map((row, index): Listed => ({
        id: `${name} ${index}`,
        title: row.title,
        about: row.facts.filter(([fact, value]) => !row.title.includes(`${fact} ${value}`)).map(([fact, value]) => `${fact} ${value}`).join(" · "),
        view: row,
      }));
      setSaid(`${name}: ${counted(found.length, "trace")}${answer.rows.other ? `, and ${answer.rows.other} that hold none` : ""}`);
      setRows((before) => [...found, ...before.filter(({ id }) => !found.some((one) => one.id === id))]);
      if (found.length) onChoose({ shown: found[0], beside: null });
    } catch (error) {
      setSaid((error as Error).message);
    }
  };
  const read = async (file: File | undefined) => {
    if (!file) return;
    if (file.size > LARGEST) return setSaid(`${file.name} has ${Math.round(file.size / 1e6)} MB: show a part of ${LARGEST / 1e6} MB at most`);
    await open(file.name, await file.text());
  };
  useEffect(() => {
    for (const name of files) void open(name, "");
  }, []);
  useEffect(() => {
    let stale = false;
    const both = choice ? [choice.shown, choice.beside] : [];
    void Promise.all(both.map((one) => one && viewOf(one, schema()))).then(
      (made) => !stale && setViews(made),
      (error: Error) => !stale && (setViews([]), setSaid(error.message)),
    );
    return () => void (stale = true);
  }, [choice]);

  const all = [...runs, ...rows];
  const matching = all.filter(({ title, about }) => `${title} ${about}`.toLowerCase().includes(wanted.toLowerCase()));
  const [one, other] = views;
  return (
    <div
      class="traces"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void read(event.dataTransfer?.files[0]);
      }}
    >
      <div class="traces-head">
        <button class="main" onClick={() => input.current?.click()}>
          Open a file
        </button>
        <input ref={input} type="file" hidden aria-label="A file of traces" onChange={(event) => void read(event.currentTarget.files?.[0])} />
        <input
          type="search"
          aria-label="Find a trace"
          placeholder="Find"
          value={wanted}
          onInput={(event) => {
            setWanted(event.currentTarget.value);
            setMost(SHOWN);
          }}
        />
        <span class="status" role="status">
          <Said text={said} />
        </span>
      </div>
      {all.length === 0 && (
        <p class="faint hint">
          A trace, a file of <code>nprdsl run --out</code> or <code>nprdsl eval --out</code>, a training run's <code>rollouts.jsonl</code>: open it, or drop it
          here. Runs of this page are listed here too.
        </p>
      )}
      {all.length > 0 && (
        <ul class="trace-list" aria-label="Traces">
          {matching.slice(0, most).map((listed) => (
            <li>
              <button class="where" aria-pressed={choice?.shown.id === listed.id} onClick={() => onChoose({ shown: listed, beside: null })}>
                <b>{listed.title}</b> <small>{listed.about}</small>
              </button>
              <button
                class="second"
                aria-label={`Compare with ${listed.title}`}
                aria-pressed={choice?.beside?.id === listed.id}
                disabled={!choice || choice.shown.id === listed.id}
                onClick={() => choice && onChoose({ shown: choice.shown, beside: choice.beside?.id === listed.id ? null : listed })}
              >
                Compare
              </button>
            </li>
          ))}
          {matching.length > most && (
            <li>
              <button class="where" onClick={() => setMost(most * 4)}>
                {matching.length - most} more
              </button>
            </li>
          )}
        </ul>
      )}
      {one && (other ? <Comparison one={one} other={other} /> : <TracePanel view={one} />)}
    </div>
  );
}

const made = new WeakMap<TraceRow, TraceView>();

async function viewOf(listed: Listed, schema: string): Promise<TraceView> {
  if ("lanes" in listed.view) return listed.view;
  const row = listed.view;
  const known = made.get(row);
  if (known) return known;
  const answer = await ask({ ask: "trace", text: schema, row });
  if (!answer.trace) throw new Error(answer.late ?? answer.failed ?? "this trace cannot be shown");
  made.set(row, answer.trace);
  return answer.trace;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
