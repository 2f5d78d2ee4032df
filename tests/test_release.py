"""What is published, by whom, and that all files of a release say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Source"]
# Names that conda-forge gives to packages of PyPI; all others are the same
CONDA_NAMES = {
    "dask": "dask-core",
    "matplotlib": "matplotlib-base",
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
}


def read(*parts: str) -> dict:
    """Read a YAML file of the repository, which is not in every copy of the sources."""
    path = ROOT.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"Needs the repository: an sdist holds no {path.name}.")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_job_that_may_publish_runs_nothing_of_the_repository():
    jobs = read(".github", "workflows", "release.yaml")["jobs"]
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
        assert job["name"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", step["uses"]), step
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_vulnerabilities_are_reported_in_private():
    text = (ROOT / "SECURITY.md").read_text()
    assert "private\nvulnerability reporting" in text
    assert "## Supported versions" in text


# ---------------------------------------------------------------- Python versions


def test_every_python_of_the_classifiers_is_tested_and_must_pass():
    rows = read(".github", "workflows", "test.yaml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    stated = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert stated == ["3.11", "3.12", "3.13"]
    assert [row["python"] for row in rows if not row["may-fail"]] == stated
    assert [row["python"] for row in rows if row["may-fail"]] == ["3.14"]
    assert {row["python"]: row["constraints"] for row in rows if row["constraints"]} == {"3.11": "constraints.txt"}
    assert PROJECT["requires-python"] == f">={stated[0]}"


def test_coverage_is_uploaded_once_and_decides_nothing():
    job = read(".github", "workflows", "test.yaml")["jobs"]["test"]
    assert [row["python"] for row in job["strategy"]["matrix"]["include"] if row.get("coverage")] == ["3.11"]
    (upload,) = [step for step in job["steps"] if step.get("uses", "").startswith("codecov/codecov-action@")]
    assert upload["if"].startswith("matrix.coverage")
    assert upload["with"]["files"] == "coverage.xml"
    assert upload["with"]["fail_ci_if_error"] is False
    assert "--cov-report=xml" in str(job["steps"])
    assert read(".codecov.yaml")["coverage"]["status"]["project"]["default"]["informational"] is True


def test_workflows_are_audited_wherever_the_code_is():
    read(".github", "workflows", "test.yaml")  # else there is no Makefile's user
    assert re.search(r"^lint:.*\n(?:\t.*\n)*\t\$\(BIN\)/zizmor ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    pinned = (ROOT / "constraints.txt").read_text()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert any(str(line).startswith("zizmor>=") for line in groups["dev"])
    assert re.search(r"^zizmor==\d", pinned, re.MULTILINE)


def test_actions_and_hooks_are_kept_up_to_date():
    updates = read(".github", "dependabot.yml")["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["github-actions", "pre-commit"]
    for update in updates:
        assert update["directory"] == "/"
        assert update["schedule"] == {"interval": "monthly"}
        assert update["cooldown"] == {"default-days": 7}


# ---------------------------------------------------------------- one version, one address


def test_addresses_are_of_one_repository():
    assert PROJECT["urls"] == {
        "Changelog": "https://sthggep.readthedocs.io/en/stable/changelog.html",
        "Documentation": "https://sthggep.readthedocs.io/",
        "Homepage": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Source": REPOSITORY,
    }
    links = read(".github", "ISSUE_TEMPLATE", "config.yml")["contact_links"]
    assert [link["url"] for link in links] == [
        "https://discourse.scverse.org/",
        f"{REPOSITORY}/security/advisories/new",
    ]
    for name in ("CITATION.cff", "README.md", "CONTRIBUTING.md"):
        path = ROOT / name
        if path.is_file():
            own = re.findall(r"https://github\.com/[\w-]+/sthggep\b", path.read_text(encoding="utf-8"))
            assert set(own) == {REPOSITORY}, name


def test_citation_names_this_release_and_the_paper():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert (citation["type"], citation["version"], citation["license"]) == (
        "software",
        PROJECT["version"],
        PROJECT["license"],
    )
    assert citation["repository-code"] == REPOSITORY
    assert citation["url"] == PROJECT["urls"]["Documentation"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"https://doi.org/{paper['doi']}" in readme
    authors = ", ".join(f"{a['family-names']} {a['given-names'].rstrip('.')}" for a in paper["authors"])
    assert f"{authors}. {paper['title']}." in readme.replace("\n> ", " ")
    assert f"*{paper['journal']}* {paper['volume']}({paper['issue']}), {paper['start']} ({paper['year']})" in readme


def test_conda_recipe_asks_for_what_pyproject_asks_for():
    recipe = read("recipe", "recipe.yaml")
    assert (recipe["package"]["name"], recipe["context"]["version"]) == (PROJECT["name"], PROJECT["version"])
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    first, *rest = recipe["requirements"]["run"]
    assert first == "python >=${{ python_min }}"
    pairs = [line.split(">=") for line in PROJECT["dependencies"]]
    assert rest == [f"{CONDA_NAMES.get(name, name)} >={lowest}" for name, lowest in pairs]
    (command,) = recipe["build"]["python"]["entry_points"]
    assert command == f"sthggep = {PROJECT['scripts']['sthggep']}"
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["repository"] == REPOSITORY


# ---------------------------------------------------------------- what people are asked and told


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_each_thing_once(form: Path):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "labels", "body"} == set(content)
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) >= 3
    assert all(field["attributes"]["label"] for field in fields)


def test_a_bug_report_holds_what_repairs_it():
    body = read(".github", "ISSUE_TEMPLATE", "bug_report.yml")["body"]
    required = [field["id"] for field in body if field.get("validations", {}).get("required")]
    assert required == ["report", "code", "versions"]
    assert "Never post patient data" in body[0]["attributes"]["value"]


def test_the_readme_does_not_name_a_package_that_is_not_there_yet():
    released = re.search(r"^## \[\d", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released or not re.search(r"pip install (-U )?sthggep", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_what_only_a_person_can_do_is_named():
    path = ROOT / "CONTRIBUTING.md"
    if not path.is_file():
        pytest.skip("Needs the repository: an sdist holds no CONTRIBUTING.md.")
    text = path.read_text(encoding="utf-8")
    by_a_person = text.split("**Only a person can do this, once:**")[1].split("##")[0]
    for place in ("PyPI", "Read the Docs", "Codecov", "conda-forge/staged-recipes", "scverse's registry", REPOSITORY):
        assert place in by_a_person, place
    entry = yaml.safe_load(text.split("```yaml\n")[-1].split("```")[0])
    assert entry["install"] == {"pypi": PROJECT["name"]}
    assert (entry["version"], entry["license"]) == (PROJECT["version"], PROJECT["license"])
    assert (entry["project_home"], entry["documentation_home"]) == (REPOSITORY, PROJECT["urls"]["Documentation"])
