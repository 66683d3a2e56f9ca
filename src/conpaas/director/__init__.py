"""The Director: users, applications, credits, the CA and the clouds.

- the command and the process: `main` (`cpsdirector`), `setup`, `config`, `serve`, `app` (what is mounted), `runtime` (what one Director
  is made of), `metrics`
- endpoints: `api/` (one module per subject), `endpoint` (how they are declared), `auth` (who may call), `apipage` (their reference page)
- people: `users`, `passwords`, `throttle`, `credits`, `ca`
- applications, services, nodes, volumes: `lifecycle/` (operations and their steps), `opstore` (on record), `managers` (calls to them),
  `context` (user-data), `code_tarball`
- what is in the clouds: `inventory` (what should be), `sweeper` (what is)
- the database: `models` (tables), `db` (transactions), `migrations/`
"""
