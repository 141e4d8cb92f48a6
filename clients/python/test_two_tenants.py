"""Two tenants use the generated client against a running server.

TENANTRY_URL names the server; TENANTRY_USERS is a JSON list of {"tenant", "email", "password"}, one user of each tenant.
"""

import json
import os
import unittest
import uuid

from tenantry_client import AuthenticatedClient, Client
from tenantry_client.api.authentication import login
from tenantry_client.api.projects import create_project, get_project, list_projects
from tenantry_client.models import Login, LoggedIn, NewProject, PageProject, Problem, Project

URL = os.environ["TENANTRY_URL"]
ACME, GLOBEX = json.loads(os.environ["TENANTRY_USERS"])


def log_in(user: dict[str, str]) -> AuthenticatedClient:
    body = Login(email=user["email"], password=user["password"], tenant_slug=user["tenant"])
    logged_in = login.sync(client=Client(base_url=URL), body=body)
    assert isinstance(logged_in, LoggedIn), logged_in
    assert logged_in.tenant.slug == user["tenant"]
    return AuthenticatedClient(base_url=URL, token=logged_in.access_token)


def names(client: AuthenticatedClient) -> list[str]:
    page = list_projects.sync(client=client, limit=100)
    assert isinstance(page, PageProject), page
    return [project.name for project in page.data]


class TwoTenants(unittest.TestCase):
    def test_a_tenant_sees_its_own_projects_only(self) -> None:
        ours, theirs = log_in(ACME), log_in(GLOBEX)
        key = str(uuid.uuid4())

        def create() -> Project:
            answer = create_project.sync(client=ours, body=NewProject(name="Python project"), idempotency_key=key)
            assert isinstance(answer, Project), answer
            return answer

        created = create()
        self.assertEqual(create().id, created.id)

        self.assertEqual(get_project.sync(created.id, client=ours).name, "Python project")
        hidden = get_project.sync(created.id, client=theirs)
        self.assertIsInstance(hidden, Problem)
        self.assertEqual(hidden.code, "not_found")

        self.assertIn("Python project", names(ours))
        self.assertNotIn("Python project", names(theirs))

    def test_an_invalid_body_is_a_problem_that_names_its_fields(self) -> None:
        problem = create_project.sync(client=log_in(ACME), body=NewProject(name=""))
        self.assertIsInstance(problem, Problem)
        self.assertEqual(problem.code, "validation_failed")
        self.assertEqual([error.pointer for error in problem.errors], ["/name"])


if __name__ == "__main__":
    unittest.main()
