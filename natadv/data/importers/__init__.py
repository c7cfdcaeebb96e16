"""The formats that can be imported; each importer is loaded only when it is used.

To add a format, write a function that makes a DatasetPlan from an ImportRequest, and add a row.
"""

from __future__ import annotations

from natadv.data.importers.format import Checksum, Format

_IMAGENET_TERMS = "non-commercial research and education, under the terms of image-net.org"
_IMAGENET_ACCESS = """\
# register at https://image-net.org/download-images and accept its terms (it is gated), then put
# ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into fixtures/sources
# or of the hub, without the stage: accept the terms of ILSVRC/imagenet-1k there, then
# hf download ILSVRC/imagenet-1k --repo-type dataset --include 'data/validation-*' \
--local-dir fixtures/sources/imagenet-hub
# natadv data import imagenet fixtures/sources/imagenet-hub"""
_RTA_URL = "https://github.com/azuma164/Defense-Prefix/raw/main/rta100.zip"
_IMAGENET_A_URL = "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar"
_VQA_URL = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
_VQA_ACCESS = f"""\
dvc import-url {_VQA_URL}/v2_Questions_Val_mscoco.zip \
fixtures/sources/v2_Questions_Val_mscoco.zip
dvc import-url {_VQA_URL}/v2_Annotations_Val_mscoco.zip \
fixtures/sources/v2_Annotations_Val_mscoco.zip
dvc import-url http://images.cocodataset.org/zips/val2014.zip fixtures/sources/val2014.zip"""
_PHRASECUT_ACCESS = """\
git clone https://github.com/ChenyunWu/PhraseCutDataset ../PhraseCutDataset
(cd ../PhraseCutDataset && python download_dataset.py -s test)
cp ../PhraseCutDataset/data/VGPhraseCut_v0/refer_test.json fixtures/sources/refer_test.json
cp -r ../PhraseCutDataset/data/VGPhraseCut_v0/images fixtures/sources/phrasecut-images"""
_SCAM_ACCESS = """\
# accept its terms at https://huggingface.co/datasets/BLISS-e-V/SCAM if asked to
hf download BLISS-e-V/SCAM --repo-type dataset --local-dir fixtures/sources/scam"""


def _scam(name: str, variant: str, *, help: str) -> Format:
    return Format(
        help=help,
        planner=f"natadv.data.importers.scam:plan_{variant}",
        takes=("templates",),
        name=name,
        rows=1_162,
        licence="CC-BY-NC-4.0",
        source="https://huggingface.co/datasets/BLISS-e-V/SCAM",
        access=_SCAM_ACCESS,
    )


FORMATS: dict[str, Format] = {
    "imagefolder": Format(
        help="one folder of pictures per class",
        planner="natadv.data.importers.imagefolder:plan",
        takes=("classes", "templates"),
    ),
    "imagenet": Format(
        help="ImageNet-1k validation: its tar, a folder, or the Parquet files of the hub",
        planner="natadv.data.importers.imagenet:plan",
        takes=("labels", "templates"),
        name="imagenet",
        rows=50_000,
        licence=_IMAGENET_TERMS,
        source="https://image-net.org/challenges/LSVRC/2012",
        access=_IMAGENET_ACCESS,
        published={
            "ILSVRC2012_img_val.tar": Checksum("md5", "29b22e2961454d5413ddabcf34fc5622"),
            "ILSVRC2012_devkit_t12.tar.gz": Checksum("md5", "fa75699e90414af021442c21a62c3abf"),
        },
    ),
    "imagenet-a": Format(
        help="ImageNet-A: its tar, or the folder in it",
        planner="natadv.data.importers.imagenet:plan_natural",
        takes=("templates",),
        name="imagenet-a",
        rows=7_500,
        licence="MIT for the collection; the pictures keep the licences of where they were found",
        source=_IMAGENET_A_URL,
        access=f"dvc import-url {_IMAGENET_A_URL} fixtures/sources/imagenet-a.tar",
        published={
            "imagenet-a.tar": Checksum(
                "sha256", "3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e"
            )
        },
    ),
    "rta-100": Format(
        help="RTA-100: its zip, or a folder of label=..._text=... pictures",
        planner="natadv.data.importers.rta_100:plan",
        takes=("templates",),
        name="rta-100",
        rows=1_000,
        licence="MIT for the repository; no terms are stated for the pictures",
        source="https://github.com/azuma164/Defense-Prefix",
        access=f"dvc import-url {_RTA_URL} fixtures/sources/rta100.zip",
        published={"rta100.zip": Checksum("git-blob", "8f690a36cb308e4ae6def6d0ece41cfc8000697c")},
    ),
    "phrasecut": Format(
        help="PhraseCut: refer_<split>.json, and its pictures",
        planner="natadv.data.importers.phrasecut:plan",
        takes=("images", "templates"),
        needs=("images",),
        name="phrasecut",
        rows=14_354,
        licence="no terms are stated for the phrases; pictures of Visual Genome, CC BY 4.0",
        source="https://github.com/ChenyunWu/PhraseCutDataset",
        access=_PHRASECUT_ACCESS,
    ),
    "vqa-v2": Format(
        help="VQA v2: the zip of questions, the zip of annotations, and the pictures of COCO",
        planner="natadv.data.importers.vqa_v2:plan",
        takes=("annotations", "images"),
        needs=("annotations", "images"),
        name="vqa-v2",
        rows=214_354,
        licence="annotations CC BY 4.0; pictures by the terms of COCO (Flickr)",
        source="https://visualqa.org/download.html",
        access=_VQA_ACCESS,
    ),
    "scam": _scam(
        "scam",
        "attacked",
        help="SCAM: photographs with a handwritten wrong word (Parquet files of the hub)",
    ),
    "scam-clean": _scam(
        "scam-clean", "clean", help="SCAM: the clean twins of `scam`, whose word was removed"
    ),
    "scam-synth": _scam(
        "scam-synth", "synthetic", help="SCAM: the twins whose word was typed anew"
    ),
    "parquet": Format(
        help="Parquet files of the `datasets` library with a picture and a class label",
        planner="natadv.data.importers.parquet:plan",
        takes=("image_column", "label_column", "id_column", "split", "templates"),
    ),
}
