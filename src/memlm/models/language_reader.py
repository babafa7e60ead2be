"""A pretrained causal language model as a reader of embeddings: it knows the language already, and learns to look."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.batch import Batch
from memlm.models.causal_decoder import PretrainedCausalDecoder
from memlm.models.readers import token_dim
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.insertion import Context
from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.mixers import Hidden, Mask, Tokens
from memlm.nn.pooling import MemoryVectors, PositionalUnpooling
from memlm.runtime.cpu import precision_on

_HIDDEN_DIM = 1024
_DRAWN_PLACES = 2


class Hint(nn.Module):
    """What an embedding says of a text by itself: which words it has, and what stands at each place."""

    def __init__(self, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.whole = nn.Linear(shape.num_slots * shape.memory_dim, dim)
        self.places = PositionalUnpooling(config.Positional(token_dim=token_dim(shape.chunk_len)), shape, dim)
        for parameter in (self.whole.weight, self.whole.bias, self.places.widen.weight):
            nn.init.zeros_(parameter)

    def forward(self, memory: MemoryVectors, num_places: int) -> tuple[Float[Tensor, "row 1 dim"], Hidden]:
        """Of the text as a whole, and of its places; of those beyond the last, nothing."""
        placed = self.places(memory)[:, :num_places]
        return self.whole(memory.flatten(1))[:, None], F.pad(placed, (0, 0, 0, num_places - placed.shape[1]))


class LanguageReader(nn.Module):
    """A frozen language model with LoRA, and two ways for an embedding into it, or three.

    A small network makes a soft prompt of the embedding, which all layers attend to. And linear maps of it, the hint,
    are added to the states before the head; they are learned first (`Words`), from as many pairs as there are, at a
    hundredth of the cost. The soft prompt alone is ignored for long (`docs/log.md`). Where a smaller reader has guessed
    the text, the guess stands before the soft prompt, as `num_given` tokens.

    Raises:
        ValueError: as `PretrainedCausalDecoder`.
    """

    begin: Int[Tensor, "1 position"]

    def __init__(
        self,
        cfg: config.PretrainedReader,
        shape: config.MemoryShape,
        begin: Sequence[int],
        device: torch.device,
        num_given: int = 0,
    ) -> None:
        """The shape is of embeddings and of texts in the language model's tokens; `begin` stands before every text."""
        super().__init__()
        lora = config.LoraConfig(rank=cfg.rank, alpha=2 * cfg.rank)
        self.decoder = PretrainedCausalDecoder(config.PretrainedDecoder(name=cfg.model, lora=lora))
        if precision_on(device) == "bf16":  # what is frozen need not be cast in every step
            for name, parameter in self.decoder.hf.named_parameters():
                if not self.decoder.is_trained(name):
                    parameter.data = parameter.data.bfloat16()
        dim, width = self.decoder.dim, shape.num_slots * shape.memory_dim
        self.prompt = nn.Sequential(linear(width, _HIDDEN_DIM), nn.GELU(), linear(_HIDDEN_DIM, cfg.num_positions * dim))
        self.positions = nn.Parameter(torch.randn(cfg.num_positions, dim))
        self.hint = Hint(shape, dim)
        self.gate = nn.Linear(dim, 2)
        self.num_given = num_given
        self.register_buffer("begin", torch.tensor([begin], dtype=torch.long), persistent=False)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors) -> Float[Tensor, "row token"]:
        """Nats of each token given the embedding and the tokens before it; 0 at the padding, which is on the right.

        A row's first `num_given` tokens are the guess, and have none.
        """
        given, tokens, mask = tokens[:, : self.num_given], tokens[:, self.num_given :], mask[:, self.num_given :]
        soft, (whole, placed) = self._prompt(memory, given), self.hint(memory, tokens.shape[1])
        inputs = torch.cat([soft[:, -1:], self.decoder.embed(tokens[:, :-1])], dim=1)
        before = soft[:, :-1]
        states = self.decoder.states(inputs, Context(before, mask.new_ones(before.shape[:2])))
        logits = self._logits(states[mask], whole.expand_as(states)[mask], placed[mask])
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, cross_entropy(logits, tokens[mask]))

    @torch.no_grad()
    def following(
        self, memory: MemoryVectors, given: Tokens, tokens: Tokens, past: Any = None
    ) -> tuple[Float[Tensor, "row place vocab"], Any]:
        """Logits of what follows each of the tokens, without a `past` also of the first one, and what to give as `past`
        with the tokens that come next. One embedding, with the guess that is `given`, may be all rows'."""
        memory, given = memory.expand(len(tokens), -1, -1), given.expand(len(tokens), -1)
        inputs, num_places = self.decoder.embed(tokens), tokens.shape[1]
        if past is None:
            inputs, num_places = torch.cat([self._prompt(memory, given), inputs], dim=1), num_places + 1
        read = self.decoder.hf.base_model(inputs_embeds=inputs, past_key_values=past, use_cache=True)
        before_text = self.begin.shape[1] + given.shape[1] + len(self.positions)
        whole, placed = self.hint(memory, read.past_key_values.get_seq_length() - before_text + 1)
        states = read.last_hidden_state[:, -num_places:]
        return self._logits(states, whole, placed[:, -num_places:]), read.past_key_values

    def greedy(self, memory: MemoryVectors, given: Tokens, num_tokens: int) -> Int[Tensor, "row token"]:
        """The likeliest token after those written before, again and again."""
        written, past = [given[:, :0]], None
        for _ in range(num_tokens):
            logits, past = self.following(memory, given, written[-1], past)
            written.append(logits[:, -1:].argmax(-1))
        return torch.cat(written, dim=1)

    def _prompt(self, memory: MemoryVectors, given: Tokens) -> Hidden:
        """What stands before the text."""
        soft = self.prompt(memory.flatten(1)).unflatten(-1, self.positions.shape) + self.positions
        given = torch.cat([self.begin.expand(len(memory), -1), given], dim=1)
        before = self.decoder.embed(given)
        return to_compute_dtype(torch.cat([before, self.decoder.as_inputs(soft).to(before.dtype)], dim=1))

    def _logits(self, states: Hidden, whole: Hidden, placed: Hidden) -> Float[Tensor, "*row vocab"]:
        one, other = torch.sigmoid(self.gate(states.float())).split(1, dim=-1)  # type: ignore[no-untyped-call]
        return self.decoder.head(to_compute_dtype(states + one * whole + other * placed))


class Words(nn.Module):
    """A reader's hint alone, on top of how often tokens occur: which tokens a text has, and which has a place."""

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
        """Summed nats of texts' tokens, each without the others: half by the text as a whole, half by the place; of
        places, a few for each text are drawn, and stand for all."""
        assert batch.memory is not None
        tokens, lengths = batch.tokens, batch.mask.sum(1)
        whole, placed = self.hint(batch.memory, tokens.shape[1])
        of_text = self._nats(whole[:, 0]).gather(1, tokens) * batch.mask
        place = (torch.rand(len(tokens), _DRAWN_PLACES, device=tokens.device) * lengths[:, None]).long()
        of_place = placed.gather(1, place[..., None].expand(-1, -1, placed.shape[-1])) + whole
        drawn = self._nats(of_place).gather(2, tokens.gather(1, place)[..., None])[..., 0].mean(1) * lengths
        return (of_text.sum() + drawn.sum()) / 2

    def _nats(self, hint: Hidden) -> Float[Tensor, "*row type"]:
        likeness = to_compute_dtype(hint) @ self.table.T.to(to_compute_dtype(hint).dtype)
        return -(likeness.float() + self.log_probs).log_softmax(-1)
