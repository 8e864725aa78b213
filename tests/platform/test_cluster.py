"""Starting and finding a Ray cluster, without one."""

import pytest
import ray

from headrace.platform.cluster import start_embedded


def test_an_embedded_cluster_is_its_own_whatever_else_runs_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(ray, "init", lambda **keywords: asked.append(keywords))
    start_embedded()
    # Any other address, None too, joins a cluster that somebody's `ray start` left its address of in /tmp/ray.
    assert [keywords["address"] for keywords in asked] == ["local"]
