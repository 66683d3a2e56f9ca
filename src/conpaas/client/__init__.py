"""The command line: cps-tools and its shortcuts.

- the library, for whoever acts for a user: `api` (calls), `replies` (answers), `certificates`, `failures`
- one run of a command: `main` (programs), `runtime`, `settings`, `session`, `output`, `asking`, `waiting`, `resolve` (names to ids),
  `account`, `logfiles`
- how commands are written: `grammar`, `global_options`, `complete`
- the commands: `objects/`; of one service type: `typed`, made from `verbs` that `plugins` and `handles` let the type define; `codeverbs`,
  `volumeverbs`
- the syntax of the first client: `classic/`
"""
