"""The hidden states of any Hugging Face transformer, layer by layer, from input embeddings on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memlm.nn.mixers import Hidden, Tokens
from memlm.runtime.hub import said


class HiddenStates:
    """A transformer's states, as its `output_hidden_states` gives them, without running layers above those asked for.

    Found out from a few tokens: how many layers there are, where, and whether a state depends on later tokens.
    """

    def __init__(self, body: Any, name: str) -> None:
        """Look at a body in evaluation mode.

        Raises:
            ValueError: its states cannot be had from token embeddings.
        """
        self.body, self.blocks = body, None
        ids = some_tokens(body)
        attended, embed = torch.ones_like(ids), body.get_input_embeddings()
        with explained(f"{name} cannot be run on token ids alone: {{why}}"):
            expected = body(input_ids=ids, attention_mask=attended, output_hidden_states=True).hidden_states
        if not expected:
            raise ValueError(f"{name} returns no hidden states; choose a transformer, which does")
        self.num_layers, self.dim = len(expected) - 1, expected[-1].shape[-1]
        if (width := embed(ids).shape[-1]) != self.dim:
            raise ValueError(f"{name} embeds tokens in {width} dimensions but has states of {self.dim}: choose another")
        for blocks in self._candidates():
            self.blocks = blocks
            try:
                states = self(embed(ids), attended, range(self.num_layers + 1))
            except (KeyError, TypeError, ValueError, AttributeError, NotImplementedError):
                continue
            if all(map(same, states, expected)):
                break
        else:
            raise ValueError(f"{name} cannot be run on token embeddings, which probes need; choose another model")
        later = torch.cat([ids[:, :1], ids[:, 1:].flip(1)], dim=1)
        self.causal = same(self(embed(later), attended, [self.num_layers])[0][:, 0], expected[-1][:, 0])

    def __call__(self, sequence: Hidden, attended: Tensor, layers: Sequence[int]) -> list[Hidden]:
        """States of a whole sequence, special tokens included."""
        if self.blocks is None:
            every = self.body(inputs_embeds=sequence, attention_mask=attended, output_hidden_states=True).hidden_states
            return [every[layer] for layer in layers]
        found: dict[int, Tensor] = {}
        top = max(layers, default=0)
        # State i is what goes into block i.
        hooks = [
            self.blocks[layer].register_forward_pre_hook(_catch(found, layer, top), with_kwargs=True)
            for layer in {*layers, top} - {self.num_layers}
        ]
        try:
            found[self.num_layers] = self.body(inputs_embeds=sequence, attention_mask=attended).last_hidden_state
        except _ReachedError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return [found[layer] for layer in layers]

    def _candidates(self) -> list[tuple[nn.Module, ...] | None]:
        """Modules whose inputs may be the states; last of all none, and then states come from the library."""
        lists = [module for module in self.body.modules() if isinstance(module, nn.ModuleList)]
        return [*(tuple(blocks) for blocks in lists if len(blocks) == self.num_layers), None]


def _catch(found: dict[int, Tensor], layer: int, top: int) -> Any:
    """A hook that keeps a block's input, and ends the run if no block above is asked for."""

    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found[layer] = args[0] if args else kwargs["hidden_states"]
        if layer == top:
            raise _ReachedError

    return hook


class _ReachedError(Exception):
    """All that was asked for has been computed."""


def some_tokens(body: Any) -> Tokens:
    """A few different tokens [1 token], none the padding, whose position may be special."""
    table = body.get_input_embeddings().weight
    ids = [i for i in range(min(9, len(table))) if i != getattr(body.config, "pad_token_id", None)]
    return torch.tensor([ids], device=table.device)


def same(a: Tensor, b: Tensor, rounding: float = 1e-5) -> bool:
    """Whether two tensors differ by rounding only."""
    return a.shape == b.shape and bool((a - b).abs().max() <= rounding * b.abs().max())


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Say `message` of whatever a library raises, with the first line of what it says, or its type, as `{why}`.

    Raises:
        ValueError: with the message.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(message.replace("{why}", said(error))) from error
