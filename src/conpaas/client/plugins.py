"""How a service type adds verbs to the command line, without knowing the command line.

A service type names a function in the entry-point group `conpaas.cli`:

    "conpaas.cli": ["helloworld = conpaas.services.helloworld.cli:verbs"]

That function gets one `VerbGroup` and fills it. It imports nothing of `conpaas.client`; what it may use is what this
module documents, and the handle that its verbs are called with (`conpaas.client.handles`):

    def verbs(group):
        group.node_roles(master=0, node=1)              # options of add_nodes and remove_nodes, with the default set
        group.code_verbs(enable="enable_code")          # upload_code, list_codes, enable_code, upload_key ...
        group.volume_verbs()                            # create_volume, delete_volume, list_volumes

        @group.verb("greet", group.argument("name"), group.option("--times", kind="integer", default=1))
        def greet(service, name, times):
            \"\"\"Print a greeting of every node.\"\"\"
            reply = service.get("greet", name=name, times=times)
            service.show(reply["text"], reply)

`cps-helloworld greet APP SRV NAME [--times N]` and `cps-tools helloworld greet …` exist from then on, with help, shell
completion, JSON output and error handling. The common verbs (add, start, list_nodes, get_log …) need no code.

A verb is called with a handle first, then its arguments and options by name (dashes become underscores):

| handle | of | is |
|---|---|---|
| `service` | every verb (`target="service"`, the default: the command takes APP SRV) | the service's manager |
| `application` | verbs with `target="application"` (the command takes APP) | the application manager (service id 0) |

What every handle offers:

- identity: `app_id`, `app_name`, `service_id`, `name`, `type`;
- calls to its manager, parameters by their wire name, replies decoded: `get(method, **params)`, `post(method, **params)`,
  `upload(method, {"part": path}, **fields)`, `download(method, to, **params)` (streams into the path `to`); the
  last two take `_timeout`, the longest silence of the manager in seconds. An error reply is raised; let it pass, the
  command line prints it and chooses the exit code. `field(reply, name, dict)` takes a field of a reply and refuses one of
  another kind;
- `application`: the handle of service 0; `service(sid)` and `find_service(id_or_name)`: the handle of another service of the
  application;
- output, each in the format the user chose (`text` goes to a person, `data` is what `--output json` prints):
  `show(text, data)`, `table(columns, rows, empty="sentence when there are none")` with rows as dictionaries,
  `pairs(mapping)`, `note(text)` (a remark on stderr);
- `change(sentence, request, until=("RUNNING",))`: calls `request()`, then waits (unless `--no-wait`) until the service's
  state is one of `until`, and prints `<sentence>...  done.` (or `done`, if that is given); ERROR or an undone operation ends
  in `FAILED!` and exit code 1;
- `poll(probe, what)`: calls `probe()` with a growing pause until it answers something other than None, bounded by
  `--timeout`; `waiting(default)` tells whether the user wants to wait (--wait or --no-wait, else `default`);
- `confirm(question)` (asks on a terminal only), `ask_secret(prompt, confirm=False)` (a line of stdin if that is no
  terminal), `read_text(path)` (`-` is stdin), `fail(message, hint=None)` (never returns), `finish(code)` (ends the command
  with that exit code).
"""

from __future__ import annotations

from conpaas.client import codeverbs, verbs, volumeverbs


class VerbGroup(verbs.VerbTable):
    """What a service type's `verbs(group)` fills; see the module's text for an example."""

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self.type_name = type_name
        self.roles: dict[str, int] = {"count": 1}

    def node_roles(self, **counts: int) -> None:
        """Name the role options of add_nodes/remove_nodes, with the numbers that are used when no option is given.

        Without this call there is one option `--count`, default 1, which the manager maps to the type's default role.
        """
        self.roles = dict(counts)

    def code_verbs(self, *, enable: str = "enable_code") -> None:
        """Add the verbs of services that run uploaded code; `enable` is the manager's method that activates a version."""
        codeverbs.register(self, enable)

    def volume_verbs(self) -> None:
        """Add create_volume, delete_volume and list_volumes."""
        volumeverbs.register(self)
