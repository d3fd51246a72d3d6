// A sentence of the library, in which names stand in backticks.
export function Said({ text }: { text: string }) {
  return <>{text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? <code>{part}</code> : part))}</>;
}
