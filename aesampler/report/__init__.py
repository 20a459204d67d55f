"""What a corpus tells people and catalogues: the data card (`card`), the Croissant description (`croissant`), and the
page of `aesampler report` (`page`, with `tally`, `figures` and `gallery`).

Card and Croissant are made from `corpus.json` alone, but for the sums of the vocabularies; the page reads the manifest
and some samples too. None holds a clock, host or absolute path: equal corpora have equal cards and pages.
"""
