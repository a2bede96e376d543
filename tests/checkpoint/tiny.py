"""Real transformers classes, built tiny from their configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LM = {
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def _build(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        torch.manual_seed(0)
        return getattr(transformers, model)(getattr(transformers, config)(**options)).eval()

    return build


#: name → function that builds the model.
MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": _build("LlamaForCausalLM", "LlamaConfig", **LM),
    "llama_tied": _build("LlamaForCausalLM", "LlamaConfig", **LM, tie_word_embeddings=True),
    "gpt2": _build(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=96, n_embd=16, n_layer=3, n_head=4, n_positions=64
    ),
    "t5": _build(
        "T5ForConditionalGeneration",
        "T5Config",
        vocab_size=96,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
    ),
    "bert": _build(
        "BertForMaskedLM",
        "BertConfig",
        vocab_size=96,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
    ),
    "mixtral": _build("MixtralForCausalLM", "MixtralConfig", **LM, num_local_experts=4),
    "qwen_moe": _build(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        **LM,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    ),
    "clip": _build(
        "CLIPModel",
        "CLIPConfig",
        text_config={k: v for k, v in LM.items() if k != "num_key_value_heads"},
        vision_config=VISION,
        projection_dim=8,
    ),
    "vit": _build("ViTForImageClassification", "ViTConfig", **VISION, num_labels=3),
    "mamba": _build(
        "MambaForCausalLM", "MambaConfig", vocab_size=96, hidden_size=16, state_size=4, num_hidden_layers=3
    ),
    "mistral": _build("MistralForCausalLM", "MistralConfig", **LM),
    "qwen2": _build("Qwen2ForCausalLM", "Qwen2Config", **LM, tie_word_embeddings=True),
    "qwen3": _build("Qwen3ForCausalLM", "Qwen3Config", **LM, head_dim=4),
    "qwen3_moe": _build(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        **LM,
        head_dim=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
    ),
    "gemma2": _build("Gemma2ForCausalLM", "Gemma2Config", **LM, head_dim=4),
    "gemma3": _build("Gemma3ForCausalLM", "Gemma3TextConfig", **LM, head_dim=4),
    "phi3": _build("Phi3ForCausalLM", "Phi3Config", **LM),
    "gpt_neox": _build("GPTNeoXForCausalLM", "GPTNeoXConfig", **LM),
    "roberta": _build("RobertaForMaskedLM", "RobertaConfig", **LM),
    "distilbert": _build(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        vocab_size=96,
        dim=16,
        hidden_dim=24,
        n_layers=3,
        n_heads=4,
    ),
    "whisper": _build(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        vocab_size=96,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
    "llava": _build(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        text_config={"model_type": "llama", **LM},
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=5,
    ),
}
