// The editor of a schema: CodeMirror, with what the server says of the text as it is typed.
import { autocompletion, completionKeymap, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { EditorState, type Text } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, hoverTooltip, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { ask, type Fault, type Span } from "./server";

/** The offset of a line and a column, which count characters from 1. */
export function offsetOf(text: Text, line: number, column: number): number {
  const at = text.line(Math.max(1, Math.min(line, text.lines)));
  const before = [...at.text].slice(0, column - 1).join("").length; // an emoji is one character there
  return at.from + before;
}

export function rangeOf(text: Text, [line, column, endLine, endColumn]: Span): { from: number; to: number } {
  const from = offsetOf(text, line, column);
  return { from, to: Math.max(from, offsetOf(text, endLine, endColumn)) };
}

export function placeOf(text: Text, offset: number): { line: number; column: number } {
  const at = text.lineAt(offset);
  return { line: at.number, column: [...at.text.slice(0, offset - at.from)].length + 1 };
}

const lark = StreamLanguage.define({
  token(stream) {
    if (stream.match(/\/\/.*/)) return "comment";
    if (stream.match(/"(\\.|[^"\\])*"i?/)) return "string";
    if (stream.match(/\/(\\.|[^/\\])+\/[imslux]*/)) return "regexp";
    if (stream.match(/%[a-z]+/)) return "keyword";
    if (stream.match(/(map|process|spawn|reduce|reread)(?=\{)/)) return "keyword";
    if (stream.match(/[?!]?[a-z_][a-z0-9_]*(?=\s*(\{[^}]*\})?\s*:)/)) return "definition";
    if (stream.match(/_*[A-Z][A-Z0-9_]*/)) return "typeName";
    if (stream.match(/[a-z_][a-z0-9_]*/)) return "variableName";
    if (stream.match(/\d+/)) return "number";
    stream.next();
    return null;
  },
  tokenTable: { definition: tags.definition(tags.variableName) },
});

const colours = HighlightStyle.define([
  { tag: tags.comment, class: "cm-comment" },
  { tag: [tags.string, tags.regexp], class: "cm-string" },
  { tag: tags.keyword, class: "cm-word" },
  { tag: tags.typeName, class: "cm-terminal" },
  { tag: tags.definition(tags.variableName), class: "cm-definition" },
]);

async function complete(context: CompletionContext): Promise<CompletionResult | null> {
  const word = context.matchBefore(/%?\w*/);
  if (!context.explicit && (!word || word.from === word.to)) return null;
  const text = context.state.doc;
  const answer = await ask({ ask: "complete", text: text.toString(), ...placeOf(text, context.pos) });
  if (!answer.words?.length) return null;
  return {
    from: word ? word.from : context.pos,
    options: answer.words.map(({ text: label, kind, says }) => ({ label, detail: says || kind })),
    validFor: /^%?\w*$/,
  };
}

const hover = hoverTooltip(async (view, offset) => {
  const text = view.state.doc;
  const answer = await ask({ ask: "hover", text: text.toString(), ...placeOf(text, offset) });
  if (!answer.span || !answer.says) return null;
  const { from, to } = rangeOf(text, answer.span);
  return { pos: from, end: to, above: true, create: () => ({ dom: told(answer.says!) }) };
});

/** Markdown of the little kind that hovers are written in: fenced code, and paragraphs. */
export function told(markdown: string): HTMLElement {
  const dom = document.createElement("div");
  dom.className = "cm-told";
  for (const part of markdown.split(/```\w*\n([\s\S]*?)\n?```/).map((text, index) => ({ text: text.trim(), code: index % 2 }))) {
    if (!part.text) continue;
    const element = document.createElement(part.code ? "pre" : "p");
    element.textContent = part.code ? part.text : part.text.replace(/`/g, "");
    dom.append(element);
  }
  return dom;
}

async function goToDefinition(view: EditorView, offset: number): Promise<void> {
  const text = view.state.doc;
  const answer = await ask({ ask: "define", text: text.toString(), ...placeOf(text, offset) });
  if (answer.span) select(view, answer.span);
}

export function select(view: EditorView, span: Span): void {
  const { from, to } = rangeOf(view.state.doc, span);
  view.dispatch({ selection: { anchor: from, head: to }, scrollIntoView: true });
  view.focus();
}

export function applyFix(view: EditorView, fault: Fault): void {
  if (!fault.fix) return;
  const { from, to } = rangeOf(view.state.doc, fault.fix.span);
  view.dispatch({ changes: { from, to, insert: fault.fix.text } });
}

export function showFaults(view: EditorView, faults: Fault[]): void {
  const shown = faults
    .filter((fault) => fault.here)
    .map((fault): Diagnostic => {
      const { from, to } = rangeOf(view.state.doc, fault.span);
      const name = fault.suggestion.replace(/`/g, "") || "apply the fix";
      return {
        from,
        to: Math.max(to, Math.min(from + 1, view.state.doc.length)),
        severity: "error",
        source: fault.code,
        message: fault.message.replace(/`/g, ""),
        actions: fault.fix ? [{ name, apply: (editor) => applyFix(editor, fault) }] : [],
      };
    });
  view.dispatch(setDiagnostics(view.state, shown));
}

export function makeEditor(parent: HTMLElement, text: string, nonce: string, changed: (text: string) => void): EditorView {
  return new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      extensions: [
        EditorView.cspNonce.of(nonce),
        lineNumbers(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        bracketMatching(),
        lark,
        syntaxHighlighting(colours),
        autocompletion({ override: [complete] }),
        hover,
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-label": "The schema; Escape, then Tab, leaves it", tabindex: "0" }),
        EditorView.domEventHandlers({
          mousedown(event, view) {
            const offset = event.ctrlKey || event.metaKey ? view.posAtCoords({ x: event.clientX, y: event.clientY }) : null;
            if (offset === null) return false;
            void goToDefinition(view, offset);
            return true;
          },
        }),
        keymap.of([
          { key: "F12", run: (view) => (void goToDefinition(view, view.state.selection.main.head), true) },
          ...completionKeymap,
          ...lintKeymap,
          ...historyKeymap,
          ...defaultKeymap,
          indentWithTab,
        ]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) changed(update.state.doc.toString());
        }),
      ],
    }),
  });
}
