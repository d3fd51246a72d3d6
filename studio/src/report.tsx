// A report: tables, curves over the steps, and the traces at both ends of a list.
import { useState } from "preact/hooks";
import type { CurveView, ReportView, SampleView, TableView } from "./model";
import { TracePanel } from "./trace";

const [WIDTH, HEIGHT] = [300, 110];

export function ReportPanel({ view }: { view: ReportView }) {
  return (
    <div class="report">
      {view.tables.map((table) => (
        <Table table={table} />
      ))}
      {view.curves.length > 0 && (
        <section class="card" aria-label="Curves">
          <h2>Over the steps</h2>
          <div class="curves">
            {view.curves.map((curve) => (
              <Curve curve={curve} />
            ))}
          </div>
        </section>
      )}
      {[true, false].map((best) => (
        <Samples title={best ? "The best" : "The worst"} samples={view.samples.filter((sample) => sample.best === best)} />
      ))}
    </div>
  );
}

function Table({ table }: { table: TableView }) {
  return (
    <section class="card report-table" aria-label={table.title}>
      <h2>{table.title}</h2>
      <table>
        <thead>
          <tr>
            {table.columns.map((name) => (name ? <th scope="col">{name}</th> : <td />))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map(([name, ...values]) => (
            <tr>
              <th scope="row">{name}</th>
              {values.map((value) => (
                <td>{value}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Curve({ curve }: { curve: CurveView }) {
  const [xs, ys] = [curve.points.map(([x]) => x), curve.points.map(([, y]) => y)];
  const [least, most] = [Math.min(...ys), Math.max(...ys)];
  return (
    <figure class="curve">
      <svg
        viewBox={`-2 -2 ${WIDTH + 4} ${HEIGHT + 4}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${curve.title}: ${shown(ys[0])} to ${shown(ys.at(-1)!)}, between ${shown(least)} and ${shown(most)}`}
      >
        <path d={pathOf(curve)} />
      </svg>
      <figcaption>
        <b>{curve.title}</b> {shown(ys.at(-1)!)}
        <small>
          {shown(least)} to {shown(most)}, steps {xs[0]} to {xs.at(-1)}
        </small>
      </figcaption>
    </figure>
  );
}

/** The line of a curve in a box of `WIDTH` by `HEIGHT`; a level one lies in the middle. */
export function pathOf({ points }: CurveView): string {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const along = (values: number[], value: number) => {
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return most > least ? (value - least) / (most - least) : 0.5;
  };
  return points.map(([x, y], index) => `${index ? "L" : "M"}${(WIDTH * along(xs, x)).toFixed(1)} ${(HEIGHT * (1 - along(ys, y))).toFixed(1)}`).join("");
}

function shown(value: number): string {
  return String(Number(value.toPrecision(4)));
}

function Samples({ title, samples }: { title: string; samples: SampleView[] }) {
  if (!samples.length) return null;
  return (
    <section aria-label={title}>
      <h2>{title}</h2>
      {samples.map((sample) => (
        <Sample sample={sample} />
      ))}
    </section>
  );
}

function Sample({ sample }: { sample: SampleView }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="card sample" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <b>{sample.trace.title}</b> <span class="faint">{sample.note}</span>
      </summary>
      {open && <TracePanel view={sample.trace} />}
    </details>
  );
}
