"""Structured recurrent language models as transformers has them: `generate`, `save_pretrained`, `AutoModelForCausalLM`.

Importing this module registers them. Positions count from a row's first token, wherever padding stands.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Self

from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from memlm.config import RecurrentMixer, StackConfig
from memlm.config.base import require
from memlm.models.language_model import LanguageModel
from memlm.nn.linear import linear
from memlm.nn.mixers import Hidden
from memlm.nn.recurrent import PAST_THE_WINDOW, State
from memlm.nn.stack import Stack


class SrmConfig(PretrainedConfig):  # type: ignore[misc]
    """Token embeddings, a stack of recurrent mixers (`memlm.config.StackConfig` as a dictionary), and a head."""

    model_type = "structured_recurrent"
    keys_to_ignore_at_inference = ("past_key_values",)
    attribute_map = {"max_position_embeddings": "window"}  # noqa: RUF012  # transformers' own type

    def __init__(
        self, vocab_size: int = 1024, window: int = 512, stack: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.vocab_size, self.window = vocab_size, window
        self.stack = stack or asdict(StackConfig(mixer=RecurrentMixer(), causal=True))
        self.hidden_size, self.num_hidden_layers = self.stack["dim"], self.stack["num_layers"]
        super().__init__(**{"tie_word_embeddings": False, "use_cache": True, **options})


class StateCache(Cache):  # type: ignore[misc]
    """The states of all layers, where transformers has a cache of keys and values; of one size for any text.

    As transformers' caches, it is changed by a model that reads on: to go on twice, `fork` it, or `copy.deepcopy` it.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states: list[State] = []
        self.num_read = 0
        """Columns of input so far, or since the fork, padding included."""

    @property
    def nbytes(self) -> int:
        """The size of all sums."""
        return sum(state.sums.nbytes for state in self.states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of input so far."""
        return self.num_read

    def reorder_cache(self, beam_idx: Int[Tensor, " row"]) -> None:
        """Keep the states of these rows."""
        self._map_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: Int[Tensor, " row"]) -> None:
        """The same, under another name of transformers'."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """So many of each row."""
        self._map_rows(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def fork(self) -> "StateCache":
        """The same states, for a text of its own after them; this cache stays as it is."""
        other = StateCache()
        other.states = list(self.states)
        return other

    def reset(self) -> None:
        """Begin anew."""
        self.states, self.num_read = [], 0

    def crop(self, tokens_to_remove: int) -> None:
        """Not possible.

        Raises:
            ValueError: always.
        """
        raise ValueError("a recurrent state cannot be taken back by a token: keep a copy of the one before")

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        self.states = [
            state._replace(sums=change(state.sums), late=None if state.late is None else change(state.late))
            for state in self.states
        ]


class SrmPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the models share: their parts draw their own first weights."""

    config_class = SrmConfig
    base_model_prefix = "model"
    _is_stateful = True
    _no_split_modules = ("Block",)

    def _init_weights(self, module: nn.Module) -> None:
        pass


class SrmModel(SrmPreTrainedModel):
    """Token embeddings and the stack."""

    def __init__(self, cfg: SrmConfig) -> None:
        super().__init__(cfg)
        stack = StackConfig.from_json(json.dumps(cfg.stack))
        self.embed = nn.Embedding(cfg.vocab_size, stack.dim)
        nn.init.normal_(self.embed.weight, std=0.35)
        self.stack = Stack(stack, cfg.window)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put others in their place."""
        self.embed = value

    def forward(
        self,
        input_ids: Int[Tensor, "row token"] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        inputs_embeds: Hidden | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """The states of tokens or embeddings after those that `past_key_values` holds.

        Raises:
            ValueError: both or neither are given; they go past the window; the past is another model's or batch's, or
                padding comes after it; what is asked for is not there; or the result is no number, before anything is
                made of it.
        """
        if output_hidden_states or output_attentions:
            raise ValueError(
                "output_hidden_states and output_attentions: a recurrent model has last_hidden_state alone"
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        hidden = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        keeps = past_key_values is not None or bool(not self.training if use_cache is None else use_cache)
        cache = StateCache() if past_key_values is None else past_key_values
        states = self._states(cache, len(hidden))
        order, there = None, None if attention_mask is None else attention_mask[:, -hidden.shape[1] :].bool()
        # Where nothing is kept, nothing depends on values: training is traced on shapes alone.
        if there is not None and not (keeps and bool(there.all())):
            order = there.long().argsort(dim=1, stable=True)[..., None]
            hidden = hidden.take_along_dim(order, dim=1)
            states = after_padding(states, there, exact=keeps or hidden.shape[1] > self.config.window)
        begins = cache.num_read == 0
        hidden, states = self.stack.step(hidden, states)
        if keeps:
            if begins and not bool(hidden.isfinite().all()):
                raise ValueError("the states are not numbers: look for NaN or infinity in the weights or inputs")
            cache.states, cache.num_read = states, cache.num_read + hidden.shape[1]
        if order is not None:
            hidden = hidden.take_along_dim(order.argsort(dim=1), dim=1)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=cache if keeps else None)

    def _states(self, cache: StateCache, batch: int) -> list[State]:
        fresh: list[State] = self.stack.initial_state(batch)
        if not isinstance(cache, StateCache):
            raise ValueError(f"past_key_values must be a StateCache, not {type(cache).__name__}")
        if not cache.states:
            return fresh
        if len(cache.states[0].sums) == 1:
            cache.batch_repeat_interleave(batch)
        found, wanted = ([tuple(state.sums.shape) for state in each] for each in (cache.states, fresh))
        if found != wanted:
            raise ValueError(
                f"the state has sums of shape {found[0]} in {len(found)} layers, and this model with this batch "
                f"{wanted[0]} in {len(wanted)}: a state belongs to the model and the rows that it was made of"
            )
        return cache.states


class SrmForCausalLM(SrmPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A causal language model whose state is constant in the text's length; transformers' `generate` is its own."""

    def __init__(self, cfg: SrmConfig) -> None:
        super().__init__(cfg)
        self.model = SrmModel(cfg)
        self.lm_head = linear(cfg.hidden_size, cfg.vocab_size, gain=0.3)
        self.post_init()

    @classmethod
    def of(cls, model: LanguageModel) -> Self:
        """A causal language model of ours with a recurrent mixer, as transformers has it.

        Raises:
            ValueError: it has another mixer.
        """
        cfg = model.config
        if not isinstance(cfg.stack.mixer, RecurrentMixer):
            raise ValueError(f"only a model with a recurrent_mixer has a state of one size, not {cfg.stack.mixer.kind}")
        served = cls(SrmConfig(cfg.vocab_size, cfg.chunk_len, asdict(cfg.stack)))
        served.model.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
        served.lm_head.load_state_dict(model.head.state_dict())
        return served.eval()

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Put another in its place."""
        self.lm_head = value

    def forward(
        self,
        input_ids: Int[Tensor, "row token"] | None = None,
        labels: Int[Tensor, "row token"] | None = None,
        logits_to_keep: int = 0,
        **given: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next tokens, of the last `logits_to_keep` positions or all, and the loss of any labels."""
        output = self.model(input_ids=input_ids, **given)
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, batch: int, num_columns: int
    ) -> None:
        stretch, mask = generation_config.prefill_chunk_size, model_kwargs.get("attention_mask")
        require(stretch is None or stretch > 0, f"prefill_chunk_size must be positive, not {stretch}")
        if mask is not None and not bool(mask[:, -1].all()):
            raise ValueError(
                "a row of the attention_mask ends with padding, after which nothing is written: pad on the left"
            )
        self._require_room(generation_config, model_kwargs.get("past_key_values"), mask, num_columns)
        if generation_config.use_cache is not False:
            model_kwargs.setdefault("past_key_values", StateCache())

    def _require_room(self, asked: Any, cache: Any, mask: Tensor | None, num_columns: int) -> None:
        """Refuse what would be written past the window, before any of it is written."""
        if isinstance(cache, StateCache) and cache.states:
            end = cache.states[0].position + num_columns - cache.num_read
        else:
            end = num_columns - (0 if mask is None else int((mask == 0).sum(dim=1).min()))
        if end <= self.config.window:
            return
        name = "max_length" if asked.max_new_tokens is None else "max_new_tokens"
        number = getattr(asked, name)
        prompt = "" if asked.max_new_tokens is None else f" after {end + 1 - number} tokens"
        raise ValueError(
            f"{name}={number}{prompt} goes past the window of {self.config.window} positions: it can be "
            f"{max(0, number - end + self.config.window)} at most. For more, {PAST_THE_WINDOW}"
        )


def after_padding(states: list[State], there: Bool[Tensor, "row token"], *, exact: bool) -> list[State]:
    """The states before inputs of which these are tokens, once the padding stands before them in every row.

    Where `exact`, padding that all rows have in common takes no room of the window.

    Raises:
        ValueError: padding comes after a row's first token in an earlier call.
    """
    position, late, padding = states[0].position, states[0].late, (~there).sum(dim=1)
    late = padding if late is None else late + padding
    if position > 0 and bool(((padding > 0) & (position > late - padding)).any()):
        raise ValueError("padding between what was read before and these tokens: give the padding before a row's text")
    common = int(late.min()) if exact else 0
    return [state._replace(position=position - common, late=late - common) for state in states]


AutoConfig.register(SrmConfig.model_type, SrmConfig, exist_ok=True)
AutoModel.register(SrmConfig, SrmModel, exist_ok=True)
AutoModelForCausalLM.register(SrmConfig, SrmForCausalLM, exist_ok=True)
