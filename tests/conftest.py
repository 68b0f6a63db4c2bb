"""Setup of all tests: a compilation cache shared by workers and runs, and the marker `sample`."""

import collections
import os
import pathlib
import signal

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import jaxcnn.data

CACHE = os.environ.get("JAXCNN_TEST_CACHE") or pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ["JAXCNN_REUSE_MEMORY"] = "0"  # thousands of programs in one process would keep several GB
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)  # before pytest applies -m
def pytest_collection_modifyitems(items):
    """Mark most cases of a test marked `sample(k)`, or `sample(k, m)`, as slow or full.

    Every k-th case stays as it is. Of the others every m-th is slow, and the rest are full; without m, all are full.
    The offset is the position of the test in its file, so that k tests of the same cases together run each case.
    """
    cases = collections.defaultdict(list)
    for item in items:
        if (sample := item.get_closest_marker("sample")) and not item.get_closest_marker("full"):
            cases[item.module, item.originalname, sample.args].append(item)
    for (module, name, (k, *m)), group in cases.items():
        of_ci = m[0] if m else k
        if len(group) >= k:
            for i, item in enumerate(group, [test for test in vars(module) if test.startswith("test_")].index(name)):
                if i % k:
                    item.add_marker("full" if i % of_ci else "slow")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing is downloaded by a test that forgot where its data are."""

    def fetch(remote, folder):
        raise jaxcnn.data.DataError(f"{remote.url} is not downloaded in tests")

    monkeypatch.setattr("jaxcnn.data._load.fetch", fetch)


@pytest.fixture(autouse=True)
def signals_are_not_ignored():
    """As in a terminal, also where the tests run in the background or under nohup; programs that tests start, too."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="module")
def no_compilation_cache():
    """Programs that call oneDNN, which XLA cannot save in a cache."""

    def enable(value):
        jax.config.update("jax_enable_compilation_cache", value)
        compilation_cache.reset_cache()
        jax.clear_caches()

    enable(False)
    yield
    enable(True)


@pytest.fixture
def quick_compilation():
    """Without most optimizations, which would take longer than the many small programs of `check_grads` run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
