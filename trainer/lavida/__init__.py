"""lavida: the trainer and the detectors that stand on aesampler's corpora (LAVIDA, arXiv 2602.19248).

The path, and the file to open for each step:

    corpus (aesampler.Stream)
      -> Batch              data/ (prompts.py, collate.py)         prompts, both image sizes, targets
      -> compressed tokens  model/compress.py                      the densest visual tokens (eq. 3-4)
      -> LavidaModel        model/lavida.py                        MLLM, category text, projector, SAM 2 (eq. 5-9)
      -> checkpoint         training/ (train.py, loss.py)          five builds and one loop (eq. 10); launching, resume
    video + names
      -> Detector           detectors/                             lavida, anyanomaly, clip, motion: frame, pixel scores
      -> Benchmark          benchmarks/ (one file a VAD set)       videos, ground truth, protocol
      -> table              metrics.py, evaluate/, ablate.py       AUC and its like beside the published numbers
      -> a user's answer    detect/, serve/                        scores, intervals, timeline, overlay

A Python session:

    model = LavidaModel.from_pretrained("runs/lavida-7b/model")             # from lavida.model import LavidaModel
    detector = load_detector("lavida", model="runs/lavida-7b/model")        # from lavida.detectors import load_detector
    frame_scores, pixel_scores = detector.score(frames, ["bicycle", "person falling"])

Importing this package imports neither torch nor ray.
"""
