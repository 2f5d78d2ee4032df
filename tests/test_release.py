"""What is published, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.fixture
def jobs() -> dict[str, dict]:
    if not WORKFLOWS:
        pytest.skip("Needs the repository: an sdist holds no workflows.")
    return yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())["jobs"]


def test_the_job_that_may_publish_runs_nothing_of_the_repository(jobs):
    allowed = [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})]
    assert allowed == ["publish"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert [step["uses"].split("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert not any("run" in step for step in publish["steps"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_keep_no_credentials(workflow: Path):
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                assert len(step["uses"].split("@")[1]) == 40, step
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_vulnerabilities_are_reported_in_private():
    text = (ROOT / "SECURITY.md").read_text()
    assert "private\nvulnerability reporting" in text
    assert "## Supported versions" in text
