"""The OpenAPI document, and requests that schemathesis makes of it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import positive_data_acceptance

from medgen3d.serving.schemas import JobRequest


@pytest.fixture(scope="module")
def server(make_server, number_engine, tmp_path_factory):
    engine = number_engine()
    engine.names += ["builtin/hippocampus"]  # the name in the examples
    limits = {"request_burst": 100_000, "jobs_per_owner": 1000, "max_queued": 1000, "max_voxels": 10_000_000}
    with make_server(tmp_path_factory.mktemp("openapi"), engine, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def openapi(server):
    headers = {"Authorization": f"Bearer {server.token}"}
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)


EXAMPLES = settings.default.max_examples // 4
ENDPOINTS = [
    "POST /v1/jobs",
    "GET /v1/jobs",
    "GET /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id}/events",
    "GET /v1/jobs/{job_id}/result",
    "DELETE /v1/jobs/{job_id}",
    "POST /v1/pairs",
    "POST /v1/images",
    "GET /v1/pipelines",
    "GET /v1/pipelines/{name}",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
]


def test_every_endpoint_is_tried_below(openapi):
    assert sorted(operation.ok().label for operation in openapi.get_all_operations()) == sorted(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_keeps_what_its_document_says(endpoint, openapi, server):
    method, path = endpoint.split()
    headers = {"Authorization": f"Bearer {server.token}"}

    @given(case=openapi[path][method].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def keeps(case):
        # What fits the document may still be refused: a pipeline that is not there, a file that is no NIfTI file.
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    keeps()


def test_the_document_has_examples_that_are_accepted(server):
    with server.client() as client:
        document = client.get("/openapi.json").json()
        body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
        assert len(body["examples"]) >= 2
        for example in body["examples"].values():
            JobRequest.model_validate(example["value"])
            assert client.post("/v1/jobs", json=example["value"]).status_code == 202
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"] or operation["description"], path
            is_open = path in ("/healthz", "/readyz")
            assert is_open or "401" in operation["responses"], path
            assert is_open or operation["security"] == [{"HTTPBearer": []}], path
