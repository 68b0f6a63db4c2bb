"""Set-up of all tests: compiled programs are kept, so that a second run, or a second worker, need not wait."""

import pathlib
import signal

import jax
import pytest

import jaxcnn.data

CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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


@pytest.fixture
def quick_compilation():
    """Without most optimizations, which would take longer than the many small programs of `check_grads` run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
