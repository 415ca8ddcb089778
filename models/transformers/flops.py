"""FLOPs of a forward pass of the transformers: two for each multiply-add of matrix products and attention, nothing
else.
"""

from __future__ import annotations

from math import prod

from models.settings.transformers import BlockSettings, DiTSettings, TokenSettings
from models.transformers.layers.conditions import CONDITION_FEATURES, TIME_FEATURES
from models.transformers.layers.rotary import POSITION_FEATURES


def dit_flops(
    settings: DiTSettings, batch: int, grid: tuple[int, int, int], text_tokens: int = 0, kept: int | None = None
) -> int:
    """FLOPs of a `DiT` over a grid of tokens; see `DiT.flops`."""
    width, tokens = settings.width, prod(grid)
    left = tokens if kept is None else kept
    values = settings.channels * prod(settings.patch)
    time = 2 * width * (TIME_FEATURES + width)
    head = 4 * width * width + 2 * left * width * values
    mixer = settings.mixer_depth * _block(settings, grid, text_tokens, settings.attention)
    blocks = settings.depth * _block(settings, grid if kept is None else (1, 1, kept), text_tokens, settings.attention)
    each = time + _context(settings, text_tokens) + 2 * tokens * values * width + mixer + blocks + head
    return batch * each + 2 * tokens * POSITION_FEATURES * width


def token_flops(settings: TokenSettings, batch: int, tokens: int, text_tokens: int = 0) -> int:
    """FLOPs of a `TokenTransformer`; causal attention counts as if it were full."""
    width = settings.width
    head = 4 * width * width + 2 * tokens * width * settings.codes
    blocks = settings.depth * _block(settings, (1, 1, tokens), text_tokens, "full")
    return batch * (_context(settings, text_tokens) + blocks + head) + 2 * tokens * POSITION_FEATURES * width


def _context(settings: BlockSettings, text_tokens: int) -> int:
    width, count = settings.width, len(settings.conditions)
    text = 2 * width * (text_tokens * (settings.text_dim + width) + width) if settings.text_dim else 0
    conditions = 2 * width * (count * CONDITION_FEATURES + count + width) if count else 0
    return text + conditions


def _block(settings: BlockSettings, grid: tuple[int, int, int], text_tokens: int, attention: str) -> int:
    width, tokens, frames = settings.width, prod(grid), grid[0]
    seen = tokens if attention == "full" else tokens // frames
    projections = 8 * tokens * width * width
    count = 12 * width * width + projections + 4 * tokens * seen * width  # modulation, attention
    if attention == "factorised" and frames > 1:
        count += 6 * width * width + projections + 4 * tokens * frames * width
    if settings.text_dim:
        words = 1 + text_tokens
        count += 4 * tokens * width * width + 4 * words * width * width + 4 * tokens * words * width
    return count + 4 * tokens * width * int(width * settings.mlp)
