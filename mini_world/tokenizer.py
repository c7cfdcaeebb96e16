"""A small tokenizer of the mini world's own: any text encodes, its own words are one token each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from mini_world.backgrounds import BACKGROUNDS
from mini_world.captions import NAMING, PLAIN, TEMPLATES
from mini_world.gestures import GESTURES
from mini_world.scene import NUMBERS
from mini_world.vocabulary import CLASSES, CLOTHING, COLOURS
from mini_world.weather import WEATHERS
from natadv.langadv.word_space import plural

CONTEXT = 32
PAD, START, UNKNOWN, END = "<|pad|>", "<|startoftext|>", "<|unknown|>", "<|endoftext|>"
# END must not have id 2: transformers then pools at the highest id instead.
SPECIAL = (PAD, START, UNKNOWN, END)
PAD_ID = SPECIAL.index(PAD)


def make_tokenizer() -> Any:
    """Byte-level BPE over everything that captions can say."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    start, end = (tokenizer.token_to_id(token) for token in (START, END))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PAD,
        model_max_length=CONTEXT,
        padding_side="right",
    )


def _corpus() -> Iterable[str]:
    # With and without the leading space, for a word can open a text.
    yield from (template.format("") for template in (*TEMPLATES, *NAMING, PLAIN, "an {}"))
    yield from CLASSES
    yield from (plural(name) for name in CLASSES)
    yield from (*COLOURS, *CLOTHING, *NUMBERS.values(), "wearing")
    for table in (BACKGROUNDS, WEATHERS, GESTURES):
        yield from (row.words for row in table.values())
