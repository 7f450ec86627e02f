"""A fixture for every test that may start a thread: imported by the conftest of its folder."""

import threading

import pytest


@pytest.fixture(autouse=True)
def no_thread_stays():
    """Whatever a test did, the threads of the library end with it."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("ensign-")]
    for thread in left:
        thread.join(10.0)
    stubborn = [thread.name for thread in left if thread.is_alive()]
    assert not stubborn, f"threads left behind: {stubborn}"
