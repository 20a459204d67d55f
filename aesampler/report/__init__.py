"""What a corpus tells people and catalogues: the data card (`card`) and the Croissant description (`croissant`).

Both are made from `corpus.json` alone, but for the sums of the vocabularies, and hold no clock, host or absolute path:
equal corpora have equal cards.
"""
