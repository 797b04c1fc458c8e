"""What operations move is counted as by hand; a float takes 4 bytes, a position 8."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.traffic import Copy, Traffic


def counted(operation: Callable[[], object]) -> Traffic:
    with Traffic() as traffic:
        operation()
    return traffic


def test_an_operation_reads_its_arguments_and_writes_its_result() -> None:
    batch, row = torch.ones(4, 3), torch.ones(3)

    traffic = counted(lambda: batch + row)

    assert (1, 48 + 12 + 48) == (traffic.kernels, traffic.bytes)


def test_views_and_empty_tensors_are_no_kernels() -> None:
    batch = torch.ones(4, 3)

    traffic = counted(lambda: (batch.t(), batch[1:], batch.view(-1), batch.split(2), torch.empty_like(batch)))

    assert (0, 0, []) == (traffic.kernels, traffic.bytes, traffic.copies)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda target, other: target.add_(other), 40 + 40 + 40),
        (lambda target, other: target.copy_(other), 40 + 40),
        (lambda target, other: torch.mul(other, 2, out=target), 40 + 40),
        (lambda target, _: target.zero_(), 40),
        (lambda target, _: target.uniform_(), 40),
        (lambda target, other: torch._foreach_add_([target, other], 1), 2 * (40 + 40)),
    ],
    ids=["add_", "copy_", "out", "zero_", "uniform_", "list"],
)
def test_a_target_is_written_once_and_read_where_it_is_needed(
    change: Callable[[Tensor, Tensor], object], moved: int
) -> None:
    target, other = torch.ones(10), torch.ones(10)

    assert moved == counted(lambda: change(target, other)).bytes


def test_of_a_tensor_that_is_made_like_another_only_itself_is_written() -> None:
    like = torch.ones(10)

    assert 40 + 40 + 20 == counted(lambda: (torch.zeros(10), torch.zeros_like(like), like.new_ones(5))).bytes


def test_what_a_tensor_repeats_is_read_once() -> None:
    row, line = torch.ones(3), torch.ones(10)

    assert 12 + 96 == counted(lambda: row.expand(8, 3).clone()).bytes
    assert 40 + 96 == counted(lambda: line.unfold(0, 3, 1).clone()).bytes  # 8 windows of 3


@pytest.mark.parametrize(
    ("gather", "positions"),
    [
        (lambda table, rows: table.index_select(0, rows), 16),
        (lambda table, rows: table[rows], 16),
        (lambda table, rows: functional.embedding(rows, table), 16),
        (lambda table, rows: table.gather(0, rows.unsqueeze(1)), 16),
    ],
    ids=["index_select", "index", "embedding", "gather"],
)
def test_a_table_is_read_as_far_as_it_is_gathered(gather: Callable[[Tensor, Tensor], Tensor], positions: int) -> None:
    table, rows = torch.ones(1000, 3), torch.tensor([5, 1])

    given = gather(table, rows).numel() * 4

    assert given + positions + given == counted(lambda: gather(table, rows)).bytes


def test_rows_that_are_copied_into_a_table_are_written_and_no_others() -> None:
    table, rows = torch.ones(1000, 3), torch.tensor([5, 1])

    source = torch.ones(2, 3)
    assert 24 + 16 + 24 == counted(lambda: table.index_copy_(0, rows, source)).bytes


@pytest.mark.parametrize("mask", [(True, True, True), (False, True, True), (True, False, False)])
def test_a_convolutions_gradients_read_what_they_are_made_of(mask: tuple[bool, bool, bool]) -> None:
    inputs, weight, gradient = torch.ones(1, 3, 2, 2), torch.ones(2, 3, 1, 1), torch.ones(1, 2, 2, 2)
    of_inputs, of_weight, of_bias = mask

    traffic = counted(
        lambda: torch.ops.aten.convolution_backward(
            gradient, inputs, weight, [2], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
        )
    )

    read = (
        32 + 24 * of_inputs + 48 * of_weight
    )  # the weight is what the inputs' gradient takes, and the other way round
    assert read + 48 * of_inputs + 24 * of_weight + 8 * of_bias == traffic.bytes


def test_a_poolings_gradient_does_not_read_what_was_pooled() -> None:
    images = torch.ones(1, 1, 4, 4, requires_grad=True)
    pooled = functional.max_pool2d(images, 2)

    traffic = counted(lambda: torch.autograd.grad(pooled, images, torch.ones(1, 1, 2, 2)))

    assert 16 + 4 * 8 + 16 + 64 == traffic.bytes  # with the ones that are made here


def test_a_step_of_adam_reads_gradients_and_writes_weights_and_moments() -> None:
    weight = nn.Parameter(torch.ones(10))
    weight.grad = torch.ones(10)
    optimizer = torch.optim.Adam([weight], fused=True)
    optimizer.step()  # makes the moments

    traffic = counted(optimizer.step)

    steps = 4 + 4  # of the count of steps, by an operation of its own
    assert (2, 4 * 40 + 3 * 40 + 4 + steps) == (traffic.kernels, traffic.bytes)


def test_a_step_of_sgd_with_momentum_writes_weights_and_momentum() -> None:
    weight = nn.Parameter(torch.ones(10))
    weight.grad = torch.ones(10)
    optimizer = torch.optim.SGD([weight], momentum=0.9, fused=True)
    optimizer.step()

    assert 3 * 40 + 2 * 40 == counted(optimizer.step).bytes


def test_of_labels_loss_one_logit_is_read_per_row() -> None:
    logits, labels = torch.zeros(2, 5), torch.tensor([0, 4])

    assert 2 * 4 + 2 * 8 + 4 + 4 == counted(lambda: functional.nll_loss(logits, labels)).bytes


def test_copies_are_told_by_shape_and_casts_by_their_types() -> None:
    batch = torch.ones(4, 3)

    traffic = counted(lambda: (batch.t().contiguous(), batch.contiguous(), batch.bfloat16(), batch.copy_(batch + 1)))

    assert [
        Copy(operation="clone", shape=(3, 4), source=torch.float32, target=torch.float32),
        Copy(operation="_to_copy", shape=(4, 3), source=torch.float32, target=torch.bfloat16),
        Copy(operation="copy_", shape=(4, 3), source=torch.float32, target=torch.float32),
    ] == traffic.copies


def test_backward_passes_are_counted_and_the_copy_of_a_gradient_shows() -> None:
    weight = nn.Parameter(torch.ones(3, 4))

    plain = counted(lambda: weight.square().sum().backward())
    weight.grad = None
    copying = counted(lambda: weight.sum(0).square().sum().backward())  # the gradient repeats a row

    assert [] == plain.copies
    assert [(3, 4)] == [one.shape for one in copying.copies]
    assert plain.kernels > 2
