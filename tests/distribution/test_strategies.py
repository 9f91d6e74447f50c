"""Strategies by name: what `TF_CONFIG` must say, and that one device is no strategy."""

import json
import re

import pytest

from keras_tkd import distribution
from keras_tkd.distribution.joining import split_address


def test_none_is_no_strategy():
    with distribution.scope("none") as strategy:
        assert strategy is None


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="none, mirrored, multi_worker. Received: 'horovod'"):
        distribution.make_strategy("horovod")


@pytest.mark.parametrize(
    ("config", "received"),
    [
        (None, "TF_CONFIG=''"),
        ("{", "JSONDecodeError"),
        ({"task": {"type": "worker", "index": 0}}, "KeyError"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}, "two addresses or more"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}, "each once"),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}, "'index': 2} of 2 workers"),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}, "'ps'"),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "1"}}, "'index': '1'}"),
        (
            {"cluster": {"chief": ["c:1"], "worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}},
            "a cluster of chief, worker",
        ),
    ],
)
def test_a_cluster_that_is_none_is_refused_before_anything_waits_for_it(monkeypatch, config, received):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ValueError, match="reads the environment's TF_CONFIG") as error:
        distribution.make_strategy("multi_worker")
    assert received in str(error.value)


@pytest.mark.parametrize(
    "address", ["host", "host:", "host:http", ":80", "host:0", "host:65536", 80, "::1:2222", "[::1]", "[]:1"]
)
def test_an_address_without_host_or_port_is_refused(monkeypatch, address):
    # That of another worker, which nothing here listens at or looks for.
    config = {"cluster": {"worker": ["a:65535", "b:1", address]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match=f"must be host:port, .* 65535. Received: {re.escape(repr(address))}. Mend"):
        distribution.make_strategy("multi_worker")


@pytest.mark.parametrize(("address", "parts"), [("host:1", ("host", 1)), ("[::1]:65535", ("::1", 65535))])
def test_an_address_has_a_host_and_a_port(address, parts):
    assert split_address(address) == parts
