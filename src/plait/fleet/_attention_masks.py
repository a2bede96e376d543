"""Attention masks of transformers' models, always made whole.

Their fused attention asks whether a mask hides anything, to leave it out if not. Under vmap a mask is many
members' masks, of which nothing can be asked; so members' networks get the same attention with masks as they
are, through transformers' own register of attentions.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_NAME = "plait_whole_masks"


def unconditional(network: nn.Module) -> nn.Module:
    """The network, changed so that no model of transformers in it looks into its masks."""
    for module in network.modules():
        change: Any = getattr(module, "set_attn_implementation", None)
        if change is not None and getattr(module.config, "_attn_implementation", "") == "sdpa":
            _register()
            change(_NAME)
    return network


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def whole(*args: Any, **kwargs: Any) -> Any:
        skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(*args, **(kwargs | skips))

    AttentionInterface.register(_NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(_NAME, whole)
