"""The service framework: knows no service, no Director and no client.

Where things are, from the wire inwards:

- calls from outside: `https/` (server, client, identities), `rpc` (which object and method), `expose` and `params` (what a method
  declares), `errors`
- a service type: `services` (the registry), `manager` and `agent` (the parents of its two classes), `node`, `states`, `agents` (manager
  calls agents)
- services that run code: `code_manager`, `code` (versions), `archive`, `git`, `git_server`, `git_keys`
- the application manager: `application` (what it is made of), `application_calls` (what it answers), `health`, `callbacker` (asks the
  Director), `broken`
- what it does, durably: `operations` (records, steps, the engine), `lifecycle` and `volumes` (the steps), `state/` (on disk), `faults`
  (crashes for tests)
- a VM: `manager_daemon` and `agent_daemon` (the processes), `daemon`, `supervisor` (of the workload's daemons), `paths`, `config`,
  `resources`
- clouds: `clouds/`, used by the Director only
- tools: `file`, `log`, `log_window`, `metrics`, `misc`, `workers` (threads)
"""
