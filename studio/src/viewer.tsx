// The page that is a file: it shows the one view that stands in it.
import { render } from "preact";
import type { View } from "./model";
import { ReportPanel } from "./report";
import { SchemaPanel } from "./schema";
import "./style.css";
import { ThemeButton } from "./theme";
import { TracePanel } from "./trace";

export function Viewer({ view }: { view: View }) {
  return (
    <main class="page">
      <header class="top">
        <h1>{view.title}</h1>
        {view.kind === "trace" && <span class="chip">a trace of {view.schema_name}</span>}
        {view.kind === "schema" && <span class="chip">a schema</span>}
        {view.kind === "report" && <span class="chip">a report</span>}
        <span class="grow" />
        <ThemeButton />
      </header>
      {view.kind === "trace" && <TracePanel view={view} />}
      {view.kind === "schema" && <SchemaPanel view={view} />}
      {view.kind === "report" && <ReportPanel view={view} />}
    </main>
  );
}

const given = document.getElementById("view");
const app = document.getElementById("app");
if (given && app) render(<Viewer view={JSON.parse(given.textContent ?? "") as View} />, app);
