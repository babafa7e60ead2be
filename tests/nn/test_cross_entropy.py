import pytest
import torch

from memlm.nn import cross_entropy as module
from memlm.nn.cross_entropy import cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 7, 8, 20])
def test_it_is_its_naive_twin_in_outputs_and_gradients(
    num_rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 8)  # more rows than one block, and not a whole number of them
    torch.manual_seed(0)
    logits = (3 * torch.randn(num_rows, 11)).to(dtype).requires_grad_()
    tokens = torch.randint(11, (num_rows,))
    weights = torch.rand(num_rows)

    def naive(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")

    seen = []
    for function in (cross_entropy, naive):
        nats = function(logits, tokens)
        seen.append((nats, *torch.autograd.grad((nats * weights).sum(), logits)))
    (ours, our_gradient), (twins, twins_gradient) = seen
    torch.testing.assert_close(ours, twins, rtol=1e-5, atol=1e-5)
    rounding = torch.finfo(dtype).eps * 4
    torch.testing.assert_close(our_gradient, twins_gradient, rtol=rounding, atol=rounding)
    torch.testing.assert_close(cross_entropy(logits.detach(), tokens), twins)
