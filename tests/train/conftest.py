"""The toy network and its photos, which several of these files train on."""

import pytest

from . import prepared


@pytest.fixture(scope="module")
def toy_net():
    """Registers `toy_net` while the tests of a file run."""
    with prepared.registered_toy_net():
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Prepared coloured squares instead of faces."""
    return prepared.prepare_squares(tmp_path_factory.mktemp("squares"))
