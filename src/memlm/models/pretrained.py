"""Pretrained transformers, causal or not, as `LayeredModel`s; sentence-transformers models among them."""

import copy
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm.models.hidden_states import HiddenStates, same, some_tokens
from memlm.models.layered import seeded
from memlm.nn.mixers import Hidden, Mask, Tokens

_MAX_LOGITS = 2**25
# What differs between two copies of one model.
_NO_FACTS = ("transformers_version", "dtype", "torch_dtype")


class PretrainedModel(nn.Module):
    """A frozen transformer without its head; a `LayeredModel`.

    Special tokens stand right before a text and right after its last real token. States are those of Hugging Face's
    `output_hidden_states`: the last layer's is normalized, where the model has a final norm.
    """

    body: Any
    head: Any
    prefix: Int[Tensor, "prefix"]
    suffix: Int[Tensor, "suffix"]

    def __init__(
        self, body: nn.Module, special: tuple[list[int], list[int]], *, name: str, head: nn.Module | None = None
    ) -> None:
        """Wrap a body in fp32, with the ids of the special tokens before and after a text.

        Raises:
            ValueError: the body has weights that are not finite, or its states cannot be had from token embeddings.
        """
        super().__init__()
        self.body, self.head, self.name = body, head, name
        self.requires_grad_(False).eval()
        self.body.config.use_cache = False
        self.register_buffer("prefix", torch.tensor(special[0], dtype=torch.long), persistent=False)
        self.register_buffer("suffix", torch.tensor(special[1], dtype=torch.long), persistent=False)
        self.num_prefix, self.num_suffix = len(special[0]), len(special[1])
        self.max_len = max_positions(body) - self.num_prefix - self.num_suffix
        for parameter_name, parameter in self.named_parameters():
            if not parameter.isfinite().all():
                raise ValueError(f"{name} has weights that are not finite, in {parameter_name}; get the model anew")
        with torch.no_grad():
            self._states = HiddenStates(body, name)
        self.num_layers, self.dim, self.causal = self._states.num_layers, self._states.dim, self._states.causal

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever happens to the module this one is part of."""
        return super().train(False)

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""
        embedding = self.body.get_input_embeddings()
        if type(embedding) is nn.Embedding:
            return embedding.weight.detach()
        # Some models scale what they look up.
        return self.embed_tokens(torch.arange(len(embedding.weight), device=self.prefix.device)[None])[0]

    def embed_tokens(self, tokens: Tokens) -> Hidden:
        """Input embeddings [batch token dim], without positions and special tokens."""
        return self.body.get_input_embeddings()(tokens)

    def states(self, embedded: Hidden, mask: Mask, layers: Sequence[int]) -> list[Hidden]:
        """Hidden states [batch, num_prefix + token + num_suffix, dim] at these layers; no layer above them is run.

        `embedded` [batch token dim] is the text's, and `mask` [batch token] must be right padding.

        Raises:
            ValueError: the text is longer than `max_len`, the mask is no right padding, or there is no such layer.
        """
        if embedded.shape[1] > self.max_len:
            raise ValueError(f"{self.name} reads at most {self.max_len} tokens, not {embedded.shape[1]}: shorten texts")
        if unknown := [layer for layer in layers if not 0 <= layer <= self.num_layers]:
            raise ValueError(f"{self.name} has no layer {unknown[0]}: layers are 0 to {self.num_layers}")
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("the mask has real tokens after padding; padding must be on the right")
        dtype = self.body.get_input_embeddings().weight.dtype
        before, after = (self.embed_tokens(ids[None])[0] for ids in (self.prefix, self.suffix))
        sequence, attended = self._with_special(embedded.to(dtype), before, after, mask)
        return self._states(sequence, attended.long(), layers)

    @torch.no_grad()
    def next_token_nats(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "batch token"]:
        """Cross-entropy in nats of each token given the text before it.

        NaN at padding, and at the first token unless a special token stands before it.

        Raises:
            ValueError: this is no causal language model with a plain head; or as `states`.
        """
        if self.head is None or not self.causal:
            raise ValueError(
                f"{self.name} has no next-token probabilities: it needs a checkpoint of a causal model with a "
                "language-model head that is one linear map"
            )
        hidden = self.states(self.embed_tokens(tokens), mask, [self.num_layers])[0]
        first = 0 if self.num_prefix else 1
        begin, end = self.num_prefix + first - 1, self.num_prefix + tokens.shape[1] - 1
        real, rows = mask[:, first:], max(1, _MAX_LOGITS // len(self.head.weight))
        states, targets = (torch.split(part[real], rows) for part in (hidden[:, begin:end], tokens[:, first:].long()))
        logits = (self.head(part).float() for part in states)
        nats = torch.full(tokens.shape, torch.nan, device=tokens.device)
        costs = [F.cross_entropy(*both, reduction="none") for both in zip(logits, targets, strict=True)]
        nats[:, first:][real] = torch.cat(costs)
        return nats

    def untrained(self, seed: int) -> Self:
        """The same architecture as it is before training, without a head; torch's random state is left as it was."""
        return self._untrained(seed)

    def _untrained(self, seed: int, **options: Any) -> Self:
        from transformers import AutoModel

        embedding = self.body.get_input_embeddings().weight
        with seeded(seed):
            body = AutoModel.from_config(self.body.config, dtype=torch.float32)
        special = (self.prefix.tolist(), self.suffix.tolist())
        model = type(self)(body, special, name=f"{self.name} untrained {seed}", **options)
        return model.to(embedding.device, embedding.dtype)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with weights, precision, architecture and special tokens."""
        facts = {k: v for k, v in self.body.config.to_dict().items() if k not in _NO_FACTS and not k.startswith("_")}
        special = [self.prefix.tolist(), self.suffix.tolist()]
        digest = hashlib.sha256(json.dumps([facts, special], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def _with_special(self, text: Tensor, before: Tensor, after: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        """Vectors [batch token dim] between those of special tokens [special dim]; zero, and masked, after the end."""
        around = (special.expand(len(text), *special.shape) for special in (before, after))
        pieces = torch.cat([next(around), text, next(around)], dim=1)
        ends = mask.sum(1, keepdim=True) + self.num_prefix
        place = torch.arange(pieces.shape[1], device=text.device).expand(len(text), -1)
        # What follows a row's last real token is first the suffix, which `pieces` has at its very end.
        source = torch.where(place < ends, place, place - ends - self.num_suffix + pieces.shape[1])
        attended = place < ends + self.num_suffix
        source = torch.where(attended, source, 0)[..., None].expand_as(pieces)
        return torch.where(attended[..., None], pieces.gather(1, source), 0), attended


@torch.no_grad()
def plain_head(model: Any) -> nn.Module | None:
    """The head, if all it does is one linear map (some models scale or cap their logits besides)."""
    head, ids = model.eval().get_output_embeddings(), some_tokens(model.base_model)
    if head is None or not same(head(model.base_model(input_ids=ids).last_hidden_state), model(input_ids=ids).logits):
        return None
    return head


@torch.no_grad()
def reads_embeddings(model: Any) -> bool:
    """Whether states can be had from input embeddings and position ids, and depend on no masked and no later input."""
    body, ids = model.eval().base_model, some_tokens(model.base_model)
    expected = body(input_ids=ids).last_hidden_state
    # One that is masked stands before the others.
    embedded = model.get_input_embeddings()(torch.cat([ids[:, -1:], ids], dim=1))
    there = torch.ones_like(ids[:, :1]).expand(1, embedded.shape[1]).cumsum(1) - 1
    given = {"attention_mask": there.clamp_max(1), "position_ids": (there - 1).clamp_min(0)}
    try:
        states = [
            body(inputs_embeds=embedded[:, :end], **{name: each[:, :end] for name, each in given.items()})
            for end in (2, embedded.shape[1])
        ]
    except (KeyError, TypeError, ValueError, AttributeError, NotImplementedError):
        return False
    found = [each.last_hidden_state[:, 1:] for each in states]
    # With a mask, some kernels sum in another order.
    return all(same(each, expected[:, : each.shape[1]], 1e-3) for each in found)


def max_positions(model: Any) -> int:
    """How many tokens a model has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    # RoBERTa and its kin leave the first positions unused, up to their padding's.
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    unused = max(
        (1 + table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), default=0
    )
    return positions - unused if positions and positions > 0 else sys.maxsize


class SentenceModel(PretrainedModel):
    """A sentence-transformers model: also has one vector for a whole text."""

    def __init__(self, *body: Any, name: str, pooling: Sequence[nn.Module], max_sentence_len: int) -> None:
        """Wrap a body and the library's modules after it; the longest text they were made for, special tokens included.

        Raises:
            ValueError: as for any `PretrainedModel`.
        """
        super().__init__(*body, name=name)
        self.pooling = nn.ModuleList(pooling).requires_grad_(False).eval()
        self.max_sentence_len = min(self.max_len, max_sentence_len - self.num_prefix - self.num_suffix)

    def untrained(self, seed: int) -> Self:
        """The model as it is before training: the transformer, and any layers with weights that come after it."""
        pooling = copy.deepcopy(self.pooling)
        with seeded(seed):
            for module in pooling.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.reset_parameters()
        longest = self.max_sentence_len + self.num_prefix + self.num_suffix
        return self._untrained(seed, pooling=list(pooling), max_sentence_len=longest)

    def sentence_embedding(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "batch dim"]:
        """What `SentenceTransformer.encode` gives for these tokens; special tokens are put around them here.

        Raises:
            ValueError: the text is longer than `max_sentence_len`, where `encode` would truncate it; or as `states`.
        """
        if tokens.shape[1] > self.max_sentence_len:
            raise ValueError(
                f"{self.name} embeds at most {self.max_sentence_len} tokens, not {tokens.shape[1]}: shorten texts"
            )
        with torch.no_grad():
            return self.pooled(self.states(self.embed_tokens(tokens), mask, [self.num_layers])[0], tokens, mask)

    def pooled(self, hidden: Hidden, tokens: Tokens, mask: Mask) -> Float[Tensor, "batch dim"]:
        """One vector of each text's last states, special tokens' included."""
        ids, attended = self._with_special(tokens[..., None], self.prefix[:, None], self.suffix[:, None], mask)
        features: dict[str, Any] = {
            "input_ids": ids[..., 0],
            "attention_mask": attended.long(),
            "token_embeddings": hidden,
        }
        for module in self.pooling:
            features = module(features)
        return features["sentence_embedding"]
