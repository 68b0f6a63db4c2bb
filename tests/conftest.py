"""Set-up of all tests: compiled programs are kept, so that a second run, or a second worker, need not wait."""

import pathlib

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


@pytest.fixture
def quick_compilation():
    """Without most optimisations, which would take longer than the many small programs of `check_grads` run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
