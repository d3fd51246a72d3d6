"""The bytes behind token ids: a vocabulary, its byte trie, and what a text costs in tokens."""
