"""A pretrained causal language model as a reader of embeddings: it knows the language already, and learns to look."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.batch import Batch
from memlm.models.causal_decoder import PretrainedCausalDecoder
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.insertion import Context
from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.mixers import Hidden, Mask, Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import precision_on

_HIDDEN_DIM = 1024


class LanguageReader(nn.Module):
    """A frozen language model with LoRA, and two ways for an embedding into it.

    A small network makes a soft prompt of the embedding, which all layers attend to. A linear map, the hint, is added
    to each state before the head: it says which words the text has, and is learned first (`Words`), from as many pairs
    as there are, at a hundredth of the cost. The soft prompt alone is ignored for long (`docs/log.md`).

    Raises:
        ValueError: as `PretrainedCausalDecoder`.
    """

    begin: Int[Tensor, "1 position"]

    def __init__(self, cfg: config.PretrainedReader, width: int, begin: Sequence[int], device: torch.device) -> None:
        """`width` are an embedding's numbers, over all of its slots; tokens `begin` stand before every text."""
        super().__init__()
        lora = config.LoraConfig(rank=cfg.rank, alpha=2 * cfg.rank)
        self.decoder = PretrainedCausalDecoder(config.PretrainedDecoder(name=cfg.model, lora=lora))
        if precision_on(device) == "bf16":  # what is frozen need not be cast in every step
            for name, parameter in self.decoder.hf.named_parameters():
                if not self.decoder.is_trained(name):
                    parameter.data = parameter.data.bfloat16()
        dim = self.decoder.dim
        self.prompt = nn.Sequential(linear(width, _HIDDEN_DIM), nn.GELU(), linear(_HIDDEN_DIM, cfg.num_positions * dim))
        self.positions = nn.Parameter(torch.randn(cfg.num_positions, dim))
        self.hint = nn.Linear(width, dim)
        nn.init.zeros_(self.hint.weight)
        nn.init.zeros_(self.hint.bias)
        self.gate = nn.Linear(dim, 1)
        self.register_buffer("begin", torch.tensor([begin], dtype=torch.long), persistent=False)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors) -> Float[Tensor, "row token"]:
        """Nats of each token given the embedding and the tokens before it; 0 at the padding, which is on the right."""
        soft, hint = self._read(memory)
        inputs = torch.cat([soft[:, -1:], self.decoder.embed(tokens[:, :-1])], dim=1)
        before = soft[:, :-1]
        states = self.decoder.states(inputs, Context(before, mask.new_ones(before.shape[:2])))
        logits = self._logits(states[mask], hint.expand_as(states)[mask])
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, cross_entropy(logits, tokens[mask]))

    @torch.no_grad()
    def greedy(self, memory: MemoryVectors, num_tokens: int) -> Int[Tensor, "row token"]:
        """The likeliest token after those written before, again and again."""
        inputs, hint = self._read(memory)
        past, written = None, list[Tensor]()
        for _ in range(num_tokens):
            read = self.decoder.hf.base_model(inputs_embeds=inputs, past_key_values=past, use_cache=True)
            past = read.past_key_values
            written.append(self._logits(read.last_hidden_state[:, -1:], hint).argmax(-1))
            inputs = self.decoder.embed(written[-1])
        return torch.cat(written, dim=1)

    def _read(self, memory: MemoryVectors) -> tuple[Hidden, Float[Tensor, "row 1 dim"]]:
        """What stands before the text [row position dim], and what is added to each state."""
        flat, begin = memory.flatten(1), self.decoder.embed(self.begin)
        soft = self.decoder.as_inputs(self.prompt(flat).unflatten(-1, self.positions.shape) + self.positions)
        soft = torch.cat([begin.expand(len(flat), -1, -1), soft.to(begin.dtype)], dim=1)
        return to_compute_dtype(soft), self.hint(flat)[:, None]

    def _logits(self, states: Hidden, hint: Tensor) -> Float[Tensor, "*row vocab"]:
        return self.decoder.logits(to_compute_dtype(states + torch.sigmoid(self.gate(states.float())) * hint))


class Words(nn.Module):
    """A reader's hint alone, on top of how often tokens occur: which tokens a text has, whatever their order."""

    table: Float[Tensor, "type dim"]
    log_probs: Float[Tensor, " type"]

    def __init__(self, reader: LanguageReader, types: Int[Tensor, " type"], log_probs: Float[Tensor, " type"]) -> None:
        """Of these tokens of the language model's, in whose numbers texts are given."""
        super().__init__()
        self.hint = reader.hint
        self.register_buffer(
            "table", reader.decoder.head.get_parameter("weight").detach()[types].float(), persistent=False
        )
        self.register_buffer("log_probs", log_probs, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Summed nats of the tokens of texts, each without the others."""
        assert batch.memory is not None
        likeness = self.hint(batch.memory.flatten(1)) @ self.table.T
        nats = -(likeness.float() + self.log_probs).log_softmax(-1)
        return (nats.gather(1, batch.tokens) * batch.mask).sum()
