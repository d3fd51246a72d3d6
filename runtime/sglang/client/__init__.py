"""The side of SGLang that asks: an engine over HTTP, for servers with the plugin and without."""
