"""The audit measures what it says, whatever the text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.captions import audit
from stages.captions.language import language

WORDS = st.lists(st.sampled_from(["red", "car", "turns", "left", "slowly", "rain", "night", "dog"]), max_size=30)
ANY_TEXT = st.text(max_size=300)


@pytest.mark.slow
@given(ANY_TEXT)
def test_every_measure_takes_every_text(text):
    assert 0 <= audit.repetition(text) < 1
    assert audit.truncated(text, "length")
    assert audit.truncated(text, None) == audit.truncated(text, "stop")
    for found in (audit.refusal(text), audit.boilerplate(text)):
        assert found is None or found
    assert all(part.strip() == part and part for part in audit.sentences(text))


@given(WORDS)
def test_words_are_counted_as_they_stand(words):
    assert audit.words(" ".join(words)) == words
    assert audit.words(", ".join(words).upper() + ".") == words


@given(st.text(alphabet="一只狗在草地上奔跑赤い車", max_size=40))
def test_a_character_of_chinese_or_japanese_counts_as_a_word(text):
    assert audit.words(text + "。") == list(text)


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=40))
def test_a_text_of_different_words_repeats_nothing(numbers):
    assert audit.repetition(" ".join(f"w{number}" for number in numbers)) == 0


@given(st.lists(st.integers(0, 99), unique=True, min_size=3, max_size=8), st.integers(2, 20))
def test_a_loop_repeats_all_but_its_first_round(numbers, rounds):
    words = [f"w{number}" for number in numbers]
    grams = len(words) * rounds - audit.NGRAM + 1
    assert audit.repetition(" ".join(words * rounds)) == pytest.approx(1 - len(words) / grams)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A red car turns left.", False),
        ("A red car turns left", False),  # a phrase, as manifests have them
        ("A red car turns left. The driver is", True),
        ("A red car turns left. The driver says: “stop!”", False),
        ("赤い車が左に曲がる。空は", True),
        ("赤い車が左に曲がる。", False),
        (" ".join(["word"] * audit.LONG), True),
        ("", False),
    ],
)
def test_a_text_that_stops_inside_a_sentence_is_cut_off(text, cut):
    assert audit.truncated(text, "stop") is cut


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m unable to view the video.",
        "As an AI language model, I do not see pictures.",
        "Please provide the image so that I can describe it.",
        "It seems that no video was provided.",
    ],
)
def test_refusals_are_found(text):
    assert audit.refusal(text)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The image shows a dog.", "the image shows"),
        ("In this video, a dog runs.", "in this video"),
        ("Sure! A dog runs.", "sure"),
        ("**Caption:** A dog runs.", "caption:"),
        ("A video of a dog.", "a video of"),
        ("A dog runs. Overall, the atmosphere is calm.", "overall, the atmosphere"),
    ],
)
def test_phrases_about_the_picture_instead_of_what_is_in_it_are_found(text, phrase):
    assert re.sub(r"\W*:$", ":", audit.boilerplate(text)) == phrase


@pytest.mark.parametrize(
    "text",
    [
        "A man is sorry for the dog, which cannot help it.",
        "A video camera stands on a tripod.",
        "A photographer shows a picture to a child.",
        "A red car turns left at the crossing; a sign says no entry.",
    ],
)
def test_plain_descriptions_are_neither_refusal_nor_boilerplate(text):
    assert audit.refusal(text) is None
    assert audit.boilerplate(text) is None


@given(ANY_TEXT, st.integers(1, 60))
def test_pieces_fit_and_lose_no_word(text, most):
    parts = audit.pieces(text, lambda part: len(part) <= most)
    assert all(len(part) <= most for part in parts)
    if len(text) <= most:
        assert parts == [text]
    # halving may cut a word that alone is too long, never drop a letter of one
    letters = re.sub(r"[\W_]", "", text)
    assert re.sub(r"[\W_]", "", "".join(parts)) in (letters, letters if audit.words(text) else "")


def test_a_text_too_long_is_taken_in_its_sentences():
    text = "A red car turns left. A dog barks! 車が曲がる。犬が吠える。"
    assert audit.pieces(text, lambda part: len(part) < 30) == [
        "A red car turns left.",
        "A dog barks!",
        "車が曲がる。",
        "犬が吠える。",
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A red car turning left", "en"),
        ("Ein Hund läuft über die Wiese", "de"),
        ("Un perro corre por el campo", "es"),
        ("一只狗在草地上奔跑", "zh"),
        ("赤い車が左に曲がる", "ja"),
        ("Красная машина поворачивает", "ru"),
        ("a dog", None),  # too short to tell: Croatian, by a hair
        ("", None),
        ("1234", None),
    ],
)
def test_languages_are_told_or_left_open(text, code):
    assert language(text) == code
