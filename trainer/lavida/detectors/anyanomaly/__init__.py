"""AnyAnomaly (WACV 2026, arXiv 2503.04504): anomalies typed as text, a vision-language model asked about each segment.

The path, and the file to open for each step:

    frames
      -> Segment           segments.py      N = 24 frames, the tail padded by its last
      -> KeyFrames         key_frames.py    the representative frame and four over the segment, by CLIP
      -> Look              contexts.py      what is shown to the model, made by CLIP:
           position        windows.py       the representative frame, dimmed where CLIP does not see the text
           temporal        grid.py          a window of the four key frames as a 2 x 2 picture
      -> questions         prompts.py       three for each segment and text, four levels of prompt
      -> answers           lvlm.py          any image-text-to-text chat model of transformers, batched
      -> scores            answers.py       the first number of an answer, or none
      -> frame scores      fusion.py        weights, the maximum over texts, smoothing inside one video
    all of it              detector.py

Nothing is trained, and by default nothing is tuned: [P] marks what the paper says, [C] its released code, [O] our own
decision. Importing this package imports no torch.
"""
