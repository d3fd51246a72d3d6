"""How both engines draw a token: masks on logits, penalties, the sampler, uniform numbers."""
