"""Texts, tokenizers made of them, and sizes whose every default would be wrong."""

from __future__ import annotations

import string
from pathlib import Path

TEXTS = ["This is a positive review", "This is a negative review", "Another positive text", "a very bad experience"]
QUESTION = "what is the capital of France ?"
CONTEXTS = [text := "Paris is the capital of France . the film was good", f"{text} . the text was bad"]
_CORPUS = [
    *TEXTS,
    QUESTION,
    *CONTEXTS,
    "Dies ist eine gute Rezension",
    "Questa e una cattiva esperienza",
    "Une critique",
]

LENGTH = 32
"""Of texts that are padded to a fixed length."""
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 128}
BERT = {**_SIZES, "vocab_size": 300, "max_position_embeddings": 48}
XLM_ROBERTA = {
    **_SIZES,
    "vocab_size": 256,
    "max_position_embeddings": 50,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}


def wordpiece(folder: Path) -> Path:
    """Write the vocabulary of a BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    signs = [*string.ascii_lowercase, *string.digits, *".,?!'-"]
    words = sorted({word for text in _CORPUS for word in text.lower().split() if len(word) > 1})
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *words, *(f"##{sign}" for sign in signs[:36])]
    unused = (f"[unused{number}]" for number in range(BERT["vocab_size"] - len(known)))
    path = folder / "vocab.txt"
    path.write_text("\n".join([*known, *unused]) + "\n")
    return path


def sentencepiece(folder: Path) -> Path:
    """Train the model of an XLM-RoBERTa's tokenizer."""
    import sentencepiece as trainer

    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(_CORPUS * 20))
    prefix = folder / "sentencepiece.bpe"
    trainer.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), vocab_size=120, hard_vocab_limit=False, minloglevel=2
    )
    return prefix.with_suffix(".bpe.model")
