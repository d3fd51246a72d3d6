// The branches of a generation while it runs, from its events: what each has written, and where it
// forked.
import type { RunEvent } from "./server";

export interface Branch {
  title: string;
  tint: number;
  items: Item[];
  tokens: number;
  ended: string;
}

export type Item = { text: string; forced: boolean } | { children: Branch[]; joined: boolean };

export class Live {
  readonly root: Branch = { title: "", tint: -1, items: [], tokens: 0, ended: "" };
  tokens = 0;
  private readonly branches = new Map<number, Branch>([[0, this.root]]);

  follow(event: RunEvent): void {
    switch (event.kind) {
      case "token": {
        const branch = this.branches.get(event.branch)!;
        branch.tokens += event.tokens.length;
        this.tokens += event.tokens.length;
        const last = branch.items.at(-1);
        if (last && "text" in last && last.forced === event.forced) last.text += event.text;
        else branch.items.push({ text: event.text, forced: event.forced });
        break;
      }
      case "fork": {
        const parent = this.branches.get(event.parent)!;
        const children = event.children.map((number, index): Branch => {
          const branch = { title: `${event.rule} ${event.labels[index]}`, tint: (Math.max(0, parent.tint) + index) % 6, items: [], tokens: 0, ended: "" };
          this.branches.set(number, branch);
          return branch;
        });
        parent.items.push({ children, joined: false });
        break;
      }
      case "branch_end":
        this.branches.get(event.branch)!.ended = event.reason;
        break;
      case "join": {
        const last = this.branches.get(event.parent)!.items.at(-1);
        if (last && "children" in last) last.joined = true;
        break;
      }
      case "end":
        this.root.ended = event.reason;
    }
  }

  /** How many branches are being written. */
  get live(): number {
    return count(this.root);
  }
}

function count(branch: Branch): number {
  if (branch.ended) return 0;
  const last = branch.items.at(-1);
  if (last && "children" in last && !last.joined) return last.children.reduce((sum, child) => sum + count(child), 0);
  return 1;
}
