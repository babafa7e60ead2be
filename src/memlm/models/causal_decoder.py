"""The causal decoder: a Hugging Face causal language model, fresh, pretrained or our own, that reads embeddings."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor, nn

from memlm import config
from memlm.models.hidden_states import explained
from memlm.models.load_pretrained import load_causal, only_shapes
from memlm.models.pretrained import max_positions, plain_head, reads_embeddings
from memlm.nn.insertion import Context
from memlm.nn.linear import to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.runtime.cpu import attend_in_fp32

_SILENT = ("o_proj.weight", "down_proj.weight", "c_proj.weight")
"""Maps into the residual stream, which start at zero as in our own stacks."""


class CausalDecoder(nn.Module):
    """Base of the causal decoders: transformers' states, logits and generation, from embeddings.

    Each is built of its configuration, the vocabulary's size, and, where every layer cross-attends to memories, the
    longest text. A state dict holds the trained tensors under the Hugging Face model's names; loading one leaves the
    others as they are.
    """

    hf: Any
    """The Hugging Face model."""
    dim: int
    """Width of embeddings and states."""
    embedding_rms: float
    """Root mean square of token embeddings."""
    max_positions: int = sys.maxsize
    """The longest input, soft prompt included."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf
        self.dim = hf.get_input_embeddings().embedding_dim
        self.register_state_dict_post_hook(_leave_out_untrained)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_fill_in_untrained)  # type: ignore[no-untyped-call]
        self.requires_grad_(True)

    def is_trained(self, name: str) -> bool:
        """Whether the Hugging Face model's tensor of this name is trained."""
        return True

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As for any module, but of trained tensors only; the others stay frozen."""
        for name, parameter in self.hf.named_parameters():
            parameter.requires_grad_(requires_grad and self.is_trained(name))
        return self

    def embed(self, tokens: Int[Tensor, "row token"]) -> Hidden:
        """Input embeddings, without positions."""
        return self.hf.get_input_embeddings()(tokens)

    def as_inputs(self, vectors: Hidden) -> Hidden:
        """Vectors that are not token embeddings, scaled for the decoder; one trained from scratch reads any scale."""
        return vectors

    @property
    def head(self) -> nn.Module:
        """The map from states to logits."""
        head: nn.Module = self.hf.get_output_embeddings()
        return head

    def states(self, inputs: Hidden, context: Context) -> Hidden:
        """Causal hidden states [row token dim] of inputs after a context."""
        given = self._after(inputs, context)
        # Masked positions do not consume position ids, as in `generate`.
        given.setdefault("position_ids", (given["attention_mask"].cumsum(1) - 1).clamp_min(0))
        hidden: Hidden = self.hf.base_model(**given, use_cache=False).last_hidden_state
        return hidden[:, context.prefix.shape[1] :]

    def attentions(self, inputs: Hidden, context: Context) -> Sequence[Tensor]:
        """What each layer's heads attend to [row head query key], from the context's first position on."""
        weights: Sequence[Tensor] = self.hf.base_model(
            **self._after(inputs, context), output_attentions=True
        ).attentions
        return weights

    def remember(self, prefix: Hidden, state: Any = None) -> Any:
        """What the decoder keeps of a soft prompt that comes after `state`, of one size for any length, for a
        context's `state`; None of a decoder that reads its whole past for each text."""
        return None

    def generate(self, inputs: Hidden, context: Context, **options: Any) -> Int[Tensor, "row token"]:
        """New tokens after a context and inputs; `options` are those of transformers' `generate`."""
        written: Tensor = self.hf.generate(**self._after(inputs, context), **options)
        return written

    def _after(self, inputs: Hidden, context: Context) -> dict[str, Tensor]:
        """A context and inputs, as arguments of the Hugging Face model."""
        there = torch.cat([context.prefix_mask, context.prefix_mask.new_ones(inputs.shape[:2])], dim=1).long()
        # Padding takes no position; counting is for what may be too long.
        if there.shape[1] > self.max_positions and (longest := int(there.sum(1).max())) > self.max_positions:
            raise ValueError(
                f"this language model has {self.max_positions} positions, and the context and what follows it take "
                f"{longest}: give fewer or shorter memories (in training, set model.window.max_memories), or a larger "
                "ratio"
            )
        embedded = to_compute_dtype(torch.cat([context.prefix.to(inputs.dtype), inputs], dim=1))
        given = {"inputs_embeds": embedded, "attention_mask": there, **context.cross_attention}
        if context.state is not None:
            given["past_key_values"] = context.state.fork()
        if context.ids is not None and context.next_id is not None:
            following = context.next_id[:, None] + torch.arange(inputs.shape[1], device=inputs.device)
            given["position_ids"] = torch.cat([context.ids, following], dim=1)
        return given


class ScratchCausalDecoder(CausalDecoder):
    """A Llama; or a GPT-2, which can attend to memories in every layer; initialized as our own stacks are."""

    embedding_rms = 0.35

    def __init__(self, cfg: config.DecoderConfig, vocab_size: int, cross_attention_len: int | None = None) -> None:
        options = {"vocab_size": vocab_size, "attn_implementation": _attention()}
        options |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        length = cross_attention_len
        hf = _llama(cfg, **options) if length is None else _gpt2(cfg, length, **options)
        for name, parameter in hf.named_parameters():
            if name.endswith(_SILENT):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # Conv1D, which GPT-2 is made of, has its inputs first.
                inputs = parameter.shape[0] if ".c_" in name or "q_attn" in name else parameter.shape[1]
                nn.init.normal_(parameter, std=inputs**-0.5)
        nn.init.normal_(hf.get_input_embeddings().weight, std=self.embedding_rms)
        nn.init.normal_(hf.get_output_embeddings().weight, std=0.3 * cfg.dim**-0.5)
        super().__init__(hf)


class RecurrentCausalDecoder(CausalDecoder):
    """A structured recurrent language model of our own blocks (`memlm.models.srm`)."""

    embedding_rms = 0.35

    def __init__(self, cfg: config.RecurrentDecoder, vocab_size: int, cross_attention_len: int | None = None) -> None:
        from memlm.models.srm import SrmConfig, SrmForCausalLM

        assert cross_attention_len is None, "a recurrent decoder does not attend"
        super().__init__(SrmForCausalLM(SrmConfig(vocab_size, cfg.window, asdict(cfg.stack))))
        self.max_positions = cfg.window

    def remember(self, prefix: Hidden, state: Any = None) -> Any:
        """The states of all layers (`memlm.models.srm.StateCache`); the ones before stay as they are."""
        from memlm.models.srm import StateCache

        cache = StateCache() if state is None else state.fork()
        return self.hf.base_model(inputs_embeds=to_compute_dtype(prefix), past_key_values=cache).past_key_values


class PretrainedCausalDecoder(CausalDecoder):
    """A frozen pretrained model, with LoRA adapters if the configuration has any.

    Its vocabulary is truncated to `vocab_size`, if that is given: many models have more embeddings than tokens.

    Raises:
        ValueError: there is no such model, its vocabulary or head does not fit, or the peft package is missing.
    """

    def __init__(
        self, cfg: config.PretrainedDecoder, vocab_size: int | None = None, cross_attention_len: int | None = None
    ) -> None:
        assert cross_attention_len is None, "no layer of a pretrained decoder attends to memories"
        hf = load_causal(cfg.name, cfg.revision)
        there = hf.get_input_embeddings().num_embeddings
        vocab_size = there if vocab_size is None else vocab_size
        if vocab_size > there:
            raise ValueError(f"{cfg.name} has {there} token types, not vocab_size {vocab_size}: use its own tokenizer")
        if not only_shapes() and plain_head(hf) is None:
            raise ValueError(f"{cfg.name} does more to its logits than one linear map; choose another model")
        if not only_shapes() and not reads_embeddings(hf):
            raise ValueError(
                f"{cfg.name} does not read input embeddings with a mask and positions; choose another model"
            )
        if vocab_size != there:
            hf.resize_token_embeddings(vocab_size)
        hf.set_attn_implementation(_attention())
        if cfg.lora is not None:
            if importlib.util.find_spec("peft") is None:
                raise ValueError("adapters (lora) need the peft package: pip install 'memlm[models]'")
            with explained(f"{cfg.name} takes no adapters: {{why}}; set model.decoder.lora.target_modules"):
                _add_adapters(hf, cfg.lora)
            # transformers names the folder that the model came from, which may be of a cache.
            adapters = hf.peft_config["default"]
            adapters.base_model_name_or_path, adapters.revision = cfg.name, cfg.revision
        super().__init__(hf)
        self.max_positions = max_positions(hf)
        table = self.embed(torch.arange(vocab_size, device=hf.device)).detach()
        self.embedding_rms = 1.0 if only_shapes() else float(table.square().mean().sqrt())

    def is_trained(self, name: str) -> bool:
        """Whether it belongs to an adapter."""
        return "lora_" in name

    def base_fingerprint(self) -> str:
        """A short hash of the weights that are not trained."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.hf.state_dict().items()):
            if not self.is_trained(name):
                digest.update(name.replace(".base_layer", "").encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def adapter_config(self) -> dict[str, Any] | None:
        """PEFT's configuration of the adapters, as it is in a file; None without any."""
        if not getattr(self.hf, "peft_config", None):
            return None
        values = {**self.hf.peft_config["default"].to_dict(), "inference_mode": True}
        return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}

    def as_inputs(self, vectors: Hidden) -> Hidden:
        """Vectors scaled to the root mean square of token embeddings."""
        return nn.functional.rms_norm(vectors, vectors.shape[-1:], eps=1e-8) * self.embedding_rms


DECODERS: dict[type[config.Config], Callable[..., CausalDecoder]] = {
    config.DecoderConfig: ScratchCausalDecoder,
    config.PretrainedDecoder: PretrainedCausalDecoder,
    config.RecurrentDecoder: RecurrentCausalDecoder,
}
"""Each configuration's causal decoder."""


def _add_adapters(hf: Any, cfg: config.LoraConfig) -> None:
    import peft
    from transformers.pytorch_utils import Conv1D

    adapters = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=list(cfg.target_modules) or "all-linear",
        # GPT-2's maps have their inputs first.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in hf.modules()),
    )
    hf.add_adapter(adapters)
    for module in hf.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            # Autocast takes care of types: a copy of each input in fp32 would be for nothing.
            module.cast_input_dtype_enabled = False


def _leave_out_untrained(decoder: CausalDecoder, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    inside = f"{prefix}hf."
    for key in [key for key in state if key.startswith(inside)]:
        tensor, name = state.pop(key), key.removeprefix(inside)
        if decoder.is_trained(name):
            state[prefix + name] = tensor


def _fill_in_untrained(decoder: CausalDecoder, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, tensor in decoder.hf.state_dict().items():
        if prefix + name in state:
            state[f"{prefix}hf.{name}"] = state.pop(prefix + name)
        elif not decoder.is_trained(name):
            state[f"{prefix}hf.{name}"] = tensor


def _llama(cfg: config.DecoderConfig, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    width, heads = round(cfg.mlp_ratio * cfg.dim), cfg.num_heads
    sizes = {"hidden_size": cfg.dim, "intermediate_size": width, "num_hidden_layers": cfg.num_layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 2**17}
    return LlamaForCausalLM(LlamaConfig(**sizes, **options))


def _gpt2(cfg: config.DecoderConfig, max_len: int, **options: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    width = round(1.5 * cfg.mlp_ratio * cfg.dim)  # two matrices where Llama's MLP has three: as many parameters
    sizes = {"n_positions": max_len, "n_embd": cfg.dim, "n_inner": width, "n_layer": cfg.num_layers}
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    options |= {"n_head": cfg.num_heads, "add_cross_attention": True, "tie_word_embeddings": False}
    return GPT2LMHeadModel(GPT2Config(**sizes, **no_dropout, **options))


def _attention() -> str:
    """Register our attention with transformers, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    name = "memlm"
    AttentionInterface.register(name, _attend)
    AttentionMaskInterface.register(name, _mask)
    return name


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """Transformers' mask for scaled dot-product attention [row head query key]; where it is causal, each position sees
    itself at least.

    A masked position before all others would see nothing, of which a GPU's kernels make NaN gradients.
    """
    from transformers.masking_utils import sdpa_mask

    mask: Tensor | None = sdpa_mask(*args, **options)
    crosses = getattr(options.get("mask_function"), "__name__", "") == "bidirectional_mask_function"
    if mask is None or crosses:
        return mask
    queries, keys = mask.shape[-2:]
    return mask | torch.eye(keys, dtype=torch.bool, device=mask.device)[keys - queries :]


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """Transformers' scaled dot-product attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend = partial(sdpa_attention_forward, module, attention_mask=mask, **options)
    return attend_in_fp32(attend, query, key, value)
