"""What the token ids of a model stand for.

`Vocabulary` gives the bytes of each id, read from a tokenizer, and finds tokens by their bytes.
Above it stand the cost of a text in tokens (`spelling`) and tables of the tokens that continue
plain text (`utf8_text`); `bitmask` holds sets of allowed tokens.
"""
