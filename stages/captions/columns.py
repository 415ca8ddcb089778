"""The columns of the table `captions`: each caption with its audit, and what made it."""

from __future__ import annotations

from collections.abc import Sequence

from stages.base import Column

LANGUAGE = (
    "ISO code by [py3langid](https://github.com/adbar/py3langid); NULL where its confidence is under 0.35, as for most "
    "texts of two words"
)
REPETITION = (
    "share of word triples that stood in the text before (seq-rep-3 of Welleck et al. 2020): 0 in good captions, near "
    "1 in a loop"
)
TRUNCATED = (
    "the model was cut off, or the text stops inside a sentence (a phrase of under 20 words without a full stop does "
    "not count)"
)
REFUSAL = 'words by which a model declines ("i\'m sorry"), else NULL. English phrases'
BOILERPLATE = (
    'first phrase about the picture instead of what is in it ("the video shows", "in this image"), else NULL. English '
    "phrases"
)


def caption_columns(captions: Sequence[str], match: bool) -> dict[str, Column]:
    """The columns of captions that are called so, and with `match` those of how well they fit the frames."""
    found: dict[str, Column] = {}
    for caption in captions:
        found |= {
            caption: Column("string", "the text", also=("description", "text") if caption == "caption" else ()),
            f"{caption}_words": Column("int32", "words; a Chinese or Japanese character counts as one"),
            f"{caption}_language": Column("string", LANGUAGE),
            f"{caption}_repetition": Column("double", REPETITION, "0 to 1"),
            f"{caption}_truncated": Column("bool", TRUNCATED),
            f"{caption}_refusal": Column("string", REFUSAL),
            f"{caption}_boilerplate": Column("string", BOILERPLATE),
            f"{caption}_source": Column("string", "`manifest`, `model` or `server`"),
            f"{caption}_prompt": Column("string", "hash of the prompt's template"),
        }
        if match:
            meaning = "with `match`: mean cosine of the CLIP embeddings of text and frames"
            found[f"{caption}_clip_match"] = Column("double", meaning, "-1 to 1")
    if match:
        found["caption_match_model"] = Column("string", "with `match`: name of the CLIP model")
        found["caption_match_revision"] = Column("string", "with `match`: hash of its loaded weights")
    return found | {
        "caption_seed": Column("int64", "seed that a model was given"),
        "model": Column("string", "name of the model that gave the captions"),
        "revision": Column("string", "hash of local weights, the hub's commit, or what the server says of itself"),
    }
