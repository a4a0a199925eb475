"""Two hundred clients at once: what is accepted is done, what is refused is told when to come back."""

import asyncio
from collections import Counter

import httpx

CLIENTS = 200


def test_two_hundred_clients_lose_no_accepted_job_and_cost_little_memory(make_server_process, tmp_path):
    limits = {"max_queued": 40, "jobs_per_owner": 1000, "request_burst": 80, "requests_per_minute": 60}
    with make_server_process(tmp_path / "serving", pause_s=0.05, **limits) as server:
        with server.client() as client:
            assert client.post("/v1/pairs", json={"pipeline": "knee"}).status_code == 200
        before = server.peak_mib()
        answers = asyncio.run(_all_ask(server))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() <= {202, 429, 503}
        assert sum(statuses.values()) == CLIENTS
        assert statuses[202] >= 40
        assert statuses[429] + statuses[503] >= 1
        for answer in answers:
            assert answer.status_code == 202 or int(answer.headers["retry-after"]) >= 1
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        assert len(set(accepted)) == len(accepted)
        states = asyncio.run(_all_ends(server, accepted))
        assert Counter(states) == {"succeeded": len(accepted)}
        assert server.peak_mib() - before < 100


async def _all_ask(server) -> list[httpx.Response]:
    async with _client(server) as client:
        asked = (client.post("/v1/jobs", json={"pipeline": "knee", "seed": seed}) for seed in range(CLIENTS))
        return await asyncio.gather(*asked)


async def _all_ends(server, job_ids: list[str]) -> list[str]:
    async with _client(server) as client:

        async def end_of(job_id: str) -> str:
            while (state := (await client.get(f"/v1/jobs/{job_id}")).json()["state"]) in ("queued", "running"):
                await asyncio.sleep(0.5)
            return state

        return await asyncio.wait_for(asyncio.gather(*map(end_of, job_ids)), 120)


def _client(server) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {server.token}"}
    bounds = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=120, limits=bounds)
