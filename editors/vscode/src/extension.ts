/** Starts the language server `nprdsl lsp` for .lark files, and stops it with the editor. */

import * as vscode from "vscode";
import { LanguageClient, TransportKind } from "vscode-languageclient/node";

let client: LanguageClient | undefined;

async function start(): Promise<void> {
  const [command, ...args] = vscode.workspace
    .getConfiguration("nprdsl")
    .get<string[]>("command", ["nprdsl", "lsp"]);
  client = new LanguageClient(
    "nprdsl",
    "nprdsl",
    { command, args, transport: TransportKind.stdio },
    { documentSelector: [{ language: "lark" }] },
  );
  try {
    await client.start();
  } catch (error) {
    const way = "pip install 'nprdsl[studio]', or name the program in the setting nprdsl.command";
    void vscode.window.showErrorMessage(`nprdsl: cannot start ${command}: ${String(error)}; ${way}`);
  }
}

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  context.subscriptions.push(
    vscode.commands.registerCommand("nprdsl.restart", async () => {
      await deactivate();
      await start();
    }),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await client?.stop().catch(() => undefined);
  client = undefined;
}
