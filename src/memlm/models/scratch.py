"""Causal language models of Hugging Face, freshly initialized as our own stacks are."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from memlm import config
from memlm.runtime.cpu import attend_in_fp32

EMBEDDING_RMS = 0.35
"""Root mean square of a fresh token embedding."""
_SILENT = ("o_proj.weight", "down_proj.weight", "c_proj.weight")
"""Maps into the residual stream, which start at zero as in our own stacks."""


def scratch_model(cfg: config.DecoderConfig, vocab_size: int, cross_attention_len: int | None) -> Any:
    """Llama's kind; or GPT-2's, which can attend to other states in every layer, for texts of `cross_attention_len`."""
    max_len = cross_attention_len
    model = _llama(cfg, vocab_size) if max_len is None else _gpt2(cfg, vocab_size, max_len)
    for name, parameter in model.named_parameters():
        if name.endswith(_SILENT):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            # Conv1D, which GPT-2 is made of, has its inputs first.
            inputs = parameter.shape[0] if ".c_" in name or "q_attn" in name else parameter.shape[1]
            nn.init.normal_(parameter, std=inputs**-0.5)
    nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_RMS)
    nn.init.normal_(model.get_output_embeddings().weight, std=0.3 * cfg.dim**-0.5)
    return model


def _llama(cfg: config.DecoderConfig, vocab_size: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=cfg.dim,
            intermediate_size=round(cfg.mlp_ratio * cfg.dim),
            num_hidden_layers=cfg.num_layers,
            num_attention_heads=cfg.num_heads,
            num_key_value_heads=cfg.num_heads,
            max_position_embeddings=2**17,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            attn_implementation=_attention(),
        )
    )


def _gpt2(cfg: config.DecoderConfig, vocab_size: int, max_len: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=max_len,
            n_embd=cfg.dim,
            # Two matrices where Llama's MLP has three: as many parameters.
            n_inner=round(1.5 * cfg.mlp_ratio * cfg.dim),
            n_layer=cfg.num_layers,
            n_head=cfg.num_heads,
            add_cross_attention=True,
            tie_word_embeddings=False,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation=_attention(),
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _attention() -> str:
    """Register our attention with transformers, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    name = "memlm"
    AttentionInterface.register(name, _attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """Transformers' scaled dot-product attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend = partial(sdpa_attention_forward, module, attention_mask=mask, **options)
    return attend_in_fp32(attend, query, key, value)
