"""CLIP_benchmark on a folder of JPEG files, as a process of its own.

    python benchmarks/clip_benchmark_command.py SHAPE CHECKPOINT FOLDER THREADS WORKERS

Its evaluate() in two steps: the scores that it adds fail under NumPy 2.4.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import open_clip
import torch
from clip_benchmark.metrics import zeroshot_classification
from PIL import Image

BATCH = 64
"""What its command takes by default."""


class JpegFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """As it reads an image folder: file, transform, label."""

    def __init__(self, folder, labels, transform) -> None:
        self.folder, self.labels, self.transform = folder, list(labels.items()), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        name, label = self.labels[index]
        return self.transform(Image.open(self.folder / name).convert("RGB")), label


shape, checkpoint, folder, threads, workers = sys.argv[1:]
torch.set_num_threads(int(threads))
facts = json.loads(Path(f"{folder}.json").read_text())
model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
model.eval()
loader = torch.utils.data.DataLoader(
    JpegFiles(Path(folder), facts["labels"], transform),
    batch_size=BATCH,
    num_workers=int(workers),
)
classifier = zeroshot_classification.zero_shot_classifier(
    model,
    open_clip.get_tokenizer(shape),
    facts["classes"],
    [facts["template"].replace("{}", "{c}")],
    "cpu",
    amp=False,
)
logits, target = zeroshot_classification.run_classification(
    model, classifier, loader, "cpu", amp=False
)
print(f"top1 {(logits.argmax(dim=1) == target).float().mean():.4f} of {len(target)}")
