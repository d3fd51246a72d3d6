// The studio: an editor for a schema, its picture beside it, and a model that runs it.
import type { EditorView } from "@codemirror/view";
import { render } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { applyFix, makeEditor, select, showFaults } from "./editor";
import type { ExportView, SchemaView } from "./model";
import { RunPanel } from "./run";
import { Said } from "./said";
import { SchemaPanel } from "./schema";
import { ask, present, type Answer, type Fault, type Start } from "./server";
import "./style.css";
import "./studio.css";
import { ThemeButton } from "./theme";
import { TracesPanel, type Choice, type Listed } from "./traces";

type Tab = "schema" | "run" | "traces";
const TABS: Record<Tab, string> = { schema: "What it means", run: "Run it", traces: "Traces" };
const MOST_RUNS = 50; // that are kept
const REST_MS = { picture: 150, exports: 500 }; // behind what came before, as they take longer

export function Studio({ start, nonce }: { start: Start; nonce: string }) {
  const [chosen, setChosen] = useState(start.first);
  const [tab, setTab] = useState<Tab>(start.files.length ? "traces" : "schema");
  const [runs, setRuns] = useState<Listed[]>([]);
  const [choice, setChoice] = useState<Choice | null>(null);
  const [faults, setFaults] = useState<Fault[] | null>(null); // not known yet
  const [trouble, setTrouble] = useState("");
  const [view, setView] = useState<SchemaView | null>(null);
  const [exports, setExports] = useState<ExportView[] | string>("");
  const box = useRef<HTMLDivElement>(null);
  const editor = useRef<EditorView | null>(null);
  const texts = useRef(start.schemas.map((schema) => schema.text)); // as they were left
  const drawn = useRef(""); // the picture that is shown, as JSON
  const text = useCallback(() => editor.current?.state.doc.toString() ?? "", []);

  const look = useCallback(async (written: string) => {
    try {
      const answer = await ask({ ask: "faults", text: written });
      if (answer.skipped || written !== text()) return;
      const found = heed(answer);
      if (!found.length && !answer.late && !answer.failed) {
        if (drawn.current) await rest(REST_MS.picture);
        if (written !== text()) return;
        const more = await ask({ ask: "view", text: written });
        if (more.skipped || written !== text()) return;
        heed(more);
        if (!more.view) return;
        const picture = JSON.stringify(more.view);
        if (picture !== drawn.current) {
          drawn.current = picture;
          setView(more.view);
          setExports("");
        }
        await rest(REST_MS.exports);
        if (written !== text()) return;
        const last = await ask({ ask: "exports", text: written });
        if (!last.skipped && written === text()) setExports(last.exports ?? `not known: ${last.late ?? last.failed}`);
      }
    } catch (error) {
      setTrouble((error as Error).message);
    }
  }, []);
  const heed = (answer: Answer): Fault[] => {
    const found = answer.faults ?? [];
    setFaults(found);
    setTrouble(answer.late ?? answer.failed ?? "");
    if (editor.current) showFaults(editor.current, found);
    return found;
  };
  useEffect(() => {
    const made = makeEditor(box.current!, texts.current[chosen], nonce, (written) => void look(written));
    editor.current = made;
    void look(texts.current[chosen]);
    return () => {
      texts.current[chosen] = made.state.doc.toString();
      made.destroy();
    };
  }, [chosen]);

  const panel = useMemo(() => view && <SchemaPanel view={view} exports={exports} />, [view, exports]);
  const ready = !faults?.length && !trouble;
  return (
    <div class="studio">
      <header class="top">
        <h1>nprdsl studio</h1>
        <label class="choose">
          <span class="faint">schema</span>
          <select value={chosen} onChange={(event) => setChosen(Number(event.currentTarget.value))}>
            {start.schemas.map((schema, index) => (
              <option value={index}>{schema.name}</option>
            ))}
          </select>
        </label>
        <span class="chip">model {start.model}</span>
        <span class="grow" />
        <ThemeButton />
      </header>
      <div class="panes">
        <section class="pane editor-pane" aria-label="Schema">
          <div class="editor" ref={box} />
          <Problems faults={faults} trouble={trouble} editor={editor} />
        </section>
        <section class="pane" aria-label="What becomes of it">
          <div class="tabs" role="tablist">
            {(Object.keys(TABS) as Tab[]).map((name) => (
              <button role="tab" id={`tab-${name}`} aria-controls={`panel-${name}`} aria-selected={tab === name} onClick={() => setTab(name)}>
                {TABS[name]}
              </button>
            ))}
          </div>
          <div class="panel" role="tabpanel" id="panel-schema" aria-labelledby="tab-schema" hidden={tab !== "schema"}>
            {panel && !ready && (
              <p class="stale" role="note">
                <span class="chip">as it was before the fault</span>
              </p>
            )}
            <div>{panel ?? <p class="faint hint">Its picture comes here, once it has no fault.</p>}</div>
          </div>
          <div class="panel" role="tabpanel" id="panel-run" aria-labelledby="tab-run" hidden={tab !== "run"}>
            <RunPanel
              schema={text}
              name={start.schemas[chosen].name}
              prompt={start.schemas[chosen].prompt}
              ready={ready}
              onRun={(run) => setRuns((before) => [run, ...before].slice(0, MOST_RUNS))}
              onCompare={(shown, beside) => {
                setChoice({ shown, beside });
                setTab("traces");
              }}
            />
          </div>
          <div class="panel" role="tabpanel" id="panel-traces" aria-labelledby="tab-traces" hidden={tab !== "traces"}>
            <TracesPanel schema={text} files={start.files} runs={runs} choice={choice} onChoose={setChoice} />
          </div>
        </section>
      </div>
    </div>
  );
}

function rest(milliseconds: number): Promise<void> {
  return new Promise((rested) => setTimeout(rested, milliseconds));
}

function Problems({ faults, trouble, editor }: { faults: Fault[] | null; trouble: string; editor: { current: EditorView | null } }) {
  if (trouble) {
    return (
      <p class="problems trouble" role="alert">
        <Said text={trouble} />
      </p>
    );
  }
  if (!faults) {
    return (
      <p class="problems" role="status">
        reading it …
      </p>
    );
  }
  if (!faults.length) {
    return (
      <p class="problems fine" role="status">
        no fault
      </p>
    );
  }
  return (
    <ul class="problems" aria-live="polite" aria-label="Faults of the schema">
      {faults.map((fault) => (
        <li>
          <button class="where" onClick={() => fault.here && editor.current && select(editor.current, fault.span)}>
            <code class="code">{fault.code}</code> <Said text={fault.message} />
            <small>
              {" "}
              line {fault.span[0]}, column {fault.span[1]}
            </small>
            {fault.suggestion && (
              <em>
                <Said text={fault.suggestion} />
              </em>
            )}
          </button>
          {fault.fix && (
            <button class="second" onClick={() => editor.current && applyFix(editor.current, fault)}>
              Fix
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

const given = document.getElementById("view");
const app = document.getElementById("app");
if (given && app) {
  const nonce = document.getElementById("program")?.dataset.nonce ?? "";
  const start = JSON.parse(given.textContent ?? "") as Start;
  present(start.token);
  render(<Studio start={start} nonce={nonce} />, app);
}
