"""The pool of threads for synchronous steps."""

from __future__ import annotations

import threading
import weakref

import pytest

from durable_sqlite._threads import StepThreads


def test_jobs_run_in_daemons_that_are_made_when_needed_and_used_again() -> None:
    pool = StepThreads(4)
    first = pool.submit(threading.current_thread).result(5)
    assert first.daemon
    while not pool._idle:
        pass
    assert pool.submit(threading.current_thread).result(5) is first
    pool.close()
    first.join(5)
    assert not first.is_alive()


def test_no_more_threads_than_the_limit_work_at_once() -> None:
    pool = StepThreads(2)
    gate = threading.Barrier(3, timeout=5)
    waiting = [pool.submit(gate.wait) for _ in range(2)]
    later = pool.submit(threading.active_count)
    assert pool._threads == 2
    assert not later.done()
    gate.wait()
    assert later.result(5)
    for job in waiting:
        job.result(5)
    pool.close()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_job_raises_is_its_caller_s_and_the_thread_lives_on(error: BaseException) -> None:
    pool = StepThreads(1)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        pool.submit(fail).result(5)
    assert pool.submit(int, "5").result(5) == 5
    pool.close()


def test_a_job_that_was_called_off_before_it_began_never_runs() -> None:
    pool = StepThreads(1)
    gate = threading.Event()
    running = pool.submit(gate.wait, 5)
    ran: list[int] = []
    called_off = pool.submit(ran.append, 1)
    assert called_off.cancel()
    gate.set()
    running.result(5)
    assert pool.submit(len, "xyz").result(5) == 3
    assert ran == []
    pool.close()


def test_a_thread_at_rest_keeps_nothing_alive() -> None:
    class Large:
        pass

    pool = StepThreads(1)
    large = Large()
    gone = weakref.ref(large)
    pool.submit(id, large).result(5)
    del large
    pool.submit(int).result(5)
    assert gone() is None
    pool.close()
