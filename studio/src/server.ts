// What the page asks its server: questions about a schema, and runs, whose messages come one by one.
import type { ExportView, LanesView, Run, SchemaView, TraceRow, TraceRowsView, TraceView } from "./model";

export type Span = [number, number, number, number]; // line, column, end line, end column, from 1

export interface Fault {
  code: string;
  message: string;
  suggestion: string;
  span: Span;
  here: boolean;
  fix: { span: Span; text: string } | null;
}

export interface Answer {
  faults?: Fault[];
  view?: SchemaView;
  exports?: ExportView[];
  span?: Span;
  says?: string;
  rows?: TraceRowsView;
  trace?: TraceView;
  words?: { text: string; kind: string; says: string }[];
  late?: string;
  failed?: string;
  skipped?: boolean;
}

export interface RunEvent {
  kind: "token" | "fork" | "branch_end" | "join" | "end";
  branch: number;
  parent: number;
  children: number[];
  labels: string[];
  tokens: number[];
  text: string;
  forced: boolean;
  rule: string;
  reason: string;
}

export interface LiveView {
  lanes: LanesView;
  tails: string[];
}

export type Message =
  | { kind: "event"; data: RunEvent }
  | { kind: "live"; data: LiveView }
  | { kind: "trace"; data: TraceView }
  | { kind: "refused"; data: { message: string } };

export interface RunRequest {
  schema_text: string;
  schema_name: string;
  prompt: string;
  seed: number;
  temperature: number;
  max_tokens: number;
  parallel: boolean;
}

export interface Start {
  kind: "studio";
  version: 1;
  model: string;
  schemas: { name: string; text: string; prompt: string }[];
  first: number;
  files: string[];
  token: string;
}

export type { Run };

const GONE = "the server does not answer: start `nprdsl studio` again, and open the address that it prints";
let token = "";

/** Says what this page sends with all that it asks. */
export function present(given: string): void {
  token = given;
}

async function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    const headers = { "content-type": "application/json", "x-nprdsl-studio": token };
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    throw signal?.aborted ? error : new Error(GONE);
  }
  if (!response.ok) throw new Error(((await response.json()) as { error: string }).error);
  return response;
}

export interface Question {
  ask: string;
  text: string;
  line?: number;
  column?: number;
  file?: string;
  row?: TraceRow;
}

const page = Math.random().toString(36).slice(2); // this page, among those of one server

export async function ask(question: Question): Promise<Answer> {
  return (await post("/studio/ask", { ...question, page })).json() as Promise<Answer>;
}

export async function run(request: RunRequest, signal: AbortSignal, heed: (message: Message) => void): Promise<void> {
  const response = await post("/studio/run", request, signal);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  const parse = messageParser(heed);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      parse(value);
    }
  } catch (error) {
    throw signal.aborted ? error : new Error(GONE);
  }
}

/** Takes pieces of a stream of server-sent events, wherever they are cut. */
export function messageParser(heed: (message: Message) => void): (piece: string) => void {
  let rest = "";
  return (piece) => {
    const parts = (rest + piece).split("\n\n");
    rest = parts.pop()!;
    for (const part of parts) {
      const [event, data] = part.split("\n");
      heed({ kind: event.slice("event: ".length), data: JSON.parse(data.slice("data: ".length)) } as Message);
    }
  };
}
