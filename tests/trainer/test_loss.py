"""The chunked cross entropy: the numbers of torch's own, in any number format."""

import pytest
import torch

from trainer.data import Item
from trainer.loss import Head, loss_and_correct
from trainer.micro_batch import micro_batches


def test_a_loss_is_scaled_in_float32() -> None:
    """1 / 1021 in bfloat16 is 0.3 % too small, and so was every gradient of such a window."""
    torch.manual_seed(0)
    head = Head(torch.randn(50, 16).bfloat16())
    hidden = torch.randn(1, 9, 16).bfloat16().requires_grad_()
    item = Item(torch.arange(10).tolist(), bytes([0] + [1] * 9))  # type: ignore[arg-type] # any sequence will do
    batch = micro_batches([item], 100)[0]
    whole, part = (
        torch.autograd.grad(loss_and_correct(hidden, batch, head)[0] / units, hidden)[0].double() * units
        for units in (1, 1021)
    )
    assert float(part.norm() / whole.norm()) == pytest.approx(1, abs=5e-4)


@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_chunked_head_equals_cross_entropy(softcap: float, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.loss.MAX_LOGITS", 50 * 4)  # four rows at once
    torch.manual_seed(0)
    head = Head(torch.randn(50, 16), torch.randn(50), scale, softcap)
    hidden = torch.randn(2, 9, 16, requires_grad=True)
    item = Item(torch.arange(10).tolist(), bytes([0] + [1] * 9))  # type: ignore[arg-type] # any sequence will do
    batch = micro_batches([item, item], 100)[0]
    scores = (hidden.flatten(0, 1)[batch.positions] @ head.weight.T + head.bias) * scale
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    expected = torch.nn.functional.cross_entropy(scores, batch.labels, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, hidden)
    loss, hits = loss_and_correct(hidden, batch, head)
    (gradient,) = torch.autograd.grad(loss, hidden)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted)
    assert int(hits) == int((scores.argmax(-1) == batch.labels).sum())
