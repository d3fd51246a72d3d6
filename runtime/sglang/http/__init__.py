"""What a server with the plugin answers over HTTP: chats that name a schema, and its figures."""
