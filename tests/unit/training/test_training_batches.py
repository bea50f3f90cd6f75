"""The plan of an epoch: nothing lost, nothing twice, the same steps for every layout."""

from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.training.batches import Layout, Step, plan_epoch

small = st.integers(1, 5)


def _plans(samples: int, layout: Layout, seed: int = 0, epoch: int = 1) -> list[list[Step]]:
    return [
        plan_epoch(samples, layout, rank=rank, seed=seed, epoch=epoch) for rank in range(layout.processes)
    ]


@given(st.integers(1, 60), small, small, small)
def test_partition(samples: int, size: int, accumulation: int, processes: int) -> None:
    layout = Layout(size, accumulation, processes)
    plans = _plans(samples, layout)
    seen = [index for plan in plans for step in plan for batch in step.batches for index in batch]
    assert sorted(seen) == list(range(samples))
    assert {len(plan) for plan in plans} == {layout.steps(samples)}
    for steps in zip(*plans, strict=True):
        assert {step.samples for step in steps} == {sum(len(b) for step in steps for b in step.batches)}
        assert all(len(step.batches) <= accumulation for step in steps)
        assert all(0 < len(batch) <= size for step in steps for batch in step.batches)


@given(st.integers(1, 60), small, small, small)
def test_same_steps_for_every_layout(samples: int, a: int, b: int, c: int) -> None:
    def steps(layout: Layout) -> list[set[int]]:
        per_step = zip(*_plans(samples, layout), strict=True)
        return [{i for step in steps for batch in step.batches for i in batch} for steps in per_step]

    alone = steps(Layout(a * b * c, 1, 1))
    assert steps(Layout(a, b, c)) == steps(Layout(c, a, b)) == alone


@given(st.integers(1, 60), small, small, small)
def test_in_step_all_have_as_many_batches_and_count_each_sample_once(
    samples: int, a: int, b: int, c: int
) -> None:
    layout = Layout(a, b, c)
    plans = [
        plan_epoch(samples, layout, rank=rank, seed=0, epoch=1, in_step=True)
        for rank in range(layout.processes)
    ]
    for steps in zip(*plans, strict=True):
        assert len({len(step.batches) for step in steps}) == 1
    counted = [i for plan in plans for step in plan for batch in step.batches[: step.counted] for i in batch]
    assert sorted(counted) == list(range(samples))


def test_order_depends_on_seed_and_epoch() -> None:
    layout = Layout(2, 1)
    one = _plans(20, layout, seed=1, epoch=1)
    assert one == _plans(20, layout, seed=1, epoch=1)
    assert one != _plans(20, layout, seed=1, epoch=2)
    assert one != _plans(20, layout, seed=2, epoch=1)


def test_whole_steps_give_every_process_the_same_work() -> None:
    for plan in _plans(24, Layout(2, 3, 2)):
        assert [[len(batch) for batch in step.batches] for step in plan] == [[2, 2, 2]] * 2
