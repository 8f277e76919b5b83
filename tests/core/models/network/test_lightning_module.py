"""Batches, losses and learning rate of the training."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.models.network.lightning_module import EpochBatchSampler, ensemble_losses, lr_factor, member_losses


@given(rows=st.integers(1, 300), size=st.integers(1, 80), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_processes_together_see_every_row_once_in_the_batches_of_one_process(
    rows: int, size: int, world_size: int, epoch: int
) -> None:
    # given the batches of a single process, and of several
    alone, *together = (
        EpochBatchSampler(rows, size, seed=1),
        *(EpochBatchSampler(rows, size, 1, rank=r, world_size=world_size) for r in range(world_size)),
    )
    for batches in (alone, *together):
        batches.set_epoch(epoch)
    batches_by_process = [list(batches) for batches in together]
    # then every batch has the same set of rows, and each row occurs once
    for index, batch in enumerate(alone):
        shares = torch.cat([batches[index] for batches in batches_by_process])
        assert sorted(shares.tolist()) == sorted(batch.tolist())
        assert alone.batch_rows(index) == len(batch)
    assert sorted(torch.cat(list(alone)).tolist()) == list(range(rows))
    assert {len(batches) for batches in batches_by_process} == {len(alone)}


def test_epochs_are_shuffled_differently() -> None:
    batches = EpochBatchSampler(100, 10, seed=1)
    first = torch.cat(list(batches))
    batches.set_epoch(1)
    assert not torch.equal(torch.cat(list(batches)), first)


def test_learning_rate_has_linear_warmup_and_cosine_decay() -> None:
    rates = [lr_factor(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001 < rates[0] < 0.1


@pytest.mark.parametrize(("classes", "width"), [pytest.param(0, 1, id="regression"), pytest.param(3, 3, id="classes")])
def test_members_have_separate_losses_and_a_mean_prediction(classes: int, width: int) -> None:
    # given logits of two members
    logits = torch.randn(5, 2, width, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(5) % 3 if classes else torch.arange(5.0)
    separate = torch.stack([member_losses(logits[:, [m]], targets, classes, None) for m in range(2)]).mean(dim=0)
    # then the training loss is the mean of their losses, and the validation loss is the loss of their mean
    torch.testing.assert_close(member_losses(logits, targets, classes, None), separate)
    if classes:
        mean = torch.softmax(logits, dim=2).mean(dim=1)
        expected = -mean[torch.arange(5), targets].log()
    else:
        expected = (logits.mean(dim=1)[:, 0] - targets) ** 2
    torch.testing.assert_close(ensemble_losses(logits, targets, classes, None), expected)
