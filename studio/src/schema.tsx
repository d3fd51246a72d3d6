// A schema: its rules as boxes in boxes, the stages of a block from left to right, and tables.
import type { ComponentChildren } from "preact";
import { Said } from "./said";
import type { BoxView, ExportView, SchemaView, TagView } from "./model";

const STAGES = new Set(["map", "fork", "join"]);
const TOLD = 6; // sentences of an export that are shown at once

interface SchemaProps {
  view: SchemaView;
  /** Why there are none, where there are none yet. */
  exports?: ExportView[] | string;
}

export function SchemaPanel({ view, exports = view.exports }: SchemaProps) {
  return (
    <div class="schema">
      <SchemaFigures view={view} />
      <section class="card graph-card" aria-label="The rules of the schema" tabIndex={0}>
        <div class="graph">
          <Box item={view.root} />
        </div>
      </section>
      <SchemaTables view={view} exports={exports} />
    </div>
  );
}

export function SchemaFigures({ view }: { view: SchemaView }) {
  return (
    <div class="figures">
      <div class="figure" title="tokens that are enough for a legal trace">
        <b>{view.minimum}</b>
        <span>tokens at least</span>
      </div>
      <div class="figure">
        <b>{view.tags.length}</b>
        <span>tags, {view.mode === "special" ? "each one token" : view.mode}</span>
      </div>
      <div class="figure">
        <b>{view.forks.length}</b>
        <span>{view.forks.length === 1 ? "block" : "blocks"}</span>
      </div>
      <div class="figure">
        <b>{view.vocabulary_size.toLocaleString("en")}</b>
        <span>tokens of {view.vocabulary}</span>
      </div>
    </div>
  );
}

export function SchemaTables({ view, exports }: Required<SchemaProps>) {
  return (
    <div class="tables">
      <section class="card">
        <h2>Tags and their tokens</h2>
        <ul class="tags">
          {view.tags.map((tag) => (
            <TagLine tag={tag} />
          ))}
        </ul>
      </section>
      <section class="card">
        <h2>Blocks and terminals</h2>
        <dl class="table">
          {view.forks.map((fork) => (
            <Entry name={fork.rule}>{fork.says}</Entry>
          ))}
          {view.terminals.map((terminal) => (
            <Entry name={terminal.name}>
              <code>{terminal.says}</code>
            </Entry>
          ))}
        </dl>
      </section>
      <section class="card">
        <h2>What other libraries cannot hold of it</h2>
        {typeof exports === "string" && <p class="faint hint">{exports || "…"}</p>}
        {Array.isArray(exports) && exports.map((one) => (
          <details open={one.lost.length > 0 && one.lost.length <= TOLD}>
            <summary>
              <b>{one.target}</b> <span class="faint">{one.refused ? "cannot state it" : one.lost.length ? `${one.lost.length} losses` : "all of it"}</span>
            </summary>
            {one.refused && <p>
                <Said text={one.refused} />
              </p>}
            <ul>
              {one.lost.map((sentence) => (
                <li>
                  <Said text={sentence} />
                </li>
              ))}
            </ul>
          </details>
        ))}
      </section>
    </div>
  );
}

function TagLine({ tag }: { tag: TagView }) {
  return (
    <li>
      <code class="word tag">{tag.text}</code>
      <span class="faint" title={tag.special ? "one token" : "spelled in several tokens"}>
        {tag.special ? tag.ids[0] : tag.ids.join(" ")}
      </span>
    </li>
  );
}

function Entry({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

export function Box({ item }: { item: BoxView }) {
  if (item.kind === "line") {
    return (
      <div class="words">
        {item.words.map((word) => (
          <code class={`word ${word.kind}`}>{word.text}</code>
        ))}
        {item.note && <small>{item.note}</small>}
      </div>
    );
  }
  if (item.kind === "again") {
    return (
      <div class="box again">
        <b>↑ {item.name}</b> {item.note && <small>{item.note}</small>}
      </div>
    );
  }
  return (
    <div class={`box ${item.kind}`}>
      {(item.name || item.note) && (
        <div class="box-head">
          <b>{item.name}</b> {item.note && <small>{item.note}</small>}
        </div>
      )}
      {staged(item.children).map((part) => (Array.isArray(part) ? <Stages items={part} /> : <Box item={part} />))}
    </div>
  );
}

function Stages({ items }: { items: BoxView[] }) {
  return (
    <div class="stages">
      {items.map((item) => (
        <div class={`stage ${item.kind}`}>
          <Box item={item} />
        </div>
      ))}
    </div>
  );
}

/** The items with the stages of each block put together. */
export function staged(items: BoxView[]): (BoxView | BoxView[])[] {
  const parts: (BoxView | BoxView[])[] = [];
  let open: BoxView[] | null = null;
  for (const item of items) {
    if (!STAGES.has(item.kind)) {
      parts.push(item);
      open = null;
      continue;
    }
    if (!open) parts.push((open = []));
    open.push(item);
    if (item.kind === "join") open = null;
  }
  return parts;
}
