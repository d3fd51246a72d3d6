"""`SGLangEngine` and its parts: an engine that sends its requests to a server over HTTP."""
