"""What a server with the plugin does in its HTTP process beyond stock SGLang: it looks at every
request before SGLang does, and answers chat completions with a schema, `/server_info` with a
`ServerInfo`, the tokenizer's files."""
