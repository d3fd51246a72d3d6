"""What a server with the plugin answers over HTTP beyond stock SGLang: chat completions with a
schema, `/server_info` with a `ServerInfo`, the tokenizer's files."""
