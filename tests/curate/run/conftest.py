"""What tests of runs share: which texts and videos were encoded."""

import pytest


@pytest.fixture
def seen(monkeypatch):
    """The texts that are encoded, the empty prompt aside, and the numbers of videos that go through the VAE."""
    from stages.encode.network import Network
    from stages.text_encoders.encoder import TextEncoder

    found = {"texts": [], "videos": 0}
    texts, videos = TextEncoder.encode, Network.encode

    def count_texts(self, some):
        found["texts"] += [text for text in some if text]
        return texts(self, some)

    def count_videos(self, some):
        found["videos"] += len(some)
        return videos(self, some)

    monkeypatch.setattr(TextEncoder, "encode", count_texts)
    monkeypatch.setattr(Network, "encode", count_videos)
    return found
